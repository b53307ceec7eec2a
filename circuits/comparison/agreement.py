"""How far a score of heads agrees with exact patching: by rank, and in telling the heads of its circuit from others.

The one idea: heads are the sample. Both figures are taken over all heads that both have, and their intervals over
heads drawn anew, for there are few of them, and one head more or less may move a correlation far. Chance is 0 for the
correlation and 0.5 for the area.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

RESAMPLES = 2000


@dataclass(frozen=True)
class WithInterval:
    """A figure, and 95% of it over heads drawn anew."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class HeadAgreement:
    """rank: Spearman's correlation of sizes; None where either is constant. area: under the ROC curve of telling the
    circuit's heads from others by size; None where all heads are its, or none is. n: heads that both score."""

    n: int
    rank: WithInterval | None
    area: WithInterval | None


def head_agreement(
    exact: Mapping[str, float], other: Mapping[str, float], circuit: Collection[str], seed: int = 0
) -> HeadAgreement:
    """exact, other: head -> score, compared by size. circuit: the heads that exact patching keeps.

    Raises ValueError for fewer than three heads in common: ranks say nothing then.
    """
    heads = [head for head in exact if head in other]
    if len(heads) < 3:
        raise ValueError(f"{len(heads)} heads are scored by both; ranks need three.")
    sizes = np.abs([[scores[head] for head in heads] for scores in (exact, other)])
    kept = np.array([head in circuit for head in heads])
    draws = np.random.default_rng(seed).integers(len(heads), size=(RESAMPLES, len(heads)))
    drawn = np.vstack([np.arange(len(heads)), draws])  # the first is all heads, each once
    return HeadAgreement(
        len(heads),
        _with_interval(_correlations(sizes[0][drawn], sizes[1][drawn])),
        _with_interval(_areas(sizes[1][drawn], kept[drawn])),
    )


def _correlations(
    a: Float[np.ndarray, "draw head"], b: Float[np.ndarray, "draw head"]
) -> Float[np.ndarray, " draw"]:
    """Spearman's; NaN where one side of a draw is constant."""
    ranks = [stats.rankdata(side, axis=1) for side in (a, b)]
    x, y = (side - side.mean(1, keepdims=True) for side in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1)))


def _areas(
    scores: Float[np.ndarray, "draw head"], kept: Bool[np.ndarray, "draw head"]
) -> Float[np.ndarray, " draw"]:
    """By the ranks of what is kept (Mann and Whitney 1947); NaN where a draw has but one kind."""
    inside = kept.sum(1)
    above = (stats.rankdata(scores, axis=1) * kept).sum(1) - inside * (inside + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(above / (inside * (kept.shape[1] - inside)))


def _with_interval(values: Float[np.ndarray, " draw"]) -> WithInterval | None:
    """The first is the figure; draws that say nothing are left out."""
    if np.isnan(values[0]):
        return None
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return WithInterval(float(values[0]), float(low), float(high))
