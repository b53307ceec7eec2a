"""What `circuit tune` did to a run's heads: sentences, every figure as a table, a record, and the model itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.evaluation_words import some
from cli.intervention_words import control_words, effect_words
from cli.reading_output import Drawing, Reading, model_record
from cli.wording import estimate, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.interventions.effect import Effect
    from circuits.models.bridge import BridgeModel
    from circuits.runs import RunFolder
    from circuits.tuning.run_tuning import Asked, Elsewhere, Tuned

RECORD = "tune.json"
"""By which the folder is known."""


class Done(NamedTuple):
    """A tuning of a run's heads. method: whose circuit."""

    run: RunFolder
    model: BridgeModel
    method: str
    asked: Asked
    result: Tuned


def reading_of(done: Done, folder: Path) -> Reading:
    """folder: where the model will stand."""
    title = f"{done.model.name}, heads tuned"
    drawing = Drawing("tune.png", "Right answers, task by task", partial(_draw, done.result.results, title))
    return Reading(
        RECORD,
        title,
        _record(done),
        tuple(_words(done)),
        files={"tune": list(_rows(done.result))},
        drawings=(drawing,),
        more=partial(_write_model, done),
        then=f"It is a model: circuit discover {done.run.run['config']['task']} --model {folder}",
    )


def _draw(results: Sequence[Elsewhere], title: str) -> Figure:
    from cli.report.readings import tune_picture

    return tune_picture(results, title)


def _words(done: Done) -> Iterator[str]:
    from circuits.models.source import n_parameters

    tuned, schedule = done.result, done.asked.schedule
    total = n_parameters(done.model.directory)
    yield (
        f"Tuned the {', '.join(tuned.parts)} matrices of {some(tuned.heads)} on {tuned.n_taught} discovery prompts "
        f"({schedule.epochs} epochs, step size {schedule.rate:g}): {tuned.n_changed:,} of {total:,} numbers of "
        f"{done.model.name} ({tuned.n_changed / total:.1%}); all others are bit for bit what they were."
    )
    for found in tuned.results:
        yield from _of_prompts(found)


def _of_prompts(found: Elsewhere) -> Iterator[str]:
    yield f"On {found.effect.n_prompts} {found.prompts.about}: {effect_words(found.effect)}"
    if found.control is None:
        yield "There is no control by random heads: too few heads are left to draw from."
    else:
        yield control_words(found.control)
    yield (
        f"Tuned alike on the answers of other prompts: correct {share(found.shuffled.correct.after)}, metric "
        f"{estimate(found.shuffled.metric.after)}; all heads tuned on the right ones: correct "
        f"{share(found.everything.correct.after)}, metric {estimate(found.everything.metric.after)}."
    )


def _record(done: Done) -> dict[str, Any]:
    """Nothing in it varies from run to run."""
    tuned, schedule = done.result, done.asked.schedule
    return {
        "run": done.run.path.absolute().name,
        "model": model_record(done.model),
        "method": done.method,
        "heads": tuned.heads,
        "parts": tuned.parts,
        "n_taught": tuned.n_taught,
        "n_changed": tuned.n_changed,
        "schedule": {"rate": schedule.rate, "epochs": schedule.epochs, "batch_size": schedule.batch_size},
        "seed": done.asked.seed,
        "results": [
            {
                "task": found.prompts.task,
                "prompts": found.prompts.about,
                "metric": found.prompts.metric,
                "effect": asdict(found.effect),
                "shuffled_answers": asdict(found.shuffled),
                "all_heads": asdict(found.everything),
                "control": found.control and asdict(found.control),
            }
            for found in tuned.results
        ],
    }


def _write_model(done: Done, place: Path) -> None:
    from circuits.models.tuned_copy import write_tuned

    assert done.model.weights is not None, "tuning needs the engine"
    nodes = [done.model.graph.node(head) for head in done.result.heads]
    write_tuned(done.model.directory, place, nodes, done.result.changes, done.model.weights.d_head)


def _rows(tuned: Tuned) -> Iterator[dict[str, Any]]:
    for found in tuned.results:
        arms = {
            "these heads": found.effect,
            "shuffled answers": found.shuffled,
            "all heads": found.everything,
        }
        for what, effect in arms.items():
            yield {"task": found.prompts.task, "what": what} | _figures(effect)
        if found.control:
            columns = zip(
                found.control.drawn, found.control.metric.changes, found.control.correct.changes, strict=True
            )
            for drawn, metric, correct in columns:
                yield {
                    "task": found.prompts.task,
                    "what": f"random heads: {drawn}",
                    "n_prompts": found.control.n_prompts,
                    "correct_change": correct,
                    "metric_change": metric,
                }


def _figures(effect: Effect) -> dict[str, Any]:
    row: dict[str, Any] = {"n_prompts": effect.n_prompts}
    for name in ("correct", "metric"):
        shift = getattr(effect, name)
        row |= {f"{name}_{side}": getattr(shift, side).value for side in ("before", "after", "change")}
        row |= {f"{name}_change_{end}": getattr(shift.change, end) for end in ("low", "high")}
    return row
