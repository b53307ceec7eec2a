"""Ways to take heads out of a model, as the papers on heads do it: even attention, zero, or mean.

The one idea: a head that looks evenly still reads and writes but no longer chooses, so what is lost is its choice;
one that puts out zero, or its mean, is gone with all it brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from circuits.batches import Batch, require_single_tokens
from circuits.donors import mean_donor, zero_donor
from circuits.engine.head_runs import Change, HeadRuns, look, put_out
from circuits.engine.patterns import evenly
from circuits.engine.weights import Weights
from circuits.methods.method import Options
from circuits.model import Model
from circuits.patching import engine_weights, require_engine

Ablation = Literal["uniform", "zero", "mean"]


class RemovalOptions(Options):
    ablation: Ablation = Field(
        "uniform", description="what is left of a head: even attention, nothing, or its mean over prompts"
    )


def removal(model: Model, batches: Sequence[Batch], how: Ablation) -> Change:
    """The change that takes heads out; a mean takes two forward passes a prompt."""
    if how == "uniform":
        return look(evenly)
    return put_out(mean_donor(model, batches) if how == "mean" else zero_donor())


def head_runs(model: Model, batch: Batch) -> HeadRuns:
    """One forward pass a prompt."""
    return HeadRuns(weights_of(model, [batch]), batch.clean)


def weights_of(model: Model, batches: Sequence[Batch]) -> Weights:
    """Those that `require` made sure of."""
    weights = engine_weights(model, max(batch.clean.shape[1] for batch in batches))
    assert weights is not None, "see require"
    return weights


def require(model: Model, batches: Sequence[Batch], method: str) -> None:
    """Raises ModelError where the engine does not cover the model, CircuitError where answers are whole strings."""
    require_engine(model, batches, method)
    require_single_tokens(batches, method)
