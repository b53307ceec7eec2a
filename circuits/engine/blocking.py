"""Attention that may not go from some columns to some: entries of the causal mask taken out before the softmax.

The one idea: a softmax over what is left is the pattern with those entries at zero, scaled to sum to 1; so it is a
rule of the pattern, and all heads of a layer obey it. A row whose attention was on such entries alone, as far as
rounding shows, looks evenly at what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.engine.weights import PatternRule, Weights

Entries = Int[Tensor, "entry 3"]
"""Prompt, query, source of each."""


def blocking(weights: Weights, entries: Mapping[int, Entries]) -> Weights:
    """The model whose layers obey the entries named for them; of the prompts that those were found in."""
    layers = list(weights.layers)
    for layer, some in entries.items():
        layers[layer] = replace(layers[layer], rule=_rule(some))
    return replace(weights, layers=tuple(layers))


def _rule(entries: Entries) -> PatternRule:
    def rule(
        pattern: Float[Tensor, "prompt kv_head row query group source"],
    ) -> Float[Tensor, "prompt kv_head row query group source"]:
        left = _left(entries, pattern.shape[0], pattern.shape[3], pattern.shape[5])
        seen = left.to(pattern)[:, None, None, :, None]
        paid = pattern * seen
        total = paid.sum(-1, keepdim=True)
        return torch.where(total > 1e-30, paid / total, seen / seen.sum(-1, keepdim=True))

    return rule


def _left(
    entries: Entries, n_prompts: int, n_queries: int, n_sources: int
) -> Bool[Tensor, "prompt query source"]:
    """What queries, the last columns, still see."""
    left = torch.ones(n_prompts, n_sources, n_sources, dtype=torch.bool).tril()
    left[tuple(entries.T)] = False
    return left[:, n_sources - n_queries :]
