"""The rhythm of a prompt: token by token, how far local heads look back, and how much global heads come back to it.

The one idea: heads are split by their mean distance, the nearest 30 % are local, the furthest 30 % global; the mean
pattern of the first says where the model reaches back (WAAD), that of the second which tokens later ones rest on
(FAI).
Source: Attention Illuminates LLM Reasoning (arXiv 2510.13554); the horizon of short prompts is ours, see
circuits.roles.statistics, and R is the whole prompt but for its first token.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from circuits.roles.attention import patterns
from circuits.roles.role import Evidence
from circuits.roles.statistics import WINDOW, distance, influence, prompts

SHARE = 0.3


class Rhythm(NamedTuple):
    """local, global_: heads. waad, fai: one row a prompt, in the order of its batches; NaN where there is none."""

    local: tuple[str, ...]
    global_: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    waad: tuple[Float[np.ndarray, "pos"], ...]
    fai: tuple[Float[np.ndarray, "pos"], ...]


@torch.inference_mode()
def rhythm(evidence: Evidence) -> Rhythm:
    """Two forward passes a prompt."""
    far = [
        torch.cat([distance(seen.pattern).mean(-1) for seen in patterns(evidence.weights, tokens)], 1)
        for tokens in prompts(evidence)
    ]
    order = torch.cat(far).mean(0).argsort(stable=True).tolist()
    n = max(1, round(SHARE * len(order)))
    near, wide = order[:n], order[-n:]
    rows: list[tuple[tuple[int, ...], np.ndarray, np.ndarray]] = []
    for tokens in prompts(evidence):
        by_head = torch.cat([seen.pattern for seen in patterns(evidence.weights, tokens)], 1)
        local, wider = (by_head[:, some].mean(1, keepdim=True) for some in (near, wide))
        waad, fai = distance(local, WINDOW)[:, 0].cpu(), influence(wider)[:, 0].cpu()
        ends = tokens.shape[1] - waad.shape[1], tokens.shape[1] - fai.shape[1]
        waad = torch.nn.functional.pad(waad, (ends[0], 0), value=torch.nan)
        fai = torch.nn.functional.pad(fai, (0, ends[1]), value=torch.nan)
        rows += zip(map(tuple, tokens.tolist()), waad.double().numpy(), fai.double().numpy(), strict=True)
    heads = evidence.model.graph.heads
    near_heads, wide_heads = (tuple(heads[i] for i in sorted(some)) for some in (near, wide))
    ids, waads, fais = zip(*rows, strict=True)
    return Rhythm(near_heads, wide_heads, ids, waads, fais)
