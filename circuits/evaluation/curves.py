"""Faithfulness over sizes: what the first n of a ranking do alone, from a thousandth of the model to all of it.

The one idea: one number for one size says little, an area under ten sizes says how good the ranking is. CPR is the
area under faithfulness f (larger is better; components that work against the behaviour may push it past 1), CMD the
area between f and 1 (0 is best). All circuits of all rankings share the base runs and one call.
Source: MIB (Mueller et al. 2025, arXiv 2504.13151): its ten sizes, a linear axis, the trapezoid rule from .001 to 1;
CPR with the largest scores first, CMD with the largest sizes of score first, as MIB has them. x is the share that was
asked for; what is left of it once dangling edges are left out stands beside it, which MIB does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from circuits.edge_selection import connected
from circuits.evaluation.faithfulness import Bench, Estimate, require_scale
from circuits.progress import Progress, silent
from circuits.scores import Scores
from circuits.statistics import resampled_means

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

N_RANDOM = 8
"""Random rankings; their areas differ little, for most of their circuits do nothing."""

Order = Literal["signed", "absolute"]


@dataclass(frozen=True)
class Point:
    """One size. share: asked for; n: the first n of the ranking; actual: the share left without dangling edges."""

    share: float
    n: int
    actual: float
    faithfulness: Estimate


@dataclass(frozen=True)
class Curve:
    """A ranking at every size. order: "signed" takes the largest scores first, "absolute" the largest sizes."""

    order: Order
    points: tuple[Point, ...]
    cpr: Estimate
    cmd: Estimate


@dataclass(frozen=True)
class Spread:
    """The mean, the least and the largest of some random rankings."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class RandomCurves:
    """n random rankings on the first n_prompts of the prompts. points: faithfulness at every size."""

    n: int
    n_prompts: int
    points: tuple[Spread, ...]
    cpr: Spread
    cmd: Spread


@dataclass(frozen=True)
class Curves:
    """Both curves of some scores, and random ones beside them. CPR is the signed one's, CMD the absolute one's."""

    signed: Curve
    absolute: Curve
    random: RandomCurves
    n_prompts: int

    @property
    def cpr(self) -> Estimate:
        return self.signed.cpr

    @property
    def cmd(self) -> Estimate:
        return self.absolute.cmd


def ranked(scores: Scores, universe: Sequence[str], order: Order) -> tuple[str, ...]:
    """All of `universe`, the best first, ties in the order of the scores; what has no score comes last."""
    worth = scores.values if order == "signed" else np.abs(scores.values)
    first = [scores.components[i] for i in np.argsort(-worth, kind="stable")]
    known = set(first)
    return (*first, *(c for c in universe if c not in known))


def sizes(total: int) -> tuple[int, ...]:
    """How many each share of `total` is, rounded down as MIB does, and at least one."""
    return tuple(max(1, int(share * total + 1e-9)) for share in SHARES)


def nested(at: Bench, ranking: Sequence[str], stops: Sequence[int]) -> list[tuple[str, ...]]:
    """The circuit of each size; of edges, those on a path from the input to the logits, where all may be left out."""
    prefixes = [tuple(ranking[:n]) for n in stops]
    graph, edges = at.model.graph, at.granularity == "edge"
    whole = edges and len(at.played) == len(graph.places)
    return [connected(graph, prefix) for prefix in prefixes] if whole else prefixes


def curves(
    at: Bench,
    scores: Scores,
    *,
    seed: int,
    n_random: int = N_RANDOM,
    chance: Bench,
    progress: Progress = silent,
) -> Curves:
    """Both curves of `scores` on the prompts of `at`, beside random rankings on those of `chance`.

    At most 22 passes over the prompts for both, and 10 for each random ranking; circuits that come up again are run
    once. Raises CircuitError where the scale has no length.
    """
    orders: tuple[Order, ...] = ("signed", "absolute")
    stops = sizes(len(at.played))
    circuits = [nested(at, ranked(scores, at.played, order), stops) for order in orders]
    found = measured(at, circuits, progress)
    signed, absolute = (
        _curve(order, some, inside, found, len(at.played), seed)
        for order, some, inside in zip(orders, circuits, found.inside, strict=True)
    )
    return Curves(signed, absolute, _random(chance, n_random, seed, progress), found.nothing.shape[0])


@dataclass(frozen=True)
class Measured:
    """The metric of both ends, and of lists of circuits: one array [circuit, prompt] a list."""

    nothing: Float[np.ndarray, "prompt"]
    everything: Float[np.ndarray, "prompt"]
    inside: tuple[Float[np.ndarray, "_ prompt"], ...]


def measured(at: Bench, lists: Sequence[Sequence[Sequence[str]]], progress: Progress = silent) -> Measured:
    """All circuits of all lists, and both ends, in one call; each different one is run once."""
    rows: dict[frozenset[str], int] = {}
    for circuit in ((), at.played, *(circuit for some in lists for circuit in some)):
        rows.setdefault(frozenset(circuit), len(rows))
    metric = at.outcome(list(rows), progress).metric.double().numpy()
    require_scale(at.ablation, float(metric[0].mean()), float(metric[rows[frozenset(at.played)]].mean()))
    inside = tuple(metric[[rows[frozenset(circuit)] for circuit in some]] for some in lists)
    return Measured(metric[0], metric[rows[frozenset(at.played)]], inside)


def _curve(
    order: Order,
    circuits: Sequence[Sequence[str]],
    inside: Float[np.ndarray, "size prompt"],
    found: Measured,
    total: int,
    seed: int,
) -> Curve:
    part, whole = (inside - found.nothing).T, found.everything - found.nothing
    values = part.mean(0) / whole.mean()
    below = resampled_means(whole, seed=seed)
    # Where a resampled scale has no length no interval is finite.
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = resampled_means(part, seed=seed) / below[:, None]
    bounded = bool((below != 0).all())
    return Curve(
        order,
        tuple(
            Point(share, n, len(circuit) / total, _estimate(values[i], drawn[:, i], bounded))
            for i, (share, n, circuit) in enumerate(zip(SHARES, sizes(total), circuits, strict=True))
        ),
        cpr=_estimate(area(values), area(drawn), bounded),
        cmd=_estimate(area(np.abs(1 - values)), area(np.abs(1 - drawn)), bounded),
    )


def area(values: Float[np.ndarray, "*draw size"]) -> Float[np.ndarray, "*draw"]:
    """The trapezoid area over SHARES, along the last axis."""
    return np.asarray(np.trapezoid(values, SHARES, axis=-1))


def _estimate(value: object, drawn: Float[np.ndarray, "draw"], bounded: bool) -> Estimate:
    low, high = np.quantile(drawn, [0.025, 0.975]) if bounded else (-np.inf, np.inf)
    return Estimate(float(np.asarray(value)), float(low), float(high))


def _random(at: Bench, n: int, seed: int, progress: Progress) -> RandomCurves:
    rng = np.random.default_rng([seed, 0xC09])
    stops = sizes(len(at.played))
    lists = [nested(at, [str(c) for c in rng.permutation(at.played)], stops) for _ in range(n)]
    found = measured(at, lists, progress)
    nothing, everything = found.nothing.mean(), found.everything.mean()
    values = np.array([(inside.mean(1) - nothing) / (everything - nothing) for inside in found.inside])
    return RandomCurves(
        n,
        len(found.nothing),
        tuple(_spread(values[:, i]) for i in range(len(SHARES))),
        _spread(area(values)),
        _spread(area(np.abs(1 - values))),
    )


def _spread(values: Float[np.ndarray, "ranking"]) -> Spread:
    return Spread(float(values.mean()), float(values.min()), float(values.max()))
