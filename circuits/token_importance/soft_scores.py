"""Judges of importance: what a prediction keeps when embeddings fade by how little they are said to matter.

The one idea: each element of a token's embedding is kept with a probability, else 0: the token's importance
(sufficiency: it should be enough) or one minus that (comprehensiveness: it should be missed). How far the whole
next-token distribution moves, over how far it moves when nothing is left, tells; larger is better for both.
Source: Soft-NS and Soft-NC as the code of ReAGent (Zhao & Shan 2024, arXiv 2402.00794) has them. Its distance is
sum (sqrt p - sqrt q)^2 / sqrt 2, which is not Hellinger's and may pass 1; and importances sum to 1 over a prompt, so
that next to nothing is kept. Ours beside it: Hellinger's distance, and importances over the largest.
What fades is what enters the first layer: positions too, where they are embedded.
Cost: a forward pass a draw and judge, all in one batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.model import Edit
from circuits.token_importance.prediction import Importance, Prediction

Way = Literal["as coded", "scaled"]
WAYS: tuple[Way, ...] = ("as coded", "scaled")
"""As the paper's code does it; or Hellinger's distance, and the most important token kept whole."""

DRAWS = 10
FLAT = 1e-6


def soft_scores(
    asked: Prediction, importance: Importance, way: Way, generator: torch.Generator, draws: int = DRAWS
) -> tuple[Float[Tensor, "prompt"], Float[Tensor, "prompt"]]:
    """Soft-NS and Soft-NC of each prompt; 0 where even no embeddings at all change nothing."""
    kept = importance if way == "as coded" else importance / importance.max(1, keepdim=True).values
    keep = torch.stack([torch.zeros_like(kept), *[kept] * draws, *[1 - kept] * draws])
    faded = asked.of(asked.tokens.repeat(len(keep), 1), _faded(asked, keep.flatten(0, 1), generator))
    moved = distance(asked.own, faded.view(len(keep), *asked.own.shape), way)
    nothing, told = moved[0], moved[1:].view(2, draws, -1).mean(1)
    scale = nothing.clamp_min(FLAT)
    sufficiency = ((1 - told[0]) - (1 - nothing)).clamp_min(0) / scale
    return tuple(torch.where(nothing > FLAT, x, 0.0).cpu() for x in (sufficiency, told[1] / scale))  # type: ignore[return-value]


def distance(
    one: Float[Tensor, "prompt vocab"], other: Float[Tensor, "*draw prompt vocab"], way: Way
) -> Float[Tensor, "*draw prompt"]:
    squares = (one.sqrt() - other.sqrt()).square().sum(-1)
    return squares / 2**0.5 if way == "as coded" else (squares / 2).sqrt()


def _faded(asked: Prediction, keep: Float[Tensor, "row pos"], generator: torch.Generator) -> Edit:
    """Each element of an embedding is kept with its token's probability; those before the text always."""

    def edit(value: Tensor) -> Tensor:
        drawn = torch.rand(value.shape, generator=generator).to(value.device)
        kept = (drawn < keep[..., None]) | ~asked.free[:, None]
        return value * kept

    return edit
