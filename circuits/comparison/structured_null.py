"""Chance that respects structure: what two circuits share where each keeps as many in every stratum as it does.

The one idea: circuits crowd into a few layers, so two of them share more than random sets do even where they have
nothing to do with each other. Here a random circuit keeps as many of each stratum as the real one, which leaves only
the choice inside strata to chance: nodes by layer and kind (heads or MLP), edges by layer and kind of both ends and
by input (q, k, v). The number shared is then a sum of independent hypergeometric counts, whose distribution is found
exactly; shuffles of scores within the same strata serve what is no count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from circuits.circuit import ends
from circuits.comparison.overlap import shared_distribution
from circuits.graph import Graph

_CELLS = 400_000
"""Of shuffled indices that are held at once: what fits in a processor's cache is done in half the time."""


@dataclass(frozen=True)
class StructuredChance:
    """What two random circuits share that keep as many of every stratum as these.

    p_value: the chance that they share as many or more, exact. floor: the smallest p-value there could be with these
    sizes; at 1 the strata leave nothing to choose, and the overlap says nothing.
    """

    expected_shared: float
    jaccard: float | None
    p_value: float
    floor: float


def node_strata(graph: Graph) -> Int[np.ndarray, " node"]:
    """The stratum of every component: its layer and kind."""
    return _numbered((node[0], graph.node(node).layer) for node in graph.components)


def edge_strata(graph: Graph) -> Int[np.ndarray, " edge"]:
    """The stratum of every edge: layer and kind of its source, of its target, and the input it enters."""
    place = {name: (name[0], graph.node(name).layer) for name in (*graph.sources, "logits")}
    return _numbered(
        (place[source], place[target], edge[edge.find("<") :] if edge[-1] == ">" else "")
        for edge in graph.places
        for source, target in [ends(edge)]
    )


def pair_strata(first: Graph, second: Graph, matched: Iterable[tuple[str, str]]) -> Int[np.ndarray, " pair"]:
    """The stratum of every matched pair of nodes: the layers that it joins."""
    return _numbered((first.node(a).layer, second.node(b).layer) for a, b in matched)


def _numbered(labels: Iterable[object]) -> Int[np.ndarray, " item"]:
    number: dict[object, int] = {}
    return np.array([number.setdefault(label, len(number)) for label in labels], dtype=np.int64)


def structured_chance(
    first: Bool[np.ndarray, " item"], second: Bool[np.ndarray, " item"], strata: Int[np.ndarray, " item"]
) -> StructuredChance:
    """Chance level and p-value of what `first` and `second` share; all three cover one universe."""
    n = int(strata.max(initial=-1)) + 1
    whole, a, b = (np.bincount(strata[mask], minlength=n) for mask in (np.ones_like(first), first, second))
    least, weight = _shared_distribution(whole, a, b)
    counts = least + np.arange(len(weight))
    shared, either = int((first & second).sum()), a.sum() + b.sum() - counts
    return StructuredChance(
        expected_shared=float(weight @ counts),
        jaccard=float(weight @ (counts / np.maximum(either, 1))) if a.sum() + b.sum() else None,
        p_value=float(min(weight[shared - least :].sum(), 1.0)),
        floor=float(weight[-1]),
    )


def _shared_distribution(
    whole: Int[np.ndarray, " stratum"], a: Int[np.ndarray, " stratum"], b: Int[np.ndarray, " stratum"]
) -> tuple[int, Float[np.ndarray, " count"]]:
    """The least number that can be shared, and the probability of it and of each larger one."""
    low, high = np.maximum(0, a + b - whole), np.minimum(a, b)
    open_ = high > low  # elsewhere the number shared is certain
    weight = np.ones(1)
    for sizes in np.stack([a, b, whole])[:, open_].T.tolist():
        weight = np.convolve(weight, shared_distribution(*sizes)[1])
    return int(low.sum()), weight


def shuffles(
    strata: Int[np.ndarray, " item"], n: int, seed: int
) -> Iterator[Int[np.ndarray, "shuffle item"]]:
    """n random orders of the items, each of which moves none out of its stratum; in pieces that fit in memory."""
    rng = np.random.default_rng(seed)
    home = np.argsort(strata, kind="stable")
    most = max(1, _CELLS // max(len(strata), 1))
    for start in range(0, n, most):
        draws = rng.random((min(most, n - start), len(strata)))
        order = np.empty(draws.shape, dtype=np.int64)
        # Sorted by stratum and then at random, the items of a stratum fill the places that are its own.
        order[:, home] = np.argsort(strata + draws, axis=1)
        yield order


def permutation_pvalue(observed: float, drawn: Sequence[float] | Float[np.ndarray, " shuffle"]) -> float:
    """One-sided, with the +1 correction of Phipson and Smyth 2010; what is equal but for rounding counts as equal."""
    values = np.asarray(drawn)
    return float((1 + (values >= observed - 1e-12).sum()) / (1 + len(values)))
