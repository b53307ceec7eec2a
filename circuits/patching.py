"""Patching: runs in which some components put out what they put out in another run.

The one idea: every intervention on components is a row of a keep-mask. A row runs the base tokens; kept components
compute as they please, the others have their output replaced by the donor's. One False in a row patches one
component (activation patching); all but a few False leaves a circuit alone (its evaluation). Rows share forward
passes, and no row sees another, so results do not depend on how rows are packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor

from circuits.batches import Batch
from circuits.donors import Donor
from circuits.engine.exact import ExactRun
from circuits.engine.portable import PortableRun
from circuits.engine.weights import Weights
from circuits.errors import ModelError
from circuits.metrics import Metric
from circuits.model import Model
from circuits.readout import Outcome, Readout


@runtime_checkable
class BaseRun(Protocol):
    """Prompts that were run once, and the donor's run: what all rows start from."""

    def unpatched(self, readout: Readout) -> Outcome:
        """One row: the base run itself."""

    def measure(
        self,
        keep: Bool[Tensor, "row component"],
        readout: Readout,
        where: Bool[Tensor, "prompt pos"] | None = None,
    ) -> Outcome:
        """Every row of `keep`; where: the positions at which components are replaced, all where None."""


def engine_weights(model: Model, n_tokens: int) -> Weights | None:
    """The model's weights where the engine covers it, and prompts of so many tokens; else None."""
    covered = model.weights is not None and n_tokens <= model.weights.longest
    return model.weights if covered else None


def require_engine(model: Model, batches: Sequence[Batch], what: str) -> None:
    """Raises ModelError where the engine does not cover the model, or prompts of such a length; what needs it."""
    longest = max(batch.clean.shape[1] for batch in batches)
    if engine_weights(model, longest) is None:
        reason = model.path if model.weights is None else f"a prompt of {longest} tokens is too long for it"
        raise ModelError(
            f"{what} needs the exact engine, which does not serve {model.name} here ({reason}). "
            "Leave it out; activation-patching and attribution-patching by component work on every model."
        )


def base_run(model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor) -> BaseRun:
    """Runs `tokens` and the donor's: by the exact engine where it covers the model, else by the portable path."""
    weights = engine_weights(model, tokens.shape[1])
    if weights is None:
        return PortableRun(model, tokens, donor)
    return ExactRun(weights, tokens, donor, model.memory)


def measure(
    model: Model,
    batch: Batch,
    metric: Metric,
    *,
    keep: Bool[Tensor, "row component"],
    donor: Donor,
    base: Int[Tensor, "batch pos"] | None = None,
    where: Bool[Tensor, "batch pos"] | None = None,
    accuracy: bool = False,
) -> Outcome:
    """Every row of `keep` on every prompt of the batch, once; base: the tokens that run, clean where None."""
    run = base_run(model, batch.clean if base is None else base, donor)
    return run.measure(keep, Readout(batch, metric, accuracy), where)
