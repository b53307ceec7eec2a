"""Precise fine-tuning: the matrices of chosen heads are trained, and no other number of the model changes.

The one idea: a head's share of W_Q, W_K, W_V and W_O are columns of the first three and rows of the last, so a change
of those alone is added to frozen matrices; biases, norms, MLPs and all other heads stay bit for bit. Where heads of a
group share keys and values (grouped-query attention) those belong to no head alone, so W_Q and W_O are trained (our
definition).
Source: Zhang et al. 2024 (arXiv 2409.01659). They multiply gradients by heads / tuned heads of a layer, which changes
nothing under Adam, so it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.engine.weights import Affine, Weights
from circuits.errors import ModelError
from circuits.graph import Node
from circuits.progress import Progress, silent
from circuits.tuning.training import Example, Schedule, final_state, surprise, train

Changes = Mapping[tuple[int, str], Float[Tensor, "_ _"]]
"""(layer, "query", "key", "value" or "out") -> change of that matrix [d_in, d_out] at the tuned heads' columns; of
"out" at their rows; heads in the order of their indices."""


def tuned_parts(weights: Weights) -> tuple[str, ...]:
    """The matrices that belong to single heads."""
    shared = weights.n_kv_heads != weights.n_heads
    return ("query", "out") if shared else ("query", "key", "value", "out")


def places(heads: Sequence[Node], layer: int, d_head: int) -> Int[Tensor, "place"]:
    """Columns, or rows, of the heads of one layer."""
    indices = sorted(head.index for head in heads if head.layer == layer)
    return torch.tensor([index * d_head + n for index in indices for n in range(d_head)])


def changed(weights: Weights, heads: Sequence[Node], changes: Changes) -> Weights:
    """The model with the changes added. Differentiable in them."""
    layers = list(weights.layers)
    for layer in {head.layer for head in heads}:
        at = places(heads, layer, weights.d_head).to(weights.unembed.weight.device)
        parts: dict[str, Any] = {
            part: _added(getattr(layers[layer], part), at, changes[layer, part], part)
            for part in tuned_parts(weights)
        }
        layers[layer] = replace(layers[layer], joint=None, **parts)
    return replace(weights, layers=tuple(layers))


def _added(affine: Affine, at: Int[Tensor, "place"], change: Float[Tensor, "_ _"], part: str) -> Affine:
    return Affine(affine.weight.index_add(0 if part == "out" else 1, at, change), affine.bias)


def learned_changes(
    weights: Weights,
    heads: Sequence[Node],
    taught: Sequence[Example],
    schedule: Schedule,
    seed: int,
    progress: Progress = silent,
) -> Changes:
    """Trains the heads' matrices from what they are; a pass there and back a step.

    Raises ModelError where weights are not in single precision, in which small steps would be lost.
    """
    if weights.dtype != torch.float32:
        raise ModelError(
            f"Heads are tuned in float32, and these weights are {weights.dtype}. Use --dtype float32."
        )
    changes: dict[tuple[int, str], Tensor] = {}
    for layer in sorted({head.layer for head in heads}):
        n = len(places(heads, layer, weights.d_head))
        for part in tuned_parts(weights):
            shape = (n, weights.d_model) if part == "out" else (weights.d_model, n)
            changes[layer, part] = torch.zeros(
                shape, device=weights.unembed.weight.device, requires_grad=True
            )

    def loss(example: Example) -> Tensor:
        model = changed(weights, heads, changes)
        return surprise(model.logits(final_state(model, example)), example.answers).mean()

    train(list(changes.values()), loss, taught, schedule, seed, progress, "tuning")
    return {key: change.detach() for key, change in changes.items()}
