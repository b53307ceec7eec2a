"""Attention as a role: how much of it goes from given positions to given positions.

The one idea: many roles differ only in where they look from and to, so each is two tables of positions, and its
chance level is what attention spread evenly over all positions that a query sees would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.batches import Batch
from circuits.engine.forward import Attention, steps
from circuits.engine.weights import Weights
from circuits.roles.role import Evidence, Measured, positions_of

Places = Int[Tensor, "prompt look"]


class Seen(NamedTuple):
    """One layer of a run: its number, the residual stream before it, and the pattern of its heads."""

    depth: int
    before: Float[Tensor, "prompt pos d_model"]
    pattern: Float[Tensor, "prompt head query source"]


def patterns(weights: Weights, tokens: Int[Tensor, "prompt pos"]) -> Iterator[Seen]:
    """Layer by layer; one forward pass, and queries and keys a second time."""
    for depth, step in enumerate(steps(weights, weights.embed(tokens))):
        yield Seen(depth, step.before, pattern(weights, depth, step.before))


def pattern(
    weights: Weights, layer: int, before: Float[Tensor, "prompt pos d_model"]
) -> Float[Tensor, "prompt head query source"]:
    """Where the heads of a layer look, given the residual stream before it."""
    length = before.shape[1]
    attention = Attention(weights, layer, weights.rotation(length) if weights.rotation else None)
    q, k, _ = attention.project(attention.layer.attention_norm(before.float())[None], 0)
    found = attention.pattern(q, k, None)[:, :, 0]
    return found.view(*found.shape[:2], length, -1, length).transpose(2, 3).flatten(1, 2)


def looked(pattern: Tensor, queries: Places, sources: Places) -> Float[Tensor, "prompt head look"]:
    """The weight that each query gives its source."""
    rows = torch.arange(len(pattern), device=pattern.device)[:, None]
    return pattern[rows, :, queries, sources].transpose(1, 2)


def evenly(queries: Places) -> Float[Tensor, "prompt look"]:
    """What even attention gives any position that the query sees."""
    return 1 / (queries + 1)


def over_repeats(evidence: Evidence, queries: Tensor, sources: Tensor) -> Measured:
    """Mean attention on repeated random tokens, from each of `queries` to the one of `sources` beside it."""
    tokens = evidence.repeated
    places = [row.to(tokens.device).expand(len(tokens), -1) for row in (queries, sources)]
    paid = [looked(seen.pattern, *places).mean(2) for seen in patterns(evidence.weights, tokens)]
    return Measured(torch.cat(paid, 1), "sequence", float(evenly(places[0]).mean()))


def from_end(evidence: Evidence, names: Sequence[str]) -> Measured:
    """Attention from the last token to the positions called `names`, together."""
    paid, chance = [], []
    for batch in evidence.batches:
        queries, sources = end_to(batch, names)
        layers = [looked(s.pattern, queries, sources).sum(2) for s in patterns(evidence.weights, batch.clean)]
        paid.append(torch.cat(layers, 1))
        chance.append(evenly(queries).sum(1))
    return Measured(torch.cat(paid), "prompt", float(torch.cat(chance).mean()))


def end_to(batch: Batch, names: Sequence[str]) -> tuple[Places, Places]:
    """Looks from the last token to each of `names`."""
    sources = positions_of(batch, names)
    return torch.full_like(sources, batch.clean.shape[1] - 1), sources
