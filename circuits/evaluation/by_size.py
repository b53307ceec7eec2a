"""Faithfulness by size: what the first n of a method's ranking do alone on the judged prompts, for a few sizes n.

The one idea: a circuit is one point of a curve, and who looks at a run wants to slide along it; so a run keeps some
stops, about evenly spaced in the logarithm, and always those of its own circuit. All run in one call.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from circuits.evaluation.curves import nested
from circuits.evaluation.faithfulness import Bench, Estimate, require_scale
from circuits.progress import Progress, silent
from circuits.scores import Scores
from circuits.statistics import bootstrap_ratio_interval

STOPS = 16
"""Sizes at most: each but the last is a pass over the judged prompts."""


@dataclass(frozen=True)
class Prefix:
    """The first n of a ranking. kept: how many those are without edges that lead nowhere."""

    n: int
    kept: int
    faithfulness: Estimate


def stops(total: int, own: Collection[int] = ()) -> tuple[int, ...]:
    """Sizes from 1 to `total`, those of `own` in place of their neighbours: how many there are is up to `total`."""
    if total <= STOPS:
        return tuple(range(1, total + 1))
    sizes = set(np.geomspace(1, total, STOPS).round().astype(int).tolist())
    for n in sorted(set(own) - sizes):
        inside = sizes - {1, total, *own}
        sizes = (sizes - {min(inside, key=lambda size: abs(size - n))}) | {n}
    return tuple(sorted(sizes))


def by_size(
    at: Bench, scores: Scores, own: Collection[int] = (), *, seed: int, progress: Progress = silent
) -> tuple[Prefix, ...]:
    """The first of `scores`, by their size, as judged by `at`, which plays all that they score.

    own: sizes that must be among the stops. At most 15 passes over the prompts, for all together is one end of the
    scale. Raises CircuitError where the scale has no length.
    """
    sizes = stops(len(scores.components), own)
    circuits = nested(at, scores.ranking(), sizes)
    nothing, everything = at.ends.metric.double().numpy()
    require_scale(at.ablation, nothing.mean(), everything.mean())
    inside = np.vstack([at.outcome(circuits[:-1], progress).metric.double().numpy(), everything])
    part, whole = (inside - nothing).T, everything - nothing
    values = part.mean(0) / whole.mean()
    unbounded = np.full(len(sizes), np.inf)
    low, high = bootstrap_ratio_interval(part, whole, seed=seed) or (-unbounded, unbounded)
    return tuple(
        Prefix(n, len(circuit), Estimate(*map(float, estimate)))
        for n, circuit, *estimate in zip(sizes, circuits, values, low, high, strict=True)
    )
