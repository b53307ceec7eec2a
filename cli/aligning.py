"""What `circuit compare --align behaviour` needs beside run folders: both models, and prompts that both can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.run_source import Loader, model_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from circuits.comparison.aligned import AlignedComparison
    from circuits.comparison.profiles import Asked
    from circuits.comparison.sides import Side
    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.runs import RunFolder


def aligned(
    sides: tuple[Side, Side],
    models: Sequence[str | None],
    device: str,
    seed: int,
    show: Progress,
    load: Loader | None = None,
) -> AlignedComparison:
    """Loads both models, measures their heads on the judged prompts of both runs, aligns and compares.

    models: where those of the runs are; None for where the run says. load: what loads them.
    Raises CircuitError where a model or prompts are missing.
    """
    from circuits.comparison.aligned import compare_aligned
    from circuits.comparison.profiles import head_profiles, readable_by_all
    from circuits.runs import read_run

    held = tuple(read_run(side.path) for side in sides)
    asked = _asked(held)
    first, second = (_model(*found, device, show, load) for found in zip(held, sides, models, strict=True))
    sets = readable_by_all((first, second), asked)
    task = " and ".join(dict.fromkeys(side.task for side in sides))
    profiles = tuple(
        head_profiles(model, sets, task=task, seed=seed, progress=show) for model in (first, second)
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


def _model(
    run: RunFolder, side: Side, name: str | None, device: str, show: Progress, load: Loader | None
) -> BridgeModel:
    """The model that the run was found in, and no other: circuits and heads must be of one."""
    from circuits.errors import ModelError

    model, same = model_of(run, name, device, None, None, show, load)
    if name and not same and "weights_sha256" in (run.run.get("model") or {}):
        raise ModelError(f"{name} is not the model of {run.path}: its weights differ. Make the run again.")
    if model.graph != side.scored.graph:
        raise ModelError(f"{name} has another shape than the model of {run.path}. Make the run again.")
    return model
