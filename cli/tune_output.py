"""From a tuning to its folder: the model's files, tune.json, tune.csv and report.md; and what the terminal says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.evaluation_words import some
from cli.intervention_words import control_words, effect_words
from cli.wording import estimate, share

if TYPE_CHECKING:
    from circuits.interventions.effect import Effect
    from circuits.models.bridge import BridgeModel
    from circuits.runs import RunFolder
    from circuits.tuning.run_tuning import Asked, Elsewhere, Tuned

RECORD, FORMAT_VERSION = "tune.json", 1


class Done(NamedTuple):
    """A tuning of a run's heads. method: whose circuit."""

    run: RunFolder
    model: BridgeModel
    method: str
    asked: Asked
    result: Tuned


def lines(done: Done) -> Iterator[str]:
    """All that is said."""
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


def show(done: Done, folder: Path) -> None:
    """What the terminal says."""
    from cli.render import say

    for line in lines(done):
        say(line)
    say(f"Written to {folder}, a model: circuit discover {done.run.run['config']['task']} --model {folder}")


def record(done: Done) -> dict[str, Any]:
    """tune.json; nothing in it varies from run to run."""
    from circuits.models.source import weights_hash

    tuned, schedule = done.result, done.asked.schedule
    return {
        "format_version": FORMAT_VERSION,
        "run": done.run.path.absolute().name,
        "model": {"name": done.model.name, "weights_sha256": weights_hash(done.model.directory)},
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


def write(folder: Path, done: Done, *, force: bool) -> dict[str, Any]:
    """Writes the model and its record, or nothing. Raises RunFolderError where the disk refuses."""
    import pandas as pd

    from circuits.models.tuned_copy import write_tuned
    from circuits.records import write_json, write_table, write_text
    from circuits.runs import writing_run

    kept, weights = record(done), done.model.weights
    assert weights is not None, "tuning needs the engine"
    nodes = [done.model.graph.node(head) for head in done.result.heads]
    with writing_run(folder, force, RECORD) as place:
        write_tuned(done.model.directory, place, nodes, done.result.changes, weights.d_head)
        write_json(place / RECORD, kept)
        write_table(place / "tune.csv", pd.DataFrame(_rows(done.result)))
        write_text(
            place / "report.md", f"# {done.model.name}, heads tuned\n\n" + "\n\n".join(lines(done)) + "\n"
        )
    return kept


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
