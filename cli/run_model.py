"""The model that a run was made in, found and loaded again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.runs import RunFolder

Loader = Callable[..., "BridgeModel"]
"""Takes what circuits.models.bridge.load_model takes."""


def model_of_run(
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
    loaded = (load or load_model)(source, device=device, dtype=kind, memory=memory)
    show("loading the model", 1, 1)
    same = weights_hash(loaded.directory) == known.get("weights_sha256")
    if not same and not name and "weights_sha256" in known:
        raise ModelError(
            f"{wanted} is no longer the model of {run.path}: its weights differ. Give --model {wanted} to judge the "
            "circuits in it all the same."
        )
    return loaded, same
