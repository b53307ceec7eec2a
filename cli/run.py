"""`circuit run`: a study from one file: a matrix of discoveries, comparisons of their circuits, and a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.errors import CircuitError
from cli.guard import INTERRUPTED, guarded

if TYPE_CHECKING:
    from cli.render import Board
    from cli.study.cells import Cell
    from cli.study.runner import Outcome, Scheduler


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
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Run cells in N processes, which may die without the study; in this one if not given."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Run cells as Ray tasks: local, auto, or the address of a cluster that shares this disk."
        ),
    ] = None,
    gpus_per_cell: Annotated[
        float, typer.Option(min=0, help="With --ray: the share of a GPU that a cell asks for, such as 0.25.")
    ] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="Print study.json, and nothing else.")] = False,
) -> None:
    """Run a study: tasks x models x methods x seeds, compared, in one folder that can be gone on with.

    [bold]circuit run configs/reuse.yaml --output runs/reuse[/bold]

    [bold]circuit run configs/reuse.yaml --workers 4[/bold]

    [bold]circuit run configs/reuse.yaml --dry-run[/bold]
    """
    from cli.render import board
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
    from cli.study.claims import clean
    from cli.study.output import finish, open_study

    with board([cell.name for cell in wanted], quiet=json) as show:
        schedule = _scheduler(workers, ray, gpus_per_cell, show)
        open_study(folder, config)
        clean(folder)

        def say(outcome: Outcome) -> None:
            show.ended(outcome.name, outcome.state, outcome.seconds, outcome.problem)

        with _told_of_interrupts(places):
            record = finish(study, folder, places, show, schedule=schedule, fail_fast=fail_fast, say=say)
    if json:
        from circuits.records import json_text

        print(json_text(record), end="")
    else:
        _sum_up(record, folder)
    if record["failed"]:
        raise typer.Exit(1)


def _scheduler(workers: int | None, ray: str | None, gpus_per_cell: float, show: Board) -> Scheduler:
    """Raises CircuitError for options that do not go together, and where there is no Ray."""
    if ray is None:
        from cli.study.workers import Workers

        if gpus_per_cell:
            raise CircuitError("--gpus-per-cell is for --ray; without it, say with `device` where cells run.")
        return Workers(workers, show.report)
    from cli.study.ray_workers import RayWorkers, require_ray

    if workers is not None:
        raise CircuitError("--workers and --ray cannot go together: Ray starts as many cells as it has CPUs.")
    require_ray()
    return RayWorkers(ray, gpus_per_cell, show.report)


@contextmanager
def _told_of_interrupts(places: Mapping[Cell, Path]) -> Iterator[None]:
    """Ctrl-C takes nothing away that is done."""
    try:
        yield
    except KeyboardInterrupt:
        from cli.render import note

        done = sum(path.exists() for path in places.values())
        note(f"Interrupted: {done} of {len(places)} cells are done, and the same command does the rest.")
        raise typer.Exit(INTERRUPTED) from None


def _sum_up(record: Mapping[str, Any], folder: Path) -> None:
    """What failed, then what there is."""
    from cli.render import error, note

    pieces = [*record["cells"], *record["steps"]]
    for entry in pieces:
        if entry["problem"]:
            error(f"{entry.get('name') or entry['folder']}: {entry['problem'].strip()}")
    whole = sum(entry["whole"] for entry in record["cells"])
    steps = sum(entry["whole"] for entry in record["steps"])
    made = f"{whole} of {len(record['cells'])} cells, {steps} of {len(record['steps'])} steps"
    note(f"{made}. Read {folder / 'report.md'}.")


def _show_cells(places: dict[Cell, Path]) -> None:
    from cli.render import note, table

    rows = [
        (cell.task, cell.model, cell.method, str(cell.seed), "stands" if path.exists() else "to run")
        for cell, path in places.items()
    ]
    table(("task", "model", "method", "seed", "state"), rows)
    waiting = sum(not path.exists() for path in places.values())
    note(f"{len(rows)} cells, {waiting} to run.")
