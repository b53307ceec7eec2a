"""Stability: whether the same circuit would have been found on other prompts of the kind.

The one idea: draw the prompts again with replacement, rank by the means of the draw, take as many as the circuit has,
and see how much the circuits of two draws share. The per-prompt scores are at hand, so nothing runs forward again.
Chance is the same rule on noise: growing from the logits alone makes circuits of noise alike.
Source: Meloux et al. 2025 (arXiv 2510.00845): mean pairwise Jaccard, of which 0.8 is asked at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.edge_selection import edge_order
from circuits.graph import Graph
from circuits.scores import Scores
from circuits.statistics import resampled_means

BAR, N_RESAMPLES = 0.8, 50


@dataclass(frozen=True)
class Stability:
    """Circuits of `size` from n_resamples draws of n_samples rows (`unit`: what a row is).

    jaccard: the mean over pairs; low, high: 95% of the pairs lie between. chance: the mean for noise.
    kept: how often each was in a circuit, for those that ever were.
    """

    n_resamples: int
    n_samples: int
    unit: str
    size: int
    jaccard: float
    low: float
    high: float
    chance: float
    kept: Mapping[str, float]
    pairs: tuple[float, ...]

    @property
    def stable(self) -> bool:
        return self.jaccard >= BAR


def stability(
    graph: Graph, scores: Scores, size: int, *, edges: bool, seed: int, n_resamples: int = N_RESAMPLES
) -> Stability | None:
    """How alike circuits of `size` are, chosen by draws of the rows of `scores`; None where there is nothing to draw.

    edges: whether circuits are grown from the logits (scores of edges) or take the largest sizes of score.
    """
    if scores.unit not in ("prompt", "trial") or len(scores.samples) < 2 or not size:
        return None

    def choose(values: Float[np.ndarray, "component"]) -> Sequence[str]:
        drawn = Scores(scores.method, scores.components, values[None])
        return (edge_order(graph, drawn) if edges else drawn.ranking())[:size]

    found = [set(choose(row)) for row in resampled_means(scores.samples, resamples=n_resamples, seed=seed)]
    pairs = pairwise_jaccard(found, scores.components)
    low, high = np.quantile(pairs, [0.025, 0.975])
    counts = {c: sum(c in circuit for circuit in found) for c in scores.components}
    return Stability(
        n_resamples,
        len(scores.samples),
        scores.unit,
        size,
        float(pairs.mean()),
        float(low),
        float(high),
        _chance(choose, scores.components, n_resamples, seed),
        {c: n / n_resamples for c, n in sorted(counts.items(), key=lambda item: -item[1]) if n},
        tuple(pairs.tolist()),
    )


def _chance(
    choose: Callable[[Float[np.ndarray, "component"]], Sequence[str]],
    components: Sequence[str],
    n: int,
    seed: int,
) -> float:
    noise = np.random.default_rng([seed, 0x57AB]).normal(size=(n, len(components)))
    return float(pairwise_jaccard([set(choose(row)) for row in noise], components).mean())


def pairwise_jaccard(
    circuits: Sequence[Iterable[str]], components: Sequence[str]
) -> Float[np.ndarray, "pair"]:
    """The Jaccard index of every pair of circuits, none of them empty."""
    place = {c: i for i, c in enumerate(components)}
    member = np.zeros((len(circuits), len(components)))
    for row, circuit in enumerate(circuits):
        member[row, [place[c] for c in circuit]] = 1
    shared, size = member @ member.T, member.sum(1)
    jaccard = shared / (size[:, None] + size - shared)
    return np.asarray(jaccard[np.triu_indices(len(circuits), 1)])
