"""Streaming attention, gated: runs in which each KV group mixes full attention with sinks and recent tokens alone.

The one idea: a gate of 1 leaves a group its full attention, a gate of 0 the first tokens and the last ones; what lies
between is a mixture of what both put out, so how much a group needs the middle of the prompt has a gradient. As in
DuoAttention's code, full attention is taken from the model's own run, streaming attention from the mixed one.
Source: Xiao et al. 2024 (DuoAttention, arXiv 2410.10819), section 2, and mit-han-lab/duo-attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.engine.forward import Attention, mlp, steps
from circuits.engine.weights import Weights

Gates = Float[Tensor, "layer kv_head"]


class Window(NamedTuple):
    """What streaming attention sees: so many first tokens, and so many last ones, the query itself among them."""

    sink: int
    recent: int

    def hidden(self, length: int, device: torch.device) -> Bool[Tensor, "query source"]:
        place = torch.arange(length, device=device)
        return (place[None] >= self.sink) & (place[:, None] - place[None] >= self.recent)


@torch.no_grad()
def full_outputs(
    weights: Weights, tokens: Int[Tensor, "prompt pos"]
) -> tuple[list[Float[Tensor, "prompt pos head d_head"]], Float[Tensor, "prompt d_model"]]:
    """What heads put out in the model's own run, and the last token's residual stream behind the last layer."""
    taken = [(step.z, step.after) for step in steps(weights, weights.embed(tokens))]
    return [z for z, _ in taken], taken[-1][1][:, -1]


def mixed_residual(
    weights: Weights,
    tokens: Int[Tensor, "prompt pos"],
    full: Sequence[Float[Tensor, "prompt pos head d_head"]],
    gates: Gates,
    window: Window,
) -> Float[Tensor, "prompt d_model"]:
    """The last token's residual stream behind the last layer, of the gated run. Differentiable in the gates."""
    x, length = weights.embed(tokens), tokens.shape[1]
    rotation = weights.rotation(length) if weights.rotation else None
    groups = weights.n_heads // weights.n_kv_heads
    hidden = window.hidden(length, x.device).repeat_interleave(groups, 0)
    for depth, layer in enumerate(weights.layers):
        at = Attention(weights, depth, rotation)
        q, k, v = at.project(layer.attention_norm(x)[None], 0)
        paid = at.scores(q, k, None).masked_fill(hidden, -torch.inf).softmax(-1)
        gate = gates[depth].repeat_interleave(groups)[:, None]
        z = gate * full[depth] + (1 - gate) * at.mix(paid, v, None)[0]
        between = x + layer.out(z.flatten(2))
        x = between + mlp(layer, x if weights.parallel else between)
    return x[:, -1]
