"""Masked heads: a run in which some heads look evenly at all that they see.

The one idea: a head whose attention is made even still moves something, but no longer from a place that it chose; so
what is lost is what its choice of places was good for. A head that looks evenly anyway loses nothing.
Source: AttentionInfluence (arXiv 2505.07293), step 4: weights of masked heads are made equal. The paper says
1/length; that query i of a causal model gives 1/(i+1) to each position it sees is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.engine.forward import Attention, mlp
from circuits.engine.weights import Weights
from circuits.graph import Graph
from circuits.interventions.effect import random_heads

Mask = Bool[Tensor, "layer head"]


def mask_of(graph: Graph, heads: Sequence[str]) -> Mask:
    """True for each of `heads`."""
    mask = torch.zeros(graph.n_layers, graph.n_heads, dtype=torch.bool)
    for node in map(graph.node, heads):
        mask[node.layer, node.index] = True
    return mask


def random_sets(
    graph: Graph, heads: Sequence[str], n: int, seed: int
) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """Up to n sets of other heads, as many in each layer; of any layer, and False, where none is so."""
    drawn = [tuple(other[head] for head in heads) for other in random_heads(graph, heads, (), n, seed)]
    alike = [some for some in drawn if _layers(graph, some) == _layers(graph, heads)]
    return tuple(alike or drawn), bool(alike)


def _layers(graph: Graph, heads: Sequence[str]) -> list[int]:
    return sorted(graph.node(head).layer for head in heads)


def masked_residual(
    weights: Weights, tokens: Int[Tensor, "prompt pos"], mask: Mask | None = None
) -> Float[Tensor, "prompt pos d_model"]:
    """The residual stream behind the last layer, heads of the mask looking evenly. One forward pass."""
    x = weights.embed(tokens)
    rotation = weights.rotation(tokens.shape[1]) if weights.rotation else None
    for depth, layer in enumerate(weights.layers):
        at = Attention(weights, depth, rotation)
        q, k, v = at.project(layer.attention_norm(x)[None], 0)
        paid = at.pattern(q, k, None)
        if mask is not None and bool(mask[depth].any()):
            paid = _evened(paid, mask[depth].to(x.device))
        between = x + layer.out(at.mix(paid, v, None)[0].flatten(2))
        x = between + mlp(layer, x if weights.parallel else between)
    return x


def _evened(
    pattern: Float[Tensor, "prompt kv_head 1 query_of_head source"], heads: Bool[Tensor, "head"]
) -> Float[Tensor, "prompt kv_head 1 query_of_head source"]:
    """Rows of the heads of a group stand side by side, query by query."""
    length = pattern.shape[-1]
    seen = torch.arange(1, length + 1, device=pattern.device, dtype=pattern.dtype)
    even = torch.ones(length, length, device=pattern.device, dtype=pattern.dtype).tril() / seen[:, None]
    rows = pattern.view(*pattern.shape[:3], length, -1, length)
    chosen = heads.view(pattern.shape[1], 1, 1, -1, 1)
    return torch.where(chosen, even[:, None], rows).view_as(pattern)
