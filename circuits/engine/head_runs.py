"""Runs with a few heads changed, whatever the change: the prompts run once, then again from the lowest changed layer.

The one idea: a change of heads is other weights (where they look) or another z (what they put out); below the first
head that is changed nothing differs, so a run resumes there. Exact up to rounding; costs the layers from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.donors import Donor
from circuits.engine.forward import Replace, climb, nothing_replaced, trace
from circuits.engine.patterns import Target, looking
from circuits.engine.weights import Weights
from circuits.graph import Node
from circuits.model import Site

Change = Callable[[Weights, Sequence[Node]], tuple[Weights, Replace]]
"""The model and heads -> the model that runs instead, and what is replaced on the way."""


class HeadRuns:
    """A batch of prompts, run once. base: its trace, all columns."""

    def __init__(self, weights: Weights, tokens: Int[Tensor, "prompt pos"]) -> None:
        self.weights = weights
        with torch.inference_mode():
            self.base = trace(weights, weights.embed(tokens))

    def final(self, heads: Sequence[Node], change: Change) -> Float[Tensor, "prompt d_model"]:
        """The last token's residual stream behind the last layer, with the change done to `heads`."""
        if not heads:
            return self.base.after[:, -1]
        with torch.inference_mode():
            weights, replacing = change(self.weights, heads)
            layer = min(head.layer for head in heads)
            return climb(weights, self.base, layer, self.base.before[layer][None], 0, replacing)[0]


def look(toward: Target, share: float = 1.0) -> Change:
    """Heads look elsewhere, see circuits.engine.patterns."""
    return lambda weights, heads: (looking(weights, heads, toward, share), nothing_replaced)


def put_out(donor: Donor) -> Change:
    """Heads put out a constant: zero, or their mean at each position."""

    def value(layer: int, at: int, z: Tensor) -> Tensor:
        columns = (at, at + z.shape[2])
        return donor.constant(Site("z", layer), columns, tuple(z.shape[3:]), z.device)

    return lambda weights, heads: (weights, _put(heads, value))


def put_out_values(values: Mapping[Node, Float[Tensor, "prompt pos d_head"]]) -> Change:
    """Each head puts out what is given."""

    def value(layer: int, at: int, z: Tensor) -> Tensor:
        z = z[0].clone()
        for head, given in values.items():
            if head.layer == layer:
                z[:, :, head.index] = given[:, at:]
        return z

    return lambda weights, heads: (weights, _put(heads, value))


def _put(heads: Sequence[Node], value: Callable[[int, int, Tensor], Tensor]) -> Replace:
    """value: layer, first column and z -> what all heads of the layer would put out."""
    by_layer: dict[int, list[int]] = {}
    for head in heads:
        by_layer.setdefault(head.layer, []).append(head.index)
    return partial(_replaced, by_layer, value)


def _replaced(
    by_layer: Mapping[int, list[int]],
    value: Callable[[int, int, Tensor], Tensor],
    kind: str,
    layer: int,
    at: int,
    compute: Callable[[], Tensor],
) -> Tensor:
    computed = compute()
    if kind != "z" or layer not in by_layer:
        return computed
    changed = computed.clone()
    changed[..., by_layer[layer], :] = value(layer, at, computed)[..., by_layer[layer], :]
    return changed
