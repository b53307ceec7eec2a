"""`circuit run`: a study from one file: a matrix of discoveries, comparisons of their circuits, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.errors import CircuitError
from cli.guard import INTERRUPTED, guarded

if TYPE_CHECKING:
    from cli.render import Board
    from cli.study.cells import Cell
    from cli.study.mirror import Mirror
    from cli.study.runner import Outcome, Scheduler


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
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="The study's folder; runs/NAME-OF-FILE if not given. Goes on in it. A URL (s3://bucket/study, any "
            "of fsspec's) is kept up with runs/NAME-OF-FILE.",
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
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Run cells in N processes, which may die without the study; in this one if not given."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Run cells as Ray tasks: local, auto, or the address of a cluster that shares this disk or the URL."
        ),
    ] = None,
    gpus_per_cell: Annotated[
        float, typer.Option(min=0, help="With --ray: the share of a GPU that a cell asks for, such as 0.25.")
    ] = 0.0,
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

    [bold]circuit run configs/reuse.yaml --workers 4[/bold]

    [bold]circuit run configs/quick.yaml --set pairs=40 --dry-run[/bold]
    """
    from cli.render import board
    from cli.study.cells import cells, require_cells
    from cli.study.runner import place_cells
    from cli.study.spec_file import read_study, with_settings

    study = with_settings(read_study(config), set_ or [])
    wanted = cells(study)
    require_cells(study, wanted)
    mirror = _mirror(output, config)
    folder = mirror.folder if mirror else Path(output or Path("runs") / config.stem)
    places = place_cells(wanted, folder)
    if dry_run:
        _show_cells(places)
        if forecast:
            _show_prices([cell for cell, path in places.items() if not path.exists()])
        return
    from cli.study.claims import clean
    from cli.study.output import finish, open_study

    with _summed_up(folder, quiet=json) as outcomes, board([c.name for c in wanted], quiet=json) as show:

        def say(outcome: Outcome) -> None:
            outcomes.append(outcome)
            show.ended(outcome.name, outcome.state, outcome.seconds, outcome.problem)

        schedule = _scheduler(workers, ray, gpus_per_cell, show, mirror)
        up_there = mirror.pieces() if mirror else []  # before anything is written here
        open_study(folder, config)
        clean(folder)
        if mirror:
            mirror.fetch(up_there)
        record = finish(study, folder, places, show, schedule=schedule, fail_fast=fail_fast, say=say)
        if mirror:
            mirror.put()
        if json:
            from circuits.records import json_text

            print(json_text(record), end="")
        else:
            _show_gates(record)
    if record["failed"]:
        raise typer.Exit(1)


def _mirror(output: str | None, config: Path) -> Mirror | None:
    """Of a URL: the folder up there, beside one of this machine."""
    from cli.study.mirror import Mirror, is_url

    return Mirror(output, Path("runs").absolute() / config.stem) if output and is_url(output) else None


def _scheduler(
    workers: int | None, ray: str | None, gpus_per_cell: float, show: Board, mirror: Mirror | None
) -> Scheduler:
    """Raises CircuitError for options that do not go together, and where there is no Ray."""
    from cli.study.mirror import MakeAndPut
    from cli.study.runner import make_cell

    make = MakeAndPut(make_cell, mirror) if mirror else make_cell
    if ray is None:
        from cli.study.workers import Workers

        if gpus_per_cell:
            raise CircuitError("--gpus-per-cell is for --ray; without it, say with `device` where cells run.")
        return Workers(workers, show.report, make)
    from cli.study.ray_workers import RayWorkers, require_ray

    if workers is not None:
        raise CircuitError("--workers and --ray cannot go together: Ray starts as many cells as it has CPUs.")
    require_ray()
    fetch = mirror.fetch_piece if mirror else lambda folder: None
    return RayWorkers(ray, gpus_per_cell, show.report, make, fetch)


@contextmanager
def _summed_up(folder: Path, quiet: bool) -> Iterator[list[Outcome]]:
    """Takes outcomes, and says at the end what failed, then what there is; also where the work is cut short."""
    outcomes: list[Outcome] = []
    code, last_words = 0, f"Read {folder / 'report.html'}."
    try:
        yield outcomes
    except KeyboardInterrupt:
        code, last_words = INTERRUPTED, "Interrupted: the same command does the rest."
    except OSError as problem:
        code, last_words = 1, f"The report over all cannot be written: {problem}."
    if code or not quiet:
        _sum_up(outcomes, last_words)
    if code:
        raise typer.Exit(code)


def _sum_up(outcomes: Sequence[Outcome], last_words: str) -> None:
    from cli.render import error, note

    for outcome in outcomes:
        if outcome.state == "failed":
            error(f"{outcome.name}: {outcome.problem.strip()}")
    made, kept, failed = (sum(o.state == state for o in outcomes) for state in ("done", "kept", "failed"))
    note(f"{made} made, {kept} stood already, {failed} failed. {last_words}")


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


def _show_gates(record: dict[str, Any]) -> None:
    from cli.render import error

    for gate in record["gates"]:
        if gate["problem"]:
            error(f"{gate['cell']}: {gate['problem']}")
