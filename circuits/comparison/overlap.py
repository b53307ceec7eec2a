"""Overlap: how much two circuits share, and how much two random ones of their sizes would.

The one idea: an overlap means nothing without its chance level, so each comes with both an expected value
and a p-value under random sets of the same sizes from the same universe. The universe is what both methods
score: an MLP cannot be shared with a method that looks at heads alone. No torch here, and no model.

Merullo, Eickhoff and Pavlick 2023 (arXiv 2310.08744) give one ratio, 25/32; which of the ratios below it is
they do not state, so all are here, each by its own name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from jaxtyping import Float

from circuits.circuit import Circuit
from circuits.errors import CircuitError
from circuits.scores import Scores
from circuits.statistics import Correlation, rank_correlation

_log_gamma = np.frompyfunc(math.lgamma, 1, 1)
"""scipy's would take longer to import than a comparison takes."""


@dataclass(frozen=True)
class Overlap:
    """What sets A and B share in a universe. A ratio is None where its denominator is zero.

    jaccard: |A n B| / |A u B|; chance_jaccard: its expected value for random sets of these sizes.
    overlap_coefficient: |A n B| / min(|A|, |B|); share_of_larger: |A n B| / max(|A|, |B|).
    share_of_first: |A n B| / |A|; share_of_second: |A n B| / |B|.
    p_value: the chance that random sets of these sizes share as many or more.
    """

    shared: int
    first_size: int
    second_size: int
    universe: int
    jaccard: float | None
    chance_jaccard: float | None
    overlap_coefficient: float | None
    share_of_larger: float | None
    share_of_first: float | None
    share_of_second: float | None
    p_value: float


@dataclass(frozen=True)
class PairOverlap:
    """Two named circuits compared on what both methods score; `dataclasses.asdict` makes it ready for JSON.

    shared_nodes: in the order of the first one's components.
    left_out: nodes of either circuit that one of the methods does not score; they count nowhere.
    correlation: of the scores as they are; correlation_of_size: of their absolute values, for methods
        without a sign. None where a score is the same for all components.
    """

    first: str
    second: str
    overlap: Overlap
    shared_nodes: tuple[str, ...]
    left_out: tuple[str, ...]
    correlation: Correlation | None
    correlation_of_size: Correlation | None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@lru_cache(maxsize=2**16)
def shared_distribution(
    first_size: int, second_size: int, universe: int
) -> tuple[int, Float[np.ndarray, " count"]]:
    """The least that random sets of these sizes share, and the probability of it and of each larger number.

    The hypergeometric distribution, in a tenth of the time that scipy.stats takes, and once for the same sizes: there
    may be a thousand pairs of many strata. Not to be written to.
    """
    low, high = max(0, first_size + second_size - universe), min(first_size, second_size)
    shared = np.arange(low, high + 1.0)
    cells = np.stack(
        [shared, first_size - shared, second_size - shared, universe - first_size - second_size + shared]
    )
    ways = -_log_gamma(cells + 1).astype(float).sum(0)
    weight = np.exp(ways - ways.max())
    return low, np.asarray(weight / weight.sum())


def hypergeometric_pvalue(shared: int, first_size: int, second_size: int, universe: int) -> float:
    """P(X >= shared) for random sets of these sizes; the observed count itself is included."""
    low, weight = shared_distribution(first_size, second_size, universe)
    return float(min(weight[max(shared - low, 0) :].sum(), 1.0))


def chance_jaccard(first_size: int, second_size: int, universe: int) -> float | None:
    """Expected Jaccard of two random sets, exact: the sum over all possible numbers shared.

    For equal sizes that are a share K of a large universe it is near K / (2 - K). None for two empty sets.
    """
    if not first_size and not second_size:
        return None
    low, weight = shared_distribution(first_size, second_size, universe)
    shared = low + np.arange(len(weight))
    return float(np.clip((weight * shared / (first_size + second_size - shared)).sum(), 0.0, 1.0))


def overlap(first: Collection[str], second: Collection[str], universe: Collection[str]) -> Overlap:
    """The overlap of two sets within `universe`. Raises CircuitError for a component from outside it."""
    a, b, everything = set(first), set(second), set(universe)
    if outside := (a | b) - everything:
        names = ", ".join(sorted(outside)[:5])
        raise CircuitError(f"{names}: not among the {len(everything)} components to compare on.")
    return overlap_of_sizes(len(a & b), len(a), len(b), len(everything))


def overlap_of_sizes(both: int, first_size: int, second_size: int, universe: int) -> Overlap:
    """The overlap of two sets of these sizes that share `both`."""
    return Overlap(
        shared=both,
        first_size=first_size,
        second_size=second_size,
        universe=universe,
        jaccard=_ratio(both, first_size + second_size - both),
        chance_jaccard=chance_jaccard(first_size, second_size, universe),
        overlap_coefficient=_ratio(both, min(first_size, second_size)),
        share_of_larger=_ratio(both, max(first_size, second_size)),
        share_of_first=_ratio(both, first_size),
        share_of_second=_ratio(both, second_size),
        p_value=hypergeometric_pvalue(both, first_size, second_size, universe),
    )


Named = tuple[str, Scores, Circuit]


def _compare(first: Named, second: Named) -> PairOverlap:
    (name, scores, circuit), (other_name, other_scores, other_circuit) = first, second
    universe = [c for c in scores.components if c in set(other_scores.components)]
    if not universe:
        raise CircuitError(f"{name} and {other_name} score no component in common: nothing to compare.")
    a, b = (set(c.nodes) & set(universe) for c in (circuit, other_circuit))
    x, y = (np.array([s.values[s.components.index(c)] for c in universe]) for s in (scores, other_scores))
    return PairOverlap(
        first=name,
        second=other_name,
        overlap=overlap(a, b, universe),
        shared_nodes=tuple(c for c in universe if c in a & b),
        left_out=tuple(sorted((set(circuit.nodes) | set(other_circuit.nodes)) - set(universe))),
        correlation=rank_correlation(x, y),
        correlation_of_size=rank_correlation(np.abs(x), np.abs(y)),
    )


def pairwise_overlaps(runs: Sequence[Named]) -> list[PairOverlap]:
    """Every pair of (name, scores, circuit), in the order given.

    Names of nodes are compared as they stand, so the runs must be of one model.
    Raises CircuitError where two of them score no component in common.
    """
    return [_compare(first, second) for first, second in combinations(runs, 2)]
