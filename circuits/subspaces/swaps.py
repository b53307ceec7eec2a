"""Swaps: prompts beside their counterfactual twins, and what the model says when a place passes something else.

The one idea: a pair is asked both ways. Clean prompts take from corrupt ones, whose right answer is the distractor,
and corrupt ones take from clean ones; so "the counterfactual answer" is always the one that the source has. Both are
run once; whatever is tried at the place runs the layers above it alone, from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.batches import Batch, require_single_tokens
from circuits.engine.forward import Trace, climb, trace
from circuits.engine.weights import Weights
from circuits.errors import CircuitError
from circuits.memory import in_chunks
from circuits.metrics import Tokens, correct, logit_difference, preferred
from circuits.model import Model
from circuits.patching import require_engine
from circuits.statistics import wilson_interval
from circuits.subspaces.place import Place, columns_of, stream_behind, values

AT_ONCE = 16
"""Rows that run at once: enough to share the work of a call, few enough for a large vocabulary."""


@dataclass(frozen=True, eq=False)
class Swap:
    """Prompts of one length, run as they are, with what their sources pass at the place.

    index: of each prompt in the prompt set. of_clean: whether the clean prompts are the base. difference: source
    minus base. right: answers of the base; counterfactual: of the source.
    """

    weights: Weights
    place: Place
    base: Trace
    columns: Int[Tensor, "prompt"]
    value: Float[Tensor, "prompt width"]
    difference: Float[Tensor, "prompt width"]
    index: tuple[int, ...]
    of_clean: bool
    right: Tokens
    counterfactual: Tokens

    def logits(self, value: Float[Tensor, "row prompt width"]) -> Float[Tensor, "row prompt vocab"]:
        """Behind the last token, were the place to pass `value`. Differentiable; runs the layers above alone."""
        x = self.stream(value)
        return self.weights.logits(climb(self.weights, self.base, self.place.above, x, self.base.first))

    def stream(self, value: Float[Tensor, "row prompt width"]) -> Float[Tensor, "row prompt column d_model"]:
        """The residual stream before layer `place.above` then, from the base's first column to the last changed."""
        patched = stream_behind(self.weights, self.place, self.base, self.columns, value)
        first, end = self.base.first, int(self.columns.max()) + 1
        stream = self.base.residual(self.place.above)[None, :, : end - first]
        here = (self.columns[:, None] - first == torch.arange(end - first)).to(value.device)[..., None]
        return torch.where(here, patched[:, :, None], stream)

    @cached_property
    def unpatched(self) -> Float[Tensor, "prompt vocab"]:
        return self.weights.logits(self.base.after[:, -1])

    @property
    def at_last(self) -> bool:
        """Whether the place is at the last token of every prompt."""
        return bool((self.columns == self.base.attention[0].keys.shape[2] - 1).all())

    def __len__(self) -> int:
        return len(self.index)


def swaps(model: Model, batches: Sequence[Batch], place: Place) -> tuple[Swap, ...]:
    """Both ways of every batch: two forward passes a pair.

    Raises CircuitError where the engine does not serve the model, answers are longer than a token or there is no
    distractor, or prompts lack the position.
    """
    require_engine(model, batches, "A subspace")
    require_single_tokens(batches, "A subspace")
    if any(not (pair.answers and pair.distractors) for batch in batches for pair in batch.pairs):
        raise CircuitError(
            "A prompt has no answer or no distractor, so there is no counterfactual answer. Give every prompt both."
        )
    assert model.weights is not None
    columns = columns_of(place, batches, model.graph.n_layers)
    parts = [_both_ways(model.weights, b, place, c) for b, c in zip(batches, columns, strict=True)]
    return tuple(swap for part in parts for swap in part)


def _both_ways(
    weights: Weights, batch: Batch, place: Place, columns: Int[Tensor, "prompt"]
) -> tuple[Swap, Swap]:
    first = int(columns.min())
    with torch.no_grad():
        runs = [
            trace(weights, weights.embed(tokens), keep_from=first) for tokens in (batch.clean, batch.corrupt)
        ]
        clean, corrupt = (values(weights, place, run, columns) for run in runs)
    change, index = corrupt - clean, batch.index
    sides = batch.answers, batch.distractors
    return (
        Swap(weights, place, runs[0], columns, clean, change, index, True, *sides),
        Swap(weights, place, runs[1], columns, corrupt, -change, index, False, *sides[::-1]),
    )


def require_counterfactual(some: Sequence[Swap]) -> float:
    """The share of runs, both ways, that prefer their own side's answer.

    Raises CircuitError where corrupt prompts do not clearly have the distractor for an answer: then a patch from them
    has nothing to bring.
    """
    sides = {
        of_clean: torch.cat(
            [preferred(s.unpatched, s.right, s.counterfactual) for s in some if s.of_clean == of_clean]
        )
        for of_clean in (True, False)
    }
    for of_clean, hits in sides.items():
        right = int(hits.sum())
        if wilson_interval(right, len(hits)).low <= 0.5:
            what = "clean prompts their answer" if of_clean else "corrupted prompts the distractor"
            raise CircuitError(
                f"A subspace takes what makes the other answer right, but the model prefers on {what} for {right} of "
                f"{len(hits)}, not clearly more than half. Choose a corruption that flips the answer (--corruption; "
                "`circuit tasks NAME` lists them), or a task that the model does."
            )
    return float(torch.cat(list(sides.values())).float().mean())


@dataclass(frozen=True)
class Said:
    """What came of some change, prompt by prompt, mean of both ways: the logit difference of the right answer over
    the counterfactual one, and whether the most likely token of all is the counterfactual one."""

    difference: Float[np.ndarray, "row prompt"]
    flipped: Float[np.ndarray, "row prompt"]


Change = Callable[[Swap], Float[Tensor, "prompt width"]]
"""What is added to what the base passes at the place."""


def whole(swap: Swap) -> Float[Tensor, "prompt width"]:
    """All of the source's value."""
    return swap.difference


def nothing(swap: Swap) -> Float[Tensor, "prompt width"]:
    return torch.zeros_like(swap.difference)


def taken(frame: Float[Tensor, "width rank"]) -> Change:
    """The source's value along orthonormal directions alone: h' = h + V V^T (h_source - h)."""
    return lambda swap: along(swap.difference, frame)


def along(
    change: Float[Tensor, "prompt width"], frame: Float[Tensor, "width rank"]
) -> Float[Tensor, "prompt width"]:
    """The part of `change` in the span of the frame."""
    return (change @ frame) @ frame.T


def said(some: Sequence[Swap], changes: Sequence[Change]) -> Said:
    """One row a change. A pass of the layers above the place for each prompt, way and change."""
    order = {index: n for n, index in enumerate(sorted({i for swap in some for i in swap.index}))}
    found = torch.zeros(2, len(changes), len(order), dtype=torch.float64)
    ways = torch.zeros(len(order), dtype=torch.float64)
    for swap in some:
        at = torch.tensor([order[index] for index in swap.index])
        found.index_add_(2, at, torch.cat(_said(swap, changes), 1).double().cpu())
        ways.index_add_(0, at, torch.ones(len(at), dtype=torch.float64))
    return Said(*(found / ways).numpy())


def _said(swap: Swap, changes: Sequence[Change]) -> list[Float[Tensor, "2 row prompt"]]:
    def work(rows: slice) -> Tensor:
        moved = torch.stack([swap.value + change(swap) for change in changes[rows]])
        logits = swap.logits(moved)
        sides = swap.right, swap.counterfactual
        return torch.stack([logit_difference(logits, *sides), correct(logits, sides[1]).float()])

    with torch.no_grad():
        return in_chunks(len(changes), AT_ONCE, work)
