"""The folder of a study: its cells, what is made of them, and a report over all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.errors import CircuitError, RunFolderError
from circuits.records import read_json, write_json, write_text
from cli.study.cells import Cell, digest
from cli.study.runner import LAST_MODEL, LastModel, Outcome, Scheduler, attempt, run_cells
from cli.study.spec import AXES, Axis, Compare, Repair, Study

if TYPE_CHECKING:
    from circuits.progress import Progress

SPEC, RECORD = "study.yaml", "study.json"
FORMAT_VERSION = 1


def open_study(folder: Path, config: Path) -> None:
    """Makes the folder, or goes on in it. Raises RunFolderError where it is none of ours, or cannot be written."""
    try:
        if (
            folder.exists()
            and not (folder / SPEC).is_file()
            and (not folder.is_dir() or any(folder.iterdir()))
        ):
            raise RunFolderError(f"{folder} is no study's folder: it has no {SPEC}. Choose another --output.")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / SPEC, config.read_text(encoding="utf-8"))
    except OSError as problem:
        raise RunFolderError(f"{folder} cannot be written: {problem.strerror or problem}.") from None


@dataclass(frozen=True)
class Step:
    """What is made of some cells. about: what it says in reports; make: writes the folder."""

    kind: str
    about: dict[str, Any]
    cells: tuple[Cell, ...]
    folder: Path
    make: Callable[[], None]

    @property
    def name(self) -> str:
        return self.folder.name


def finish(
    study: Study,
    output: Path,
    places: dict[Cell, Path],
    show: Progress,
    *,
    schedule: Scheduler,
    fail_fast: bool,
    say: Callable[[Outcome], None] | None,
) -> dict[str, Any]:
    """Runs what does not stand yet, and writes study.json and report.md over all; returns the former."""
    say, load = say or (lambda outcome: None), LAST_MODEL
    ran = []
    for outcome in run_cells(places, schedule, fail_fast=fail_fast):
        say(outcome)
        ran.append(outcome)
    standing = {cell: folder for cell, folder in places.items() if folder.exists()}
    made = []
    for step in (
        *_comparisons(study, output, standing, load, show),
        *_repairs(study, output, standing, load, show),
    ):
        outcome = attempt(f"{step.kind} {step.name}", step.folder, step.make)
        say(outcome)
        made.append((step, outcome))
    record = _record(study, output, places, ran, made)
    from cli.report.study import study_pictures, study_report

    pictures = dict(study_pictures(output, record))
    for name, content in pictures.items():
        (output / name).write_bytes(content)
    write_text(output / "report.md", study_report(output, record, tuple(pictures)))
    write_json(output / RECORD, record)
    return record


def _comparisons(
    study: Study, output: Path, standing: dict[Cell, Path], load: LastModel, show: Progress
) -> Iterator[Step]:
    for wanted in study.compare:
        among = [cell for cell in standing if wanted.where.holds(cell.place)]
        for fixed, members in _groups(among, wanted.across):
            # Models may differ in shape, and heads are aligned two models at a time.
            sets = combinations(members, 2) if wanted.across == "model" else [members]
            for some in sets:
                if len(some) > 1:
                    yield _comparison(wanted, fixed, tuple(some), output, standing, load, show)


def _groups(cells: Sequence[Cell], across: Axis) -> Iterator[tuple[dict[str, Any], list[Cell]]]:
    """Cells that agree on every other axis, with what they agree on."""
    others, groups = [axis for axis in AXES if axis != across], dict[tuple[str, ...], list[Cell]]()
    for cell in cells:
        groups.setdefault(tuple(str(cell.place[axis]) for axis in others), []).append(cell)
    for values, members in groups.items():
        yield dict(zip(others, values, strict=True)), members


def _comparison(
    wanted: Compare,
    fixed: dict[str, Any],
    members: tuple[Cell, ...],
    output: Path,
    standing: dict[Cell, Path],
    load: LastModel,
    show: Progress,
) -> Step:
    facts = [wanted.across, wanted.transfer, wanted.nodes, [standing[cell].name for cell in members]]
    labels = [Path(str(cell.place[wanted.across])).name for cell in members]
    by = "-".join(Path(str(value)).name for value in fixed.values())
    between = f"{labels[0]}-{labels[1]}-" if wanted.across == "model" else ""
    folder = output / "comparisons" / f"{wanted.across}s-{between}{by.replace('/', '-')}-{digest(facts)}"
    about = {"across": wanted.across, "transfer": wanted.transfer, **fixed, "between": labels}

    def make() -> None:
        from cli.comparing import Request, compared

        request = Request(
            tuple(str(standing[cell]) for cell in members),
            names=tuple(labels),
            nodes=wanted.nodes,
            transfer=wanted.transfer,
        )
        compared(request, show, load).write(folder, force=False)

    return Step("comparison", about, members, folder, make)


def _repairs(
    study: Study, output: Path, standing: dict[Cell, Path], load: LastModel, show: Progress
) -> Iterator[Step]:
    for wanted in study.repair:
        found = {
            name: next((cell for cell in standing if _is(cell, wanted, task)), None)
            for name, task in (("good", wanted.good), ("bad", wanted.bad))
        }
        members = tuple(cell for cell in found.values() if cell is not None)
        facts = [wanted.model_dump(), [standing[cell].name for cell in members]]
        stem = f"{Path(wanted.model).name}-{wanted.bad}-by-{wanted.good}".replace("/", "-")
        folder = output / "repairs" / f"{stem}-{digest(facts)}"
        make = partial(_repair, wanted, found, standing, folder, load, show)
        yield Step("repair", wanted.model_dump(), members, folder, make)


def _repair(
    wanted: Repair,
    found: dict[str, Cell | None],
    standing: dict[Cell, Path],
    folder: Path,
    load: LastModel,
    show: Progress,
) -> None:
    from circuits.interventions.run_intervention import Treatment
    from circuits.runs import read_run
    from cli.intervene import repaired
    from cli.intervention_output import write
    from cli.run_source import model_of

    missing = [task for name, task in (("good", wanted.good), ("bad", wanted.bad)) if found[name] is None]
    if missing:
        raise CircuitError(f"There is no run of {' and '.join(missing)} to repair with: its cell failed.")
    good, bad = (read_run(standing[cell]) for cell in (found["good"], found["bad"]) if cell is not None)
    model, _ = model_of(bad, wanted.model, "cpu", None, None, show, load)
    treatment = Treatment("repair", onto=wanted.onto)
    write(folder, repaired(bad, good, None, model, treatment, wanted.seed, show), force=False)


def _is(cell: Cell, wanted: Repair, task: str) -> bool:
    return (cell.task, cell.model, cell.method, cell.seed) == (task, wanted.model, wanted.method, wanted.seed)


def _record(
    study: Study,
    output: Path,
    places: dict[Cell, Path],
    ran: Sequence[Outcome],
    made: Sequence[tuple[Step, Outcome]],
) -> dict[str, Any]:
    """study.json: every cell and step, what came of it, and where it lies."""
    outcomes = {outcome.folder: outcome for outcome in ran}
    cells = [
        {
            "name": cell.name,
            **cell.place,
            "folder": str(folder.relative_to(output)),
            **_came(outcomes.get(folder, Outcome(cell.name, folder, "failed", problem="not reached"))),
            **(_headline(folder) if folder.exists() else {}),
        }
        for cell, folder in places.items()
    ]
    steps = [
        {
            "kind": step.kind,
            "about": step.about,
            "folder": str(step.folder.relative_to(output)),
            "cells": [cell.name for cell in step.cells],
            **_came(outcome),
        }
        for step, outcome in made
    ]
    return {
        "format_version": FORMAT_VERSION,
        "title": study.title,
        "cells": cells,
        "steps": steps,
        "failed": sum(bool(entry["problem"]) for entry in (*cells, *steps)),
        "cost": {"seconds": {o.name: o.seconds for o in (*ran, *(o for _, o in made)) if o.state == "done"}},
    }


def _came(outcome: Outcome) -> dict[str, Any]:
    return {"whole": outcome.state != "failed", "problem": outcome.problem}


def _headline(folder: Path) -> dict[str, Any]:
    """What a run comes to: how much its circuit keeps, and the first verdict on it."""
    entry = read_json(folder / "circuit.json")["circuits"][0]
    verdict = entry["evaluation"][0]
    return {
        "granularity": entry.get("granularity", "node"),
        "kept": len(entry["edges"] if entry.get("granularity") == "edge" else entry["nodes"]),
        "ablation": verdict["ablation"],
        "faithfulness": verdict["faithfulness"],
        "random_median": verdict["random"]["median"],
        "p_value": verdict["random"]["p_value"],
    }
