"""Blocks of random tokens that are said four times over, and how much of a head's attention goes to earlier sayings.

The one idea: with several earlier occurrences of a token, a head is judged by what it gives all of them together.
Source: RazorAttention (arXiv 2407.15891) and the code of its authors' company: 2,500 random ids four times, echo and
induction; of the paper itself abstract and captions were readable. The block is as long as the context allows, 32
tokens at most.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.roles.attention import patterns
from circuits.roles.role import PERIOD, Evidence, Measured

TIMES, BLOCKS = 4, 16


def blocks(evidence: Evidence) -> tuple[Int[Tensor, "sequence pos"], int]:
    """The sequences, the opening before them; and how long a block is."""
    room = (evidence.weights.longest - len(evidence.opening)) // TIMES
    period = max(1, min(PERIOD, room, len(evidence.tokens)))
    draw = np.random.default_rng([evidence.seed, TIMES])
    rows = np.stack([draw.permutation(evidence.tokens)[:period] for _ in range(BLOCKS)])
    opening = np.tile(np.array(evidence.opening, dtype=np.int64), (BLOCKS, 1))
    return torch.tensor(np.hstack([opening, *[rows] * TIMES]), device=evidence.model.device), period


def earlier(length: int, period: int, opening: int, after: int) -> Bool[Tensor, "query source"]:
    """From each token that was said before: `after` positions behind every earlier saying of it."""
    place = torch.arange(length) - opening
    back = place[:, None] - place[None]
    looked = (back > 0) & (back % period == 0) & (place[None] >= 0)
    return looked.roll(after, 1)[period + opening :]


def over_blocks(evidence: Evidence, after: int) -> Measured:
    """Mean attention from each token of a repeat to all such places; chance is what even attention gives them."""
    tokens, period = blocks(evidence)
    length, start = tokens.shape[1], period + len(evidence.opening)
    places = earlier(length, period, len(evidence.opening), after).to(tokens.device)
    paid = [_paid(seen.pattern[:, :, start:], places) for seen in patterns(evidence.weights, tokens)]
    seen = torch.arange(start + 1, length + 1)
    chance = float((places.sum(1).cpu() / seen).mean())
    return Measured(torch.cat(paid, 1).clamp(0, 1), "sequence", chance)


def _paid(
    pattern: Float[Tensor, "sequence head query source"], places: Bool[Tensor, "query source"]
) -> Float[Tensor, "sequence head"]:
    return (pattern * places).sum(-1).mean(-1)
