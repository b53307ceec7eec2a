"""Attention sinks, calibrated: what heads pay to positions that get much of it for no reason goes to all others.

The one idea: a position that is looked at from everywhere says little, so a share of what it gets is handed to the
rest of its row, in the proportions that the row has. The first position is left alone: heads park attention there.
Source: Yu et al. 2024 (ACT, arXiv 2406.15765) and GATECH-EIC/ACT: factor 0.4, and row 0 looks at itself. Ours: a sink
gets more than 5 / n on average, where their code fixes 0.1, which is below even attention on prompts under 50 tokens;
and position 0 is spared by its place, where their code spares the first sink that it finds.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LEAST = 5.0
"""Times 1 / n: how much attention makes a sink."""


def received(pattern: Float[Tensor, "*head query source"]) -> Float[Tensor, "*head source"]:
    """What each position gets on average from the queries that see it."""
    n = pattern.shape[-1]
    return pattern.sum(-2) / torch.arange(n, 0, -1, device=pattern.device)


def sinks(pattern: Float[Tensor, "*head query source"]) -> Bool[Tensor, "*head source"]:
    """Positions behind the first that get more than LEAST / n."""
    found = received(pattern) > LEAST / pattern.shape[-1]
    found[..., 0] = False
    return found


def calibrated(
    pattern: Float[Tensor, "*head query source"], factor: float = 0.4
) -> Float[Tensor, "*head query source"]:
    """The pattern with sinks at `factor` times their attention; a row that looks at nothing else keeps its own."""
    at = sinks(pattern)[..., None, :]
    kept = pattern.masked_fill(at, 0)
    others = kept.sum(-1, keepdim=True)
    freed = (1 - factor) * (pattern - kept).sum(-1, keepdim=True)
    changed = torch.where(at, factor * pattern, kept * (1 + freed / others.clamp_min(1e-12)))
    changed = torch.where(others > 0, changed, pattern)
    changed[..., 0, :] = 0
    changed[..., 0, 0] = 1
    return changed
