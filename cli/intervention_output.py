"""From an intervention to its folder: intervention.json, tables, report.md, report.html, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from circuits.interventions.effect import Control, Effect
    from circuits.interventions.run_intervention import Asked, Result, Treatment
    from circuits.models.bridge import BridgeModel
    from circuits.runs import RunFolder

RECORD, FORMAT_VERSION = "intervention.json", 1


class Done(NamedTuple):
    """An intervention on all prompt sets. good: the run that a repair learns from. method: whose circuit."""

    run: RunFolder
    good: RunFolder | None
    model: BridgeModel
    treatment: Treatment
    method: str
    asked: Asked
    results: tuple[Result, ...]


def show(done: Done, folder: Path) -> None:
    """What the terminal says."""
    from cli.intervention_words import result_lines
    from cli.render import say

    for result in done.results:
        for line in result_lines(done.treatment, result):
            say(line)
        say("")
    say(f"Written to {folder}: report.html (open it in a browser), report.md, {RECORD}, tables and pictures.")


def record(done: Done) -> dict[str, Any]:
    """intervention.json; nothing in it varies from run to run."""
    from circuits.models.source import weights_hash

    treatment = done.treatment
    return {
        "format_version": FORMAT_VERSION,
        "run": done.run.path.absolute().name,
        "good_run": done.good and done.good.path.absolute().name,
        "model": {"name": done.model.name, "weights_sha256": weights_hash(done.model.directory)},
        "asked": {
            "do": treatment.kind,
            "heads": treatment.heads,
            "channels": treatment.channels,
            "factors": treatment.factors,
            "onto": treatment.onto,
            "method": done.method,
            "circuit": done.asked.circuit.heads,
            "toward": done.asked.toward,
            "seed": done.asked.seed,
        },
        "results": [_result(result) for result in done.results],
    }


def _result(result: Result) -> dict[str, Any]:
    later = result.downstream
    return {
        "task": result.prompts.task,
        "prompts": result.prompts.about,
        "metric": result.prompts.metric,
        "heads": result.heads,
        "effect": asdict(result.effect),
        "controls": [asdict(control) for control in result.controls],
        "downstream": None if later is None else {**asdict(later), "predicted": later.predicted},
        "sweep": result.sweep and asdict(result.sweep),
        "choice": result.choice and asdict(result.choice),
        "repair": result.repair and asdict(result.repair),
    }


def write(folder: Path, done: Done, *, force: bool) -> dict[str, Any]:
    """Writes the whole folder, or nothing, and returns the record. Raises RunFolderError where the disk refuses."""
    import pandas as pd

    from circuits.records import write_json, write_table, write_text
    from circuits.runs import writing_run
    from cli.page.intervention_page import folder_page
    from cli.page.page import write_page
    from cli.report.intervention import intervention_report

    kept, pictures = record(done), dict(_pictures(done))
    report = intervention_report(done, tuple(pictures))
    with writing_run(folder, force, RECORD) as place:
        write_json(place / RECORD, kept)
        write_table(place / "intervention.csv", pd.DataFrame(_rows(done)))
        if heads := list(_heads(done)):
            write_table(place / "heads.csv", pd.DataFrame(heads))
        write_text(place / "report.md", report)
        if any(result.learned for result in done.results):
            _write_offsets(place / "offsets.safetensors", done)
        for name, content in pictures.items():
            (place / name).write_bytes(content)
        write_page(folder_page(place))
    return kept


def _write_offsets(path: Path, done: Done) -> None:
    """One vector a head and layer, named by the prompt set where there are several."""
    from safetensors.torch import save_file

    named = {
        f"{result.prompts.task}.{name}" if len(done.results) > 1 else name: value.cpu().contiguous().clone()
        for result in done.results
        for name, value in result.learned.items()
    }
    save_file(named, path)
    path.chmod(path.with_name(RECORD).stat().st_mode)  # safetensors writes a file for its owner alone


def _rows(done: Done) -> Iterator[dict[str, Any]]:
    """One row for everything that was tried."""
    for result in done.results:
        task = {"task": result.prompts.task}
        for what, effect in arms(result):
            yield task | {"what": what} | _figures(effect)
        for control in result.controls:
            yield from (task | row for row in _drawn(control))


def arms(result: Result) -> Iterator[tuple[str, Effect]]:
    """Everything that was tried on judged prompts (and the tuning prompts of a sweep), by name."""
    if result.repair:
        others = [head for head in result.repair.alone if (head,) != result.heads]
        yield from ((f"{head} alone", result.repair.alone[head]) for head in others)
    if sweep := result.sweep:
        for part in ("tuning", "judged"):
            for factor, effect in zip(sweep.factors, getattr(sweep, part), strict=True):
                yield f"factor {factor:g}, {part}", effect
    yield "the intervention", result.effect


def _figures(effect: Effect) -> dict[str, Any]:
    row: dict[str, Any] = {
        "n_prompts": effect.n_prompts,
        "fixed": effect.fixed,
        "new_errors": effect.new_errors,
    }
    for name in ("correct", "preferred", "distracted", "metric"):
        shift = getattr(effect, name)
        row |= {f"{name}_{side}": getattr(shift, side).value for side in ("before", "after", "change")}
        row |= {f"{name}_change_{end}": getattr(shift.change, end) for end in ("low", "high")}
    return row


def _drawn(control: Control) -> Iterator[dict[str, Any]]:
    columns = zip(control.drawn, control.metric.changes, control.correct.changes, strict=True)
    for drawn, metric, correct in columns:
        what = f"{control.kind}: {drawn}"
        yield {
            "what": what,
            "n_prompts": control.n_prompts,
            "metric_change": metric,
            "correct_change": correct,
        }


def _heads(done: Done) -> Iterator[dict[str, Any]]:
    """One row a later head and prompt set."""
    for result in done.results:
        for head in result.downstream.heads if result.downstream else ():
            row: dict[str, Any] = {
                "task": result.prompts.task,
                "head": head.name,
                "in_circuit": head.member,
                "score": head.score,
            }
            shifts: Mapping[str, Any] = {
                "attribution": head.attribution,
                **{f"attention {n}": s for n, s in head.attention.items()},
            }
            for name, shift in shifts.items():
                row |= {f"{name} {side}": getattr(shift, side).value for side in ("before", "after")}
                row |= {f"{name} change {end}": getattr(shift.change, end) for end in ("low", "high")}
            yield row


def _pictures(done: Done) -> Iterator[tuple[str, bytes]]:
    from cli.report.figure import png
    from cli.report.intervention import downstream_picture, effect_picture

    yield "effect.png", png(effect_picture(done))
    if any(result.downstream for result in done.results):
        yield "downstream.png", png(downstream_picture(done))
