"""What commands take from a run folder: its methods, its model, its judged prompts and those of other tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.evaluation.run_evaluation import PromptSet
    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.runs import RunFolder


Loader = Callable[..., "BridgeModel"]
"""Takes what circuits.models.bridge.load_model takes."""


def folder_beside(run: Path, output: Path | None, force: bool, what: str, record: str) -> Path:
    """Where what is made of `run` goes, RUN-what if not given; record: the file by which such a folder is known.

    Raises RunFolderError where it cannot.
    """
    from circuits.errors import RunFolderError
    from circuits.runs import check_output

    folder = output or run.absolute().with_name(f"{run.absolute().name}-{what}")
    check_output(folder, force, record)
    if folder.absolute() == run.absolute():
        raise RunFolderError(f"{folder} is the run itself. Choose another --output.")
    return folder


def methods_of(run: RunFolder, wanted: list[str] | None) -> tuple[str, ...]:
    """Those of `wanted`, or all. Raises UnknownNameError for a method that the run does not have."""
    from circuits.errors import UnknownNameError
    from circuits.evaluation.recorded import recorded_methods

    known = recorded_methods(run)
    for name in wanted or ():
        if name not in known:
            raise UnknownNameError("circuit of method", name, known)
    return tuple(dict.fromkeys(wanted or known))


def known_tasks(names: list[str]) -> tuple[str, ...]:
    """The names, each once. Raises UnknownNameError for what is no task, CircuitError for a bad task file."""
    from tasks import TASKS

    for name in names:
        TASKS.require(name)
    return tuple(dict.fromkeys(names))


def model_of(
    run: RunFolder,
    name: str | None,
    device: str,
    dtype: str | None,
    memory: int | None,
    show: Progress,
    load: Loader | None = None,
) -> tuple[BridgeModel, bool]:
    """The model `name`, or the one that the run names, and whether it is the one that the run scored.

    dtype: the run's if None. load: what loads it; None: anew. Raises ModelError where it is not to be found, or where
    its weights are no longer those of the run and `name` does not say that they should be taken all the same.
    """
    from circuits.errors import ModelError
    from circuits.exchange.run_folder import UNKNOWN_MODEL
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model, weights_hash

    config, known = run.run.get("config") or {}, run.run.get("model") or {}
    named = (config.get("model"), known.get("name"), (run.circuit.get("model") or {}).get("name"))
    wanted = name or next((found for found in named if found and found != UNKNOWN_MODEL), None)
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
    loaded = (load or load_model)(source, device=device, dtype=kind, prepend_bos=bos, memory=memory)
    show("loading the model", 1, 1)
    same = weights_hash(loaded.directory) == known.get("weights_sha256")
    if not same and not name and "weights_sha256" in known:
        raise ModelError(
            f"{wanted} is no longer the model of {run.path}: its weights differ. Give --model {wanted} to judge the "
            "circuits in it all the same."
        )
    return loaded, same


def prompt_sets(
    run: RunFolder,
    model: BridgeModel,
    tasks: tuple[str, ...],
    pairs: int | None,
    seed: int,
    form: str | None = None,
) -> tuple[PromptSet, tuple[PromptSet, ...]]:
    """The run's own judged prompts, and as many of each other task; the first task's where the run has none.

    form: of other tasks.
    """
    from circuits.errors import RunFolderError
    from circuits.evaluation.run_evaluation import own_prompts

    own = own_prompts(run, pairs)
    if own is None and not tasks:
        raise RunFolderError(f"{run.path} holds no prompts to judge on. Say which task's with --task.")
    n = pairs or (len(own.pairs) if own else None)
    others = tuple(drawn_prompts(run, model, name, n, seed, form) for name in tasks)
    return (own, others) if own else (others[0], others[1:])


def drawn_prompts(
    run: RunFolder, model: BridgeModel, name: str, n: int | None, seed: int, form: str | None = None
) -> PromptSet:
    """Prompts of a built-in task, without those that the run was discovered on."""
    from circuits.errors import PromptError
    from circuits.evaluation.run_evaluation import PromptSet, prompts_of
    from cli.prompt_source import sample_task
    from tasks import TASKS

    drawn = sample_task(model, TASKS.load(name), form=form, corruption=None, n=n, seed=seed)
    seen = {pair.clean for pair in prompts_of(run, "discovery")}
    new = tuple(pair for pair in drawn.pairs if pair.clean not in seen)
    if len(new) < 2:
        raise PromptError(
            f"All prompts of {name} were discovered on. Choose another --seed, or more --pairs."
        )
    told = f"prompts of {drawn.name} ({drawn.form}, {drawn.corruption})"
    names = tuple(f"{drawn.name}, prompt {i + 1}" for i in range(len(new)))
    return PromptSet(drawn.name, new, names, drawn.metric, told)
