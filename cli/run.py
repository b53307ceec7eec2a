"""`circuit run`: a study from one file: a matrix of discoveries, comparisons of their circuits, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from cli.study.cells import Cell
    from cli.study.runner import Outcome


def _print_schema(wanted: bool) -> None:
    if wanted:
        from circuits.records import json_text
        from cli.study.spec import schema

        print(json_text(schema()), end="")
        raise typer.Exit


@guarded
def run(
    config: Annotated[Path, typer.Argument(help="A study's YAML file; see configs/reuse.yaml.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The study's folder; runs/NAME-OF-FILE if not given. Goes on in it."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="For all cells: an option (pairs=20), or a method's (sae.trials=2)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and what it would take, and run nothing.")
    ] = False,
    forecast: Annotated[
        bool, typer.Option("--forecast/--no-forecast", help="Whether --dry-run loads models to tell time.")
    ] = True,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first cell that fails.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print study.json, and nothing else.")] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            help="Print the JSON schema of such a file, for editors.",
            is_eager=True,
            callback=_print_schema,
        ),
    ] = False,
) -> None:
    """Run a study: tasks x models x methods x seeds, compared, in one folder that can be gone on with.

    [bold]circuit run configs/reuse.yaml --output runs/reuse[/bold]

    [bold]circuit run configs/quick.yaml --set pairs=40 --dry-run[/bold]
    """
    from cli.render import progress
    from cli.study.cells import cells, require_cells
    from cli.study.runner import place_cells
    from cli.study.spec import read_study, with_settings

    study = with_settings(read_study(config), set_ or [])
    folder = output or Path("runs") / config.stem
    wanted = cells(study)
    require_cells(study, wanted)
    places = place_cells(wanted, folder)
    if dry_run:
        _show_cells(places)
        if forecast:
            _show_prices([cell for cell, path in places.items() if not path.exists()])
        return
    from cli.study.output import finish, open_study

    open_study(folder, config)
    with progress(quiet=json) as show:
        record = finish(study, folder, places, show, fail_fast=fail_fast, say=None if json else _say)
    if json:
        from circuits.records import json_text

        print(json_text(record), end="")
    else:
        _show_end(record, folder)
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


def _show_prices(waiting: list[Cell]) -> None:
    from circuits.memory import spell_bytes
    from cli.render import note, progress, table
    from cli.study.forecast import prices

    with progress() as show:
        found = list(prices(waiting, show))
    rows = [
        (
            Path(price.cells[0].model).name,
            price.cells[0].method,
            str(len(price.cells)),
            "unknown"
            if price.seconds is None
            else f"{'at least ' * bool(price.unknown)}{price.seconds:,.0f}",
            "unknown" if price.bytes is None else spell_bytes(price.bytes),
            price.problem,
        )
        for price in found
    ]
    table(("model", "method", "cells", "seconds each", "memory", ""), rows)
    known = [price for price in found if price.seconds is not None]
    total = sum((price.seconds or 0) * len(price.cells) for price in known)
    least = "At least " if len(known) < len(found) or any(price.unknown for price in known) else "About "
    note(
        f"{least}{total:,.0f} s of one process for the cells, on this machine as it is now: the first cell of each "
        "kind is forecast for all, whose prompts may differ in length. Loading models and what is made of the cells "
        "come on top."
    )


def _show_end(record: dict[str, Any], folder: Path) -> None:
    from cli.render import error, say

    for gate in record["gates"]:
        if gate["problem"]:
            error(f"{gate['cell']}: {gate['problem']}")
    counts = ", ".join(f"{len(record[kind])} {kind}" for kind in ("cells", "steps", "gates") if record[kind])
    say(f"{counts}; {record['failed'] or 'none'} failed. Report: {folder / 'report.md'}")


def _say(outcome: Outcome) -> None:
    from cli.render import error, note

    if outcome.state == "failed":
        error(f"{outcome.name}: {outcome.problem}")
    else:
        took = f", {outcome.seconds:.0f} s" if outcome.state == "done" else " (stands)"
        note(f"{outcome.name}{took}")
