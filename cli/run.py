"""`circuit run`: a study from one file: a matrix of discoveries, comparisons of their circuits, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from cli.study.cells import Cell
    from cli.study.runner import Outcome


@guarded
def run(
    config: Annotated[Path, typer.Argument(help="A study's YAML file; see configs/reuse.yaml.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The study's folder; runs/NAME-OF-FILE if not given. Goes on in it."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first cell that fails.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print study.json, and nothing else.")] = False,
) -> None:
    """Run a study: tasks x models x methods x seeds, compared, in one folder that can be gone on with.

    [bold]circuit run configs/reuse.yaml --output runs/reuse[/bold]

    [bold]circuit run configs/reuse.yaml --dry-run[/bold]
    """
    from cli.render import progress
    from cli.study.cells import cells, require_cells
    from cli.study.runner import place_cells
    from cli.study.spec import read_study

    study = read_study(config)
    folder = output or Path("runs") / config.stem
    wanted = cells(study)
    require_cells(study, wanted)
    places = place_cells(wanted, folder)
    if dry_run:
        _show_cells(places)
        return
    from cli.study.output import finish, open_study

    open_study(folder, config)
    with progress(quiet=json) as show:
        record = finish(study, folder, places, show, fail_fast=fail_fast, say=None if json else _say)
    if json:
        from circuits.records import json_text

        print(json_text(record), end="")
    if record["failed"]:
        raise typer.Exit(1)


def _show_cells(places: dict[Cell, Path]) -> None:
    from cli.render import note, table

    rows = [
        (cell.task, cell.model, cell.method, str(cell.seed), "stands" if path.exists() else "to run")
        for cell, path in places.items()
    ]
    table(("task", "model", "method", "seed", "state"), rows)
    waiting = sum(not path.exists() for path in places.values())
    note(f"{len(rows)} cells, {waiting} to run.")


def _say(outcome: Outcome) -> None:
    from cli.render import error, note

    if outcome.state == "failed":
        error(f"{outcome.name}: {outcome.problem}")
    else:
        took = f", {outcome.seconds:.0f} s" if outcome.state == "done" else " (stands)"
        note(f"{outcome.name}{took}")
