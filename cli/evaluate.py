"""`circuit evaluate`: everything that is asked of the circuits of a run, on prompts that nothing was found on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from circuits.evaluation.faithfulness import Ablation, Baseline
    from circuits.evaluation.run_evaluation import Judged, PromptSet
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
    device: Annotated[
        str, typer.Option(help="Where the model runs, with the same words as for discover.")
    ] = "cpu",
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
    folder = checked_folder(run, output, force)
    wanted = Wanted(
        _methods(held, method),
        _tasks(task or []),
        _ablations(ablation or ["resample"]),
        check_parts(skip or ()),
    )
    room = None if memory is None else parse_bytes(memory)
    with progress(quiet=json) as show:
        loaded, same = _model(held, model, device, dtype, room, show)
        place = Place(folder, force)
        done = evaluated(
            held, loaded, wanted, place, show, seed=seed, pairs=pairs, batch_size=batch_size, same=same
        )
    if json:
        from circuits.records import json_text

        print(json_text(done.record), end="")
        return
    done.show(loaded.name, folder)


def checked_folder(run: Path, output: Path | None, force: bool) -> Path:
    """Where the evaluation of `run` goes. Raises RunFolderError where it cannot."""
    from circuits.errors import RunFolderError
    from circuits.runs import check_output

    folder = output or run.absolute().with_name(f"{run.absolute().name}-evaluation")
    check_output(folder, force, RECORD)
    if folder.absolute() == run.absolute():
        raise RunFolderError(f"{folder} is the run itself. Choose another --output.")
    return folder


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
    own, others = _prompts(held, model, wanted.tasks, pairs, seeded)
    asked = Asked(wanted.methods, own, others, wanted.ablations, seeded, batch_size, wanted.skipped, same)
    before, judged = evaluate_run(model, held, asked, show)
    record = evaluation_record(held, model, asked, before, judged, time.perf_counter() - start)
    write_evaluation(place.folder, record, before, judged, model.name, force=place.force)
    return Done(record, before, judged)


def _methods(run: RunFolder, wanted: list[str] | None) -> tuple[str, ...]:
    from circuits.errors import UnknownNameError
    from circuits.evaluation.recorded import recorded_methods

    known = recorded_methods(run)
    for name in wanted or ():
        if name not in known:
            raise UnknownNameError("circuit of method", name, known)
    return tuple(dict.fromkeys(wanted or known))


def _ablations(names: list[str]) -> tuple[Ablation, ...]:
    from circuits.errors import UnknownNameError
    from circuits.evaluation.run_evaluation import ALL_ABLATIONS

    for name in names:
        if name not in ALL_ABLATIONS:
            raise UnknownNameError("ablation", name, ALL_ABLATIONS)
    return tuple(ablation for ablation in ALL_ABLATIONS if ablation in names)


def _tasks(names: list[str]) -> tuple[str, ...]:
    from circuits.errors import UnknownNameError
    from tasks import TASKS

    for name in names:
        if name not in TASKS.names():
            raise UnknownNameError("task", name, TASKS.names())
    return tuple(dict.fromkeys(names))


def _model(
    run: RunFolder, name: str | None, device: str, dtype: str | None, memory: int | None, show: Progress
) -> tuple[BridgeModel, bool]:
    """The model to judge in, and whether it is the one that the run scored."""
    from circuits.errors import ModelError
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model, weights_hash

    config, known = run.run.get("config") or {}, run.run.get("model") or {}
    wanted = name or config.get("model") or known.get("name") or (run.circuit.get("model") or {}).get("name")
    if not wanted:
        raise ModelError(f"{run.path} names no model. Say which with --model.")
    try:
        source = find_model(str(wanted))
    except ModelError as problem:
        if name:
            raise
        raise ModelError(
            f"The model of {run.path} cannot be found; say where it is with --model. {problem}"
        ) from None
    show("loading the model", 0, 1)
    kind = dtype or str(config.get("dtype", "float32"))
    bos = bool(config.get("bos", True))
    loaded = load_model(source, device=device, dtype=kind, prepend_bos=bos, memory=memory)
    show("loading the model", 1, 1)
    same = weights_hash(loaded.directory) == known.get("weights_sha256")
    if not same and not name and "weights_sha256" in known:
        raise ModelError(
            f"{wanted} is no longer the model of {run.path}: its weights differ. Give --model {wanted} to judge the "
            "circuits in it all the same."
        )
    return loaded, same


def _prompts(
    run: RunFolder, model: BridgeModel, tasks: tuple[str, ...], pairs: int | None, seed: int
) -> tuple[PromptSet, tuple[PromptSet, ...]]:
    """The run's own judged prompts, and as many of each other task; the first task's where the run has none."""
    from circuits.errors import RunFolderError
    from circuits.evaluation.run_evaluation import own_prompts

    own = own_prompts(run, pairs)
    if own is None and not tasks:
        raise RunFolderError(f"{run.path} holds no prompts to judge on. Say which task's with --task.")
    n = pairs or (len(own.pairs) if own else None)
    others = tuple(_drawn(run, model, name, n, seed) for name in tasks)
    return (own, others) if own else (others[0], others[1:])


def _drawn(run: RunFolder, model: BridgeModel, name: str, n: int | None, seed: int) -> PromptSet:
    """Prompts of a built-in task, without those that the run was discovered on."""
    from circuits.errors import PromptError
    from circuits.evaluation.run_evaluation import PromptSet, prompts_of
    from cli.prompt_source import sample_task
    from tasks import TASKS

    drawn = sample_task(model, TASKS.load(name), form=None, corruption=None, n=n, seed=seed)
    seen = {pair.clean for pair in prompts_of(run, "discovery")}
    new = tuple(pair for pair in drawn.pairs if pair.clean not in seen)
    if len(new) < 2:
        raise PromptError(
            f"All prompts of {name} were discovered on. Choose another --seed, or more --pairs."
        )
    names = tuple(f"{name}, prompt {i + 1}" for i in range(len(new)))
    return PromptSet(name, new, names, drawn.metric, f"prompts of {name} ({drawn.form}, {drawn.corruption})")
