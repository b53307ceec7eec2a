"""Circuits of run folders compared: are they the same machine, and how much of that would chance give?

The one idea: a comparison needs the files of two runs and nothing else, so it is instant; no torch here, no model.
Components are matched by name, so all models must have one shape. Nodes are compared on the components that both
methods score, edges on the edges that both score; what one of them never looked at counts nowhere.

Merullo, Eickhoff and Pavlick 2023 (arXiv 2310.08744) report 25/32 shared: read here as |A n B| over |A u B|.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from circuits.comparison.overlap import Overlap, overlap_of_sizes
from circuits.comparison.rank_overlap import RankAgreement, Ranked, rank_agreements, ranked
from circuits.comparison.sides import Granularity, Side, kept_names, scored_names
from circuits.comparison.structured_null import (
    StructuredChance,
    edge_strata,
    node_strata,
    shuffles,
    structured_chance,
)
from circuits.errors import CircuitError
from circuits.scored_circuit import Measured

PERMUTATIONS = 199
REDRAWS = 200


@dataclass(frozen=True)
class LargestScores:
    """Jaccard of the largest scores of either side, as many as its circuit keeps, and 95% of what redraws give.

    The circuits' own Jaccard where they were chosen by size of score; see redrawn_circuits for what is taken for
    granted.
    """

    jaccard: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two circuits at one granularity.

    overlap: counts and ratios, with chance under sets of these sizes from anywhere; within: chance where every layer
    and kind keeps its count. ranking: None where a side scores not all, or all the same. largest: None where neither
    run holds standard errors. Names are in the order of the graph; left_out: kept, but not scored by both.
    """

    first: str
    second: str
    granularity: Granularity
    overlap: Overlap
    within: StructuredChance
    ranking: RankAgreement | None
    largest: LargestScores | None
    shared: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def union(self) -> int:
        return len(self.shared) + len(self.only_first) + len(self.only_second)


@dataclass(frozen=True)
class Marks:
    """A circuit over all names of a graph, in its order: what is kept, what is scored; NaN for what is not."""

    kept: Bool[np.ndarray, " item"]
    scored: Bool[np.ndarray, " item"]
    scores: Float[np.ndarray, " item"]
    errors: Float[np.ndarray, " item"]

    def at(self, places: Sequence[int]) -> Marks:
        """Over these items alone, in this order."""
        return Marks(*(x[list(places)] for x in (self.kept, self.scored, self.scores, self.errors)))


def marks_of(side: Side, granularity: Granularity) -> Marks:
    """What a side keeps and how it scores it, over all nodes or edges of its model."""
    graph = side.scored.graph
    names = graph.places if granularity == "edge" else graph.components
    place = {name: i for i, name in enumerate(names)}
    measured: Mapping[str, Measured] = side.scored.edges if granularity == "edge" else side.scored.scores
    found = {place[name]: pair for name, pair in measured.items() if name in place}
    scores, errors = np.full((2, len(place)), np.nan)
    if found:  # an error that is not known is None, and becomes NaN
        at, values = list(found), np.array(list(found.values()), dtype=np.float64)
        scores[at], errors[at] = values.T
    if side.scored.granularity != granularity:  # the nodes of an edge circuit hang on no node's score
        errors[:] = np.nan
    return Marks(
        _mask(kept_names(side, granularity), place),
        _mask(scored_names(side, granularity), place),
        scores,
        errors,
    )


def _mask(names: Iterable[str], place: Mapping[str, int]) -> Bool[np.ndarray, " item"]:
    mask = np.zeros(len(place), dtype=bool)
    mask[[place[name] for name in names if name in place]] = True
    return mask


def compare(sides: Sequence[Side], granularity: Granularity, seed: int = 0) -> list[Comparison]:
    """Every pair, in the order given. Raises CircuitError where two of them score nothing in common."""
    graph = sides[0].scored.graph
    names = tuple(graph.places) if granularity == "edge" else graph.components
    strata = edge_strata(graph) if granularity == "edge" else node_strata(graph)
    return compare_marks({s.name: marks_of(s, granularity) for s in sides}, names, strata, granularity, seed)


def compare_marks(
    marks: Mapping[str, Marks],
    names: Sequence[str],
    strata: Int[np.ndarray, " item"],
    granularity: Granularity,
    seed: int = 0,
) -> list[Comparison]:
    """The same for marks over `names`, by the names of their sides."""
    pairs = list(combinations(marks, 2))
    universes = {(a, b): _universe(a, b, marks, granularity) for a, b in pairs}
    rankings = _rankings(marks, universes, strata, seed)
    draws = {name: redrawn_circuits(m, (seed, i)) for i, (name, m) in enumerate(marks.items())}
    return [
        _comparison(
            (a, b),
            granularity,
            (marks[a], marks[b]),
            universe,
            np.array(names),
            strata,
            rankings.get((a, b)),
            _largest_scores(draws[a], draws[b], universe),
        )
        for (a, b), universe in universes.items()
    ]


def jaccard(first: Side, second: Side, granularity: Granularity) -> float:
    """Their Jaccard alone, on what both score; 1 for two empty circuits: nothing differs."""
    a, b = (set(kept_names(side, granularity)) for side in (first, second))
    universe = set(scored_names(first, granularity)) & set(scored_names(second, granularity))
    either = (a | b) & universe
    return len(a & b & universe) / len(either) if either else 1.0


def _universe(
    first: str, second: str, marks: Mapping[str, Marks], granularity: str
) -> Bool[np.ndarray, " item"]:
    both = marks[first].scored & marks[second].scored
    if not both.any():
        raise CircuitError(f"{first} and {second} score no {granularity} in common: nothing to compare.")
    return np.asarray(both)


def _comparison(
    pair: tuple[str, str],
    granularity: Granularity,
    marks: tuple[Marks, Marks],
    universe: Bool[np.ndarray, " item"],
    names: np.ndarray,
    strata: Int[np.ndarray, " item"],
    ranking: RankAgreement | None,
    largest: LargestScores | None,
) -> Comparison:
    a, b = (m.kept & universe for m in marks)
    sizes = (int(x.sum()) for x in (a & b, a, b, universe))
    parts = (a & b, a & ~b, b & ~a, (marks[0].kept | marks[1].kept) & ~universe)
    return Comparison(
        *pair,
        granularity,
        overlap_of_sizes(*sizes),
        structured_chance(a[universe], b[universe], strata[universe]),
        ranking,
        largest,
        *(tuple(names[part].tolist()) for part in parts),
    )


def _rankings(
    marks: Mapping[str, Marks],
    universes: Mapping[tuple[str, str], Bool[np.ndarray, " item"]],
    strata: Int[np.ndarray, " item"],
    seed: int,
) -> dict[tuple[str, str], RankAgreement]:
    """Pairs that share a universe share its shuffles, and each side is ranked in it once."""
    groups: dict[bytes, list[tuple[str, str]]] = {}
    for pair, universe in universes.items():
        groups.setdefault(universe.tobytes(), []).append(pair)
    found: dict[tuple[str, str], RankAgreement] = {}
    for members in groups.values():
        universe = universes[members[0]]
        rankings = _ranked_sides({name for pair in members for name in pair}, marks, universe)
        both = [(a, b) for a, b in members if a in rankings and b in rankings]
        orders = shuffles(strata[universe], PERMUTATIONS, seed) if both else ()
        found |= rank_agreements(rankings, both, orders)
    return found


def _ranked_sides(
    names: Iterable[str], marks: Mapping[str, Marks], universe: Bool[np.ndarray, " item"]
) -> dict[str, Ranked]:
    scores = {name: marks[name].scores[universe] for name in names}
    found = {name: ranked(values) for name, values in scores.items() if not np.isnan(values).any()}
    return {name: order for name, order in found.items() if order is not None}


def redrawn_circuits(marks: Marks, seed: tuple[int, int]) -> np.ndarray:
    """As many of the largest scores as the circuit keeps: first of those measured, then of redraws, if there are any
    standard errors to redraw by. A row of packed bits each.

    A parametric bootstrap: each score is drawn anew from a normal distribution about it with its standard error, each
    component apart from the others, where real errors go together.
    """
    rng = np.random.default_rng(seed)
    errors = np.nan_to_num(marks.errors)
    measured = np.flatnonzero(~np.isnan(marks.scores))
    n = int(marks.kept[measured].sum())
    circuits = np.zeros((1 + REDRAWS if errors.any() else 1, len(marks.kept)), dtype=bool)
    if n:
        sizes = np.abs(marks.scores[measured])
        circuits[0, measured[np.argsort(-sizes, kind="stable")[:n]]] = True
        # What six standard errors do not bring among the n largest is not drawn.
        far = 6 * errors[measured]
        near = measured[sizes + far >= np.partition(sizes - far, -n)[-n]]
        scores, errors = marks.scores[near], errors[near]
        for row in circuits[1:]:
            drawn = np.abs(scores + errors * rng.standard_normal(len(near)))
            row[near[np.argpartition(-drawn, n - 1)[:n]]] = True
    return np.packbits(circuits, axis=1)


def _largest_scores(
    first: np.ndarray, second: np.ndarray, universe: Bool[np.ndarray, " item"]
) -> LargestScores | None:
    """A side without standard errors stays as it is."""
    inside = np.packbits(universe)
    shared, either = (
        np.bitwise_count(x).sum(1, dtype=np.int64)
        for x in (inside & first & second, inside & (first | second))
    )
    if len(shared) == 1 or not either.all():
        return None
    low, high = np.quantile(shared[1:] / either[1:], [0.025, 0.975]).tolist()
    return LargestScores(float(shared[0] / either[0]), low, high)
