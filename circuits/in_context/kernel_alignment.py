"""Kernel alignment: how far two sets of features agree on which samples are alike.

The one idea: each sample has its k nearest others by cosine in either set; alignment is the mean share of them that
both sets name, k / (n - 1) by chance and 1 where the sets are the same.
Source: Cho et al. 2024 (arXiv 2410.04468), after Huh et al. 2024 (arXiv 2405.07987): k = 64 of n = 512, so an eighth.
Our definition: others that tie for the last places share them, so equal features are at chance with anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.evaluation.faithfulness import Estimate, mean_estimate

SHARE, DRAWS, LEAST = 8, 20, 16
"""n over k; shuffles for the chance level; the fewest samples that have neighbours to speak of."""

TIE = 1e-9

Features = Float[Tensor, "sample width"]
Near = Float[Tensor, "sample sample"]


@dataclass(frozen=True)
class Alignment:
    """shuffled: the mean over shuffles of which sample is which, which is chance."""

    value: Estimate
    shuffled: float


def near(features: Features, k: int | None = None) -> Near:
    """1 where a sample is among the k nearest of the row's (an eighth of all, if not given), 0 where it is not."""
    k = k or len(features) // SHARE
    unit = torch.nn.functional.normalize(features.double().cpu(), dim=-1)
    cosine = (unit @ unit.T).fill_diagonal_(-torch.inf)
    last = cosine.topk(k).values[:, -1:]
    above, tied = cosine > last + TIE, (cosine - last).abs() <= TIE
    room = (k - above.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)
    return above.double() + tied * room


def overlap(one: Near, two: Near) -> Float[Tensor, "sample"]:
    """The share of each sample's neighbours that both sets name."""
    return (one * two).sum(1) / one.sum(1)


def kernel_alignment(one: Near, two: Near, seed: int) -> Alignment:
    """With its interval over samples, and beside shuffles of the second set."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(two), generator=generator) for _ in range(DRAWS)]
    shuffled = [float(overlap(one, two[order][:, order]).mean()) for order in orders]
    return Alignment(mean_estimate(overlap(one, two).numpy(), seed), sum(shuffled) / len(shuffled))
