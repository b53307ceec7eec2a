"""Heads that look elsewhere: a share of their pattern, behind the softmax, replaced by one that is given.

The one idea: A' = (1 - u) A + u B, with u the share. B even over all that a query sees is where a head ends whose
queries are scaled to nothing (Zhou et al. 2024, arXiv 2410.13708); B the identity, on which a head reads its own
position alone, is perturbed attention guidance, soft for u < 1 (Ahn et al. 2025, arXiv 2506.10978). The rest of the
model runs as it is, so a changed layer below is felt above.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.weights import PatternRule, Weights
from circuits.graph import Node

Target = Callable[[int, int], Float[Tensor, "query source"]]
"""Number of queries, which are the last columns, and of sources -> where they shall look."""


def evenly(n_queries: int, n_sources: int) -> Float[Tensor, "query source"]:
    """1 / (i + 1) on every position up to query i."""
    seen = torch.ones(n_queries, n_sources).tril(n_sources - n_queries)
    return seen / seen.sum(-1, keepdim=True)


def itself(n_queries: int, n_sources: int) -> Float[Tensor, "query source"]:
    """1 on the query's own position."""
    return torch.eye(n_sources)[n_sources - n_queries :]


def looking(weights: Weights, heads: Sequence[Node], toward: Target, share: float = 1.0) -> Weights:
    """The model with `share` of the attention of `heads` where `toward` says."""
    layers = list(weights.layers)
    groups = weights.n_heads // weights.n_kv_heads
    for layer in {head.layer for head in heads}:
        here = [divmod(head.index, groups) for head in heads if head.layer == layer]
        layers[layer] = replace(layers[layer], rule=_rule(here, toward, share))
    return replace(weights, layers=tuple(layers))


def _rule(heads: Sequence[tuple[int, int]], toward: Target, share: float) -> PatternRule:
    """heads: the group of each, and its place there."""

    def rule(
        pattern: Float[Tensor, "prompt kv_head row query group source"],
    ) -> Float[Tensor, "prompt kv_head row query group source"]:
        target = toward(pattern.shape[3], pattern.shape[5]).to(pattern)
        pattern = pattern.clone()
        for kv_head, place in heads:
            own = pattern[:, kv_head, :, :, place]
            pattern[:, kv_head, :, :, place] = torch.lerp(own, target.expand_as(own), share)
        return pattern

    return rule
