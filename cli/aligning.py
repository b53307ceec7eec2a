"""What `circuit compare --align behaviour` needs beside run folders: both models, and prompts that both can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from circuits.comparison.aligned import AlignedComparison
    from circuits.comparison.profiles import Asked
    from circuits.comparison.sides import Side
    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.runs import RunFolder


def aligned(
    sides: tuple[Side, Side], models: Sequence[str], device: str, seed: int, progress: Progress
) -> AlignedComparison:
    """Loads both models, measures their heads on the judged prompts of both runs, aligns and compares.

    models: where those of the runs are; as the runs name them where empty.
    Raises CircuitError where a model or prompts are missing.
    """
    from circuits.comparison.aligned import compare_aligned
    from circuits.comparison.profiles import head_profiles, readable_by_all
    from circuits.errors import CircuitError
    from circuits.runs import read_run

    if len(models) not in (0, 2):
        raise CircuitError("Give --model twice, once for each run and in their order, or not at all.")
    held = tuple(read_run(side.path) for side in sides)
    asked = _asked(held)
    names = models or ("", "")
    first, second = (_model(*found, device) for found in zip(held, sides, names, strict=True))
    sets = readable_by_all((first, second), asked)
    task = " and ".join(dict.fromkeys(side.task for side in sides))
    profiles = tuple(
        head_profiles(model, sets, task=task, seed=seed, progress=progress) for model in (first, second)
    )
    return compare_aligned(sides, (profiles[0], profiles[1]), seed)


def _asked(runs: tuple[RunFolder, ...]) -> tuple[Asked, ...]:
    """The judged prompts of those runs that have any."""
    from circuits.comparison.profiles import Asked
    from circuits.errors import RunFolderError
    from circuits.evaluation.run_evaluation import own_prompts

    found = [own for run in runs if (own := own_prompts(run, None))]
    if not found:
        raise RunFolderError(
            f"Neither {' nor '.join(str(run.path) for run in runs)} holds prompts, and heads are aligned by what "
            "they do on the same ones. Discover a circuit here, and compare with that."
        )
    return tuple(Asked(own.pairs, own.metric) for own in found)


def _model(run: RunFolder, side: Side, where: str, device: str) -> BridgeModel:
    """The model that the run was found in. where: its place, empty for the one that the run names."""
    from circuits.errors import ModelError
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model, weights_hash

    config = run.run.get("config") or {}
    name = where or (side.scored.model and (config.get("model") or side.scored.model))
    if not name:
        raise ModelError(
            f"{run.path} names no model, and heads are aligned by what they do. Say where both are with --model."
        )
    try:
        source = find_model(str(name))
    except ModelError as problem:
        raise ModelError(
            f"The model of {run.path} cannot be found; say where both are with --model, once a run. {problem}"
        ) from None
    known = (run.run.get("model") or {}).get("weights_sha256")
    if known and known != weights_hash(source.directory):
        raise ModelError(f"{name} is not the model of {run.path}: its weights differ. Make the run again.")
    model = load_model(source, device=device, dtype=str(config.get("dtype", "float32")))
    if model.graph != side.scored.graph:
        raise ModelError(f"{name} has another shape than the model of {run.path}. Make the run again.")
    return model
