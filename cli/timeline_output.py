"""What `circuit timeline` found, as a reading: its record, sentences, tables and picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.reading_output import Drawing, Reading, Table
from cli.wording import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.over_training.series import Appearance, Point, Series
    from circuits.over_training.timeline import Question, Timeline
    from cli.prompt_source import Prompts

RECORD = "timeline.json"

COLUMNS = ("figure", "chance", "first", "last", "appears", "half way", "head")
BY_STEP = ("step", "correct", "metric", "kept", "faithfulness", "overlap", "chance")

DEFINITIONS = (
    "Appears: the first step from which a figure is above chance at every later checkpoint. Half way: the first from "
    "which it keeps at least half of the way from chance to its last value. No step is finer than the checkpoints "
    "lie apart. Faithfulness is that of the final circuit in the model of each step; overlap is the Jaccard of that "
    "step's own circuit with the final one."
)
UNEXPLAINED = (
    "Where the metric of clean prompts is not clearly above that of corrupt ones there is nothing to explain: such a "
    "checkpoint has no circuit, and faithfulness and overlap no meaning."
)


class Told(NamedTuple):
    """A timeline, and what was asked. weights: the hash of each checkpoint's weights."""

    found: Timeline
    asked: Question
    drawn: Prompts
    method: str
    series: tuple[Series, ...]
    appearances: tuple[Appearance, ...]
    weights: tuple[str, ...]


def told(found: Timeline, asked: Question, drawn: Prompts) -> Told:
    from circuits.models.source import weights_hash
    from circuits.over_training.figures import all_series
    from circuits.over_training.series import appearance

    series = all_series(found)
    came = tuple(appearance(one, found.steps) for one in series if one.kind != "size")
    weights = tuple(weights_hash(c.directory) for c in found.training.checkpoints)
    return Told(found, asked, drawn, asked.plan.methods[0][0].name, series, came, weights)


def reading_of(it: Told) -> Reading:
    """What is put out of it."""
    title, where = f"{it.drawn.name} over the training of {it.found.training.name}", it.found.training.name
    return Reading(
        record=RECORD,
        title=title,
        kept=_record(it),
        words=tuple(_sentences(it)),
        tables=(
            Table(
                f"What appears when in {where}, {it.drawn.name}",
                COLUMNS,
                tuple(_appearing(it)),
                numeric=COLUMNS[1:6],
            ),
            Table("Behaviour and circuit, step by step", BY_STEP, tuple(_by_step(it)), numeric=BY_STEP),
        ),
        files={"timeline": tuple(_figures(it)), "circuits": tuple(_circuits(it))},
        drawings=(_drawing(it, title),),
    )


def _drawing(it: Told, title: str) -> Drawing:
    n = it.found.moments[-1].baseline.n_prompts

    def draw() -> Figure:
        from cli.report.over_training import timeline_figure

        return timeline_figure(
            it.series, it.found.steps, it.found.training.stages, f"{title} (n = {n} prompts)"
        )

    return Drawing("timeline.png", "What appears when, from the first checkpoint to the last", draw)


def _record(it: Told) -> dict[str, Any]:
    """Of timeline.json; nothing in it varies from run to run."""
    found, drawn, plan = it.found, it.drawn, it.asked.plan
    return {
        "checkpoints": found.training.name,
        "steps": found.steps,
        "stages": dict(found.training.stages),
        "weights_sha256": dict(zip(map(str, found.steps), it.weights, strict=True)),
        "task": drawn.name,
        "form": drawn.form,
        "corruption": drawn.corruption,
        "prompts": len(drawn.pairs),
        "judged": found.moments[-1].baseline.n_prompts,
        "metric": plan.metric,
        "method": it.method,
        "ablation": plan.ablations[0],
        "seed": plan.seed,
        "final_circuit": found.final.circuit.kept,
        "appearances": [asdict(one) for one in it.appearances],
        "series": [asdict(one) for one in it.series],
        "left_out": dict(found.left_out),
    }


def _sentences(it: Told) -> Iterator[str]:
    from cli.wording import estimate

    found, drawn, last = it.found, it.drawn, it.found.moments[-1]
    stages = ", ".join(f"{name} {steps}" for name, steps in found.training.stages.items())
    yield (
        f"{len(found.steps)} checkpoints of {found.training.name}, steps {found.steps[0]} to {found.steps[-1]}"
        + (f" (stages: {stages})" if stages else "")
        + f"; {last.baseline.n_prompts} judged prompts of {drawn.name} ({drawn.form}, {drawn.corruption}); "
        f"circuits by {it.method}."
    )
    faithful = "" if last.final is None else f", faithfulness {estimate(last.final.faithfulness)}"
    kept = found.final.circuit.kept
    named = f": {', '.join(kept)}" if found.final.circuit.edges is None else " edges"
    yield f"The final circuit keeps {len(kept)} of {len(found.final.ranked.components)}{named}{faithful}."
    yield DEFINITIONS
    yield UNEXPLAINED
    yield from (f"Left out: {name}. {why}" for name, why in found.left_out.items())


def _appearing(it: Told) -> Iterator[tuple[str, ...]]:
    firsts = {(one.kind, one.name): one.points[0] for one in it.series}
    for one in it.appearances:
        final = one.final
        yield (
            one.name,
            "" if final is None or final.chance is None else number(final.chance, 3),
            _value(firsts[one.kind, one.name]),
            _value(final),
            _step(one.above),
            _step(one.half),
            final.of if final else "",
        )


def _value(point: Point | None) -> str:
    return "" if point is None else number(point.value, 3)


def _step(step: int | None) -> str:
    return "never" if step is None else str(step)


def _by_step(it: Told) -> Iterator[tuple[str, ...]]:
    by_name = {one.name: one.points for one in it.series}
    names = ("correct", "clean", "kept", "faithfulness", "overlap")
    correct, metric, kept, faithful, shared = (by_name[name] for name in names)
    for n, step in enumerate(it.found.steps):
        size, overlap = kept[n], shared[n]
        chance = "" if overlap is None or overlap.chance is None else number(overlap.chance)
        yield (
            str(step),
            _value(correct[n]),
            _value(metric[n]),
            "" if size is None else f"{size.value:.0f}",
            _value(faithful[n]),
            _value(overlap),
            chance,
        )


def _figures(it: Told) -> Iterator[dict[str, Any]]:
    """One row a figure and checkpoint where it has a meaning."""
    for one in it.series:
        for step, point in zip(it.found.steps, one.points, strict=True):
            if point is not None:
                values = asdict(point)
                yield {"step": step, "kind": one.kind, "figure": one.name, "head": values.pop("of")} | values


def _circuits(it: Told) -> Iterator[dict[str, Any]]:
    """One row a component, or edge, and checkpoint that has a circuit."""
    for step, moment in zip(it.found.steps, it.found.moments, strict=True):
        if (own := moment.circuit) is None:
            continue
        for name, score in zip(own.ranked.components, own.ranked.values.tolist(), strict=True):
            yield {"step": step, "component": name, "score": score, "kept": name in own.circuit}
