"""Two rankings of the same components compared: rank correlation, rank-biased overlap, generalised Jaccard.

The one idea: which components a circuit keeps hangs on a cut-off, and these do not. All take the sizes of scores
(signs dropped, for methods that have none) and stand beside the same figure for scores that are shuffled within
strata (structured_null), of which one table of random orders serves all pairs.

Sources: rank-biased overlap, extrapolated to the whole list (Webber, Moffat and Zobel 2010, equation 32; p = 0.9
gives the first ten ranks 86% of the weight). Generalised Jaccard: sum of minima over sum of maxima (Ruzicka 1958; of
head scores in MONA, arXiv 2503.15573), here of sizes that are divided by their sum, since methods differ in unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from circuits.comparison.structured_null import permutation_pvalue

PERSISTENCE = 0.9


@dataclass(frozen=True)
class AgainstShuffles:
    """A figure, its mean over shuffles of the scores within strata, and the one-sided p-value against them."""

    value: float
    chance: float
    p_value: float


@dataclass(frozen=True)
class RankAgreement:
    """How alike two methods rank the same components; p-values have their floor at 1 / (permutations + 1)."""

    rank_correlation: AgainstShuffles
    rank_biased_overlap: AgainstShuffles
    weighted_jaccard: AgainstShuffles
    permutations: int


@dataclass(frozen=True)
class Ranked:
    """Sizes of scores in the three forms that are compared.

    shares: sizes over their sum. centred: average ranks less their mean, of length 1. weights: depth_weights of the
    places, ties in the order of the graph.
    """

    shares: Float[np.ndarray, "*shuffle item"]
    centred: Float[np.ndarray, "*shuffle item"]
    weights: Float[np.ndarray, "*shuffle item"]

    def shuffled(self, order: Int[np.ndarray, "shuffle item"]) -> Ranked:
        return Ranked(self.shares[order], self.centred[order], self.weights[order])


def ranked(scores: Float[np.ndarray, " item"], persistence: float = PERSISTENCE) -> Ranked | None:
    """None where ranks say nothing: fewer than three components, or all of one size."""
    sizes = np.abs(scores)
    if len(sizes) < 3 or np.ptp(sizes) == 0:
        return None
    _, place, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # the mean rank of those of one size
    centred = ranks - ranks.mean()
    weights = np.empty(len(sizes))
    weights[np.argsort(-sizes, kind="stable")] = depth_weights(len(sizes), persistence)
    return Ranked(sizes / sizes.sum(), centred / np.linalg.norm(centred), weights)


def depth_weights(n: int, persistence: float = PERSISTENCE) -> Float[np.ndarray, " place"]:
    """What an item adds to the rank-biased overlap whose worse place of the two is this one.

    The overlap at depth d counts the items that are within d in both, so the sum over depths is one over items.
    Weights fall with the place: that of the worse place is the lesser of the two.
    """
    depths = np.arange(1, n + 1)
    weights = (1 - persistence) * persistence ** (depths - 1) / depths
    return np.asarray(np.cumsum(weights[::-1])[::-1] + persistence**n / n)


def agreement_figures(first: Ranked, second: Ranked) -> Float[np.ndarray, "figure *shuffle"]:
    """Rank correlation, rank-biased overlap and weighted Jaccard; `second` may be many shuffles of one ranking."""
    biased = np.minimum(first.weights, second.weights).sum(-1)
    minima = np.minimum(first.shares, second.shares).sum(-1)
    # Both shares sum to 1, so maxima are what minima leave of 2.
    figures = np.stack([second.centred @ first.centred, biased, minima / (2 - minima)])
    return np.asarray(np.clip(figures, -1.0, 1.0))


def rank_agreements(
    rankings: Mapping[str, Ranked],
    pairs: Sequence[tuple[str, str]],
    orders: Iterable[Int[np.ndarray, "shuffle item"]],
) -> dict[tuple[str, str], RankAgreement]:
    """The agreement of each pair of `rankings` of one universe; `orders` shuffle the second of each."""
    drawn: dict[tuple[str, str], list[np.ndarray]] = {pair: [] for pair in pairs}
    for order in orders:
        for name in {second for _, second in pairs}:
            other = rankings[name].shuffled(order)
            for first in (a for a, b in pairs if b == name):
                drawn[first, name].append(agreement_figures(rankings[first], other))
    return {
        (a, b): _agreement(agreement_figures(rankings[a], rankings[b]), np.concatenate(found, axis=1))
        for (a, b), found in drawn.items()
    }


def _agreement(
    observed: Float[np.ndarray, " figure"], drawn: Float[np.ndarray, "figure shuffle"]
) -> RankAgreement:
    rho, biased, weighted = (
        AgainstShuffles(float(value), float(row.mean()), permutation_pvalue(float(value), row))
        for value, row in zip(observed, drawn, strict=True)
    )
    return RankAgreement(rho, biased, weighted, drawn.shape[1])
