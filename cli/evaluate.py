"""`circuit evaluate`: everything that is asked of the circuits of a run, on prompts that nothing was found on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cli.guard import guarded
from cli.options import Device
from cli.run_source import folder_beside, known_tasks, methods_of, model_of, prompt_sets

if TYPE_CHECKING:
    from circuits.evaluation.faithfulness import Ablation, Baseline
    from circuits.evaluation.run_evaluation import Judged
    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.runs import RunFolder

RECORD = "evaluation.md"
"""By which an evaluation's folder is known: a run folder has no such file."""


@guarded
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, as `circuit discover` makes them.")],
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="A method of the run; repeat for more. All if not given."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Another task to try the circuits on; repeat for more."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to judge in; the one that the run names if not given.")
    ] = None,
    ablation: Annotated[
        list[str] | None,
        typer.Option(
            "--ablation",
            help="What replaces what is left out: resample, mean or zero; repeat for more. resample if not given.",
        ),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=2, help="Judge on the first N judged prompts; all if not given.")
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", help="Leave out curve, completeness, minimality, tests or stability."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seeds random circuits, intervals, other tasks; the run's if not given."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Prompts in a batch; no figure depends on it.")] = 64,
    device: Device = "cpu",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; the run's if not given.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="What the work may take on top of the model, such as 4GB.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write; RUN-evaluation if not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the evaluation that stands there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print evaluation.json, and nothing else.")] = False,
) -> None:
    """Judge the circuits of a run: faithfulness over sizes, completeness, minimality, tests, stability.

    [bold]circuit evaluate runs/ioi-plain-4l[/bold]

    [bold]circuit evaluate runs/ioi-plain-4l --method activation-patching --task arithmetic --ablation mean[/bold]
    """
    from circuits.evaluation.run_evaluation import check_parts
    from circuits.memory import parse_bytes
    from circuits.runs import read_run
    from cli.render import progress

    held = read_run(run)
    folder = folder_beside(run, output, force, "evaluation", RECORD)
    wanted = Wanted(
        methods_of(held, method),
        known_tasks(task or []),
        _ablations(ablation or ["resample"]),
        check_parts(skip or ()),
    )
    room = None if memory is None else parse_bytes(memory)
    with progress(quiet=json) as show:
        loaded, same = model_of(held, model, device, dtype, room, show)
        place = Place(folder, force)
        done = evaluated(
            held, loaded, wanted, place, show, seed=seed, pairs=pairs, batch_size=batch_size, same=same
        )
    if json:
        from circuits.records import json_text

        print(json_text(done.record), end="")
        return
    done.show(loaded.name, folder)


class Wanted(NamedTuple):
    """What is asked, checked."""

    methods: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    ablations: tuple[Ablation, ...] = ("resample",)
    skipped: frozenset[str] = frozenset()


class Place(NamedTuple):
    """Where the evaluation is written. force: whether one that stands there is replaced."""

    folder: Path
    force: bool


class Done(NamedTuple):
    """An evaluation that is written."""

    record: dict[str, Any]
    before: tuple[tuple[str, Baseline], ...]
    judged: tuple[Judged, ...]

    def show(self, model: str, folder: Path) -> None:
        from cli.evaluation_summary import show_evaluation

        show_evaluation(self.judged, self.before, model, folder)


def evaluated(
    held: RunFolder,
    model: BridgeModel,
    wanted: Wanted,
    place: Place,
    show: Progress,
    *,
    seed: int | None = None,
    pairs: int | None = None,
    batch_size: int = 64,
    same: bool = True,
) -> Done:
    """Judges the circuits of a run in `model` and writes the folder. same: whether it is the run's own model."""
    from circuits.evaluation.run_evaluation import Asked, evaluate_run
    from cli.evaluation_output import evaluation_record, write_evaluation

    start = time.perf_counter()
    seeded = seed if seed is not None else int((held.run.get("config") or {}).get("seed", 0))
    own, others = prompt_sets(held, model, wanted.tasks, pairs, seeded)
    asked = Asked(wanted.methods, own, others, wanted.ablations, seeded, batch_size, wanted.skipped, same)
    before, judged = evaluate_run(model, held, asked, show)
    record = evaluation_record(held, model, asked, before, judged, time.perf_counter() - start)
    write_evaluation(place.folder, record, before, judged, model.name, force=place.force)
    return Done(record, before, judged)


def _ablations(names: list[str]) -> tuple[Ablation, ...]:
    from circuits.errors import UnknownNameError
    from circuits.evaluation.run_evaluation import ALL_ABLATIONS

    for name in names:
        if name not in ALL_ABLATIONS:
            raise UnknownNameError("ablation", name, ALL_ABLATIONS)
    return tuple(ablation for ablation in ALL_ABLATIONS if ablation in names)
