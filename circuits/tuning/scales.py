"""Learned scales and offsets of head outputs: z_h <- (1 + A_h) * z_h + v_h, element by element, at every position.

The one idea: a frozen model is told what to do by its own heads, more of some and less of others. Scales of all
heads, kept short by an L1 penalty, say which heads matter; offsets of those few alone then do the work, and as they
do not depend on the prompt they merge into the bias of attention: sum over h of v_h W_O^h.
Source: Yin et al. 2024 (LoFiT, arXiv 2406.01563), section 3; fc2869/lo-fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.forward import Changing
from circuits.engine.weights import Weights
from circuits.graph import Node
from circuits.progress import Progress, silent
from circuits.tuning.training import Example, Schedule, final_state, surprise, train

START = 1e-3
"""Standard deviation of the numbers that training starts from."""


def learned_scales(
    weights: Weights,
    taught: Sequence[Example],
    schedule: Schedule,
    l1: float,
    seed: int,
    progress: Progress = silent,
) -> Float[Tensor, "layer head d_head"]:
    """A of all heads; their norms are the scores of LoFiT. A pass there and back a step."""
    scales = _start((len(weights.layers), weights.n_heads, weights.d_head), weights, seed)

    def loss(example: Example) -> Tensor:
        state = final_state(weights, example, lambda layer, z: (1 + scales[layer]) * z)
        return surprise(weights.logits(state), example.answers).mean() + l1 * scales.abs().sum()

    train([scales], loss, taught, schedule, seed, progress, "learning scales")
    return scales.detach()


def learned_offsets(
    weights: Weights,
    heads: Sequence[Node],
    taught: Sequence[Example],
    schedule: Schedule,
    seed: int,
    progress: Progress = silent,
) -> Float[Tensor, "head d_head"]:
    """v of `heads` alone, one row each, without a penalty."""
    offsets = _start((len(heads), weights.d_head), weights, seed)

    def loss(example: Example) -> Tensor:
        state = final_state(weights, example, adding(heads, offsets, weights.n_heads))
        return surprise(weights.logits(state), example.answers).mean()

    train([offsets], loss, taught, schedule, seed, progress, "learning offsets")
    return offsets.detach()


def adding(heads: Sequence[Node], offsets: Float[Tensor, "head d_head"], n_heads: int) -> Changing:
    """What the heads put out, and their offsets."""

    def changing(layer: int, z: Tensor) -> Tensor:
        rows = [row for row, head in enumerate(heads) if head.layer == layer]
        if not rows:
            return z
        whole = offsets.new_zeros(n_heads, offsets.shape[1])
        places = torch.tensor([heads[row].index for row in rows], device=offsets.device)
        return z + whole.index_copy(0, places, offsets[rows])

    return changing


def merged(
    weights: Weights, heads: Sequence[Node], offsets: Float[Tensor, "head d_head"]
) -> dict[int, Float[Tensor, "d_model"]]:
    """Layer -> what its attention writes more at every position: the change of its output bias."""
    found: dict[int, Tensor] = {}
    for head, offset in zip(heads, offsets, strict=True):
        writer = weights.layers[head.layer].out.weight.view(weights.n_heads, weights.d_head, -1)[head.index]
        written = offset @ writer.float()
        found[head.layer] = found[head.layer] + written if head.layer in found else written
    return found


def _start(shape: tuple[int, ...], weights: Weights, seed: int) -> Tensor:
    drawn = START * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(weights.unembed.weight.device).requires_grad_()
