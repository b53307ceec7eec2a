"""The folder of a study: its cells, what is made of them, and a report over all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.errors import RunFolderError
from circuits.records import read_json, write_json, write_text
from cli.junit import Case, write_junit
from cli.study.cells import Cell
from cli.study.gates import gates
from cli.study.runner import LAST_MODEL, Outcome, Scheduler, attempt, run_cells
from cli.study.spec import Study
from cli.study.steps import Bench, Step, steps

if TYPE_CHECKING:
    from circuits.progress import Progress

SPEC, RECORD, SUMMARY, JUNIT = "study.yaml", "study.json", "summary.json", "junit.xml"
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


def finish(
    study: Study,
    output: Path,
    places: dict[Cell, Path],
    show: Progress,
    *,
    schedule: Scheduler,
    fail_fast: bool,
    say: Callable[[Outcome], None],
) -> dict[str, Any]:
    """Runs what does not stand yet, and writes study.json and the reports over all; returns the former."""
    ran = []
    for outcome in run_cells(places, schedule, fail_fast=fail_fast):
        say(outcome)
        ran.append(outcome)
    standing = {cell: folder for cell, folder in places.items() if folder.exists()}
    made = []
    for step in steps(study, Bench(output, standing, LAST_MODEL, show)):
        outcome = attempt(f"{step.kind} {step.name}", step.folder, step.make)
        say(outcome)
        made.append((step, outcome))
    record = _record(study, output, places, ran, made)
    write(output, record)
    return record


def write(output: Path, record: dict[str, Any]) -> None:
    """study.json and what is read off it: report.md with its pictures, report.html, summary.json, junit.xml."""
    from cli.page.page import write_page
    from cli.page.study_page import folder_page
    from cli.report.study import study_pictures, study_report

    pictures = dict(study_pictures(output, record))
    for name, content in pictures.items():
        (output / name).write_bytes(content)
    write_text(output / "report.md", study_report(output, record, tuple(pictures)))
    write_json(output / RECORD, record)
    write_page(folder_page(output))
    write_json(output / SUMMARY, summary(record))
    write_junit(output / JUNIT, "circuit run", cases(record))


def _record(
    study: Study,
    output: Path,
    places: dict[Cell, Path],
    ran: Sequence[Outcome],
    made: Sequence[tuple[Step, Outcome]],
) -> dict[str, Any]:
    """study.json: every cell and step, what came of it, and where it lies."""
    outcomes = {outcome.folder: outcome for outcome in ran}
    ran_cells = [
        {
            "name": cell.name,
            **cell.place,
            "folder": str(folder.relative_to(output)),
            **_came(outcomes.get(folder, Outcome(cell.name, folder, "failed", problem="not reached"))),
            **(_headline(folder) if folder.exists() else {}),
        }
        for cell, folder in places.items()
    ]
    ran_steps = [
        {
            "name": f"{step.kind} {step.name}",
            "kind": step.kind,
            "about": step.about,
            "folder": str(step.folder.relative_to(output)),
            "cells": [cell.name for cell in step.cells],
            **_came(outcome),
        }
        for step, outcome in made
    ]
    held = list(gates(study, places))
    return {
        "format_version": FORMAT_VERSION,
        "title": study.title,
        "cells": ran_cells,
        "steps": ran_steps,
        "gates": held,
        "failed": sum(bool(entry["problem"]) for entry in (*ran_cells, *ran_steps, *held)),
        "cost": {"seconds": {o.name: o.seconds for o in (*ran, *(o for _, o in made)) if o.state == "done"}},
    }


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """summary.json: for a program that asks whether all is well, and if not, what is not."""
    return {
        "failures": [
            {"kind": kind, "name": name, "problem": entry["problem"]}
            for kind, name, entry in _entries(record)
            if entry["problem"]
        ],
        "exit_status": int(record["failed"] > 0),
        "counts": {
            kind: {"all": len(record[kind]), "failed": sum(bool(e["problem"]) for e in record[kind])}
            for kind in ("cells", "steps", "gates")
        },
        "title": record["title"],
        "cost": {
            "seconds": round(sum(record["cost"]["seconds"].values()), 3),
            "made_now": len(record["cost"]["seconds"]),
        },
    }


def cases(record: dict[str, Any]) -> list[Case]:
    """A test case for each cell, step and gate."""
    took = record["cost"]["seconds"]
    return [
        Case(f"circuit.run.{kind}", name, entry["problem"], took.get(name))
        for kind, name, entry in _entries(record)
    ]


def _entries(record: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every cell, step and gate with its kind and what it is called."""
    yield from (("cell", entry["name"], entry) for entry in record["cells"])
    yield from ((entry["kind"], entry["name"], entry) for entry in record["steps"])
    yield from (("gate", f"{entry['name']} of {entry['cell']}", entry) for entry in record["gates"])


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
