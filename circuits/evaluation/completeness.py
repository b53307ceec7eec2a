"""Completeness: whether the circuit without some of its parts does what the whole model does without them.

The one idea: a circuit may be faithful and still lack what takes over when a part fails. So parts K are knocked out
of the circuit C and of the model M alike, and F(C without K) is held against F(M without K); a complete circuit has
no gap for any K. K is drawn at random, and also searched for greedily: the worst that is found bounds from below how
incomplete the circuit is.
Source: Wang et al. 2022 (IOI, arXiv 2211.00593), section 4 and appendix; all figures here are on the scale from
nothing kept (0) to everything kept (1), so that they compare with faithfulness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.circuit import Circuit
from circuits.evaluation.curves import Measured, measured
from circuits.evaluation.faithfulness import Bench, Estimate, ratio_estimate
from circuits.progress import Progress, silent
from circuits.statistics import resampled_means

N_RANDOM, STEPS, CANDIDATES = 20, 10, 10
"""Random sets; steps of the greedy search, and how many members are tried in each (all where there are fewer)."""


@dataclass(frozen=True)
class Knockout:
    """What is left without `removed`: faithfulness of circuit and model, and circuit minus model."""

    removed: tuple[str, ...]
    circuit: Estimate
    model: Estimate
    gap: Estimate


@dataclass(frozen=True)
class Completeness:
    """nothing_removed: circuit against model as they are. random: members drawn with chance 1/2 each.

    greedy: K of every step of the search, each holding the one before. mean_gap: mean size of the random gaps.
    """

    nothing_removed: Knockout
    random: tuple[Knockout, ...]
    greedy: tuple[Knockout, ...]
    mean_gap: Estimate
    n_prompts: int

    @property
    def worst(self) -> Knockout:
        """The largest gap of all. It was searched for on the same prompts, so it errs on the large side."""
        every = (self.nothing_removed, *self.random, *self.greedy)
        return max(every, key=lambda knockout: abs(knockout.gap.value))


def completeness(
    at: Bench, circuit: Circuit, *, seed: int, n_random: int = N_RANDOM, progress: Progress = silent
) -> Completeness:
    """Knock-outs from circuit and model. 2 passes a set, and at most 2 * STEPS * CANDIDATES for the search."""
    rng = np.random.default_rng([seed, 0xC0])
    draws = rng.random((n_random, len(circuit.kept))) < 0.5
    sets = [tuple(c for c, out in zip(circuit.kept, draw, strict=True) if out) for draw in draws]
    searched = _greedy(at, circuit, rng, progress)
    found = _without(at, circuit, [(), *sets, *searched], progress)
    every = [_knockout(removed, found, i, seed) for i, removed in enumerate([(), *sets, *searched])]
    gaps = (found.inside[0] - found.inside[1])[1 : 1 + n_random]
    return Completeness(
        every[0],
        tuple(every[1 : 1 + n_random]),
        tuple(every[1 + n_random :]),
        _mean_size(gaps, found.everything - found.nothing, seed),
        len(found.nothing),
    )


def _without(
    at: Bench, circuit: Circuit, sets: Sequence[Sequence[str]], progress: Progress = silent
) -> Measured:
    """The circuit, and the model, without each of the sets."""
    out = [set(removed) for removed in sets]
    pairs = [[tuple(c for c in whole if c not in o) for o in out] for whole in (circuit.kept, at.played)]
    return measured(at, pairs, progress)


def _greedy(
    at: Bench, circuit: Circuit, rng: np.random.Generator, progress: Progress
) -> list[tuple[str, ...]]:
    """Grows K by the member that opens the widest gap, step after step."""
    removed: tuple[str, ...] = ()
    found: list[tuple[str, ...]] = []
    for step in range(min(STEPS, len(circuit.kept))):
        rest = [c for c in circuit.kept if c not in removed]
        some = rng.permutation(len(rest))[:CANDIDATES]
        sets = [(*removed, rest[i]) for i in sorted(some)]
        tried = _without(at, circuit, sets)
        gaps = np.abs((tried.inside[0] - tried.inside[1]).mean(1))
        removed = sets[int(np.argmax(gaps))]
        found.append(removed)
        progress("searching for the worst knock-out", step + 1, min(STEPS, len(circuit.kept)))
    return found


def _knockout(removed: tuple[str, ...], found: Measured, row: int, seed: int) -> Knockout:
    circuit, model = (inside[row] for inside in found.inside)
    whole = found.everything - found.nothing
    return Knockout(
        removed,
        ratio_estimate(circuit - found.nothing, whole, seed),
        ratio_estimate(model - found.nothing, whole, seed),
        ratio_estimate(circuit - model, whole, seed),
    )


def _mean_size(
    gaps: Float[np.ndarray, "set prompt"], whole: Float[np.ndarray, "prompt"], seed: int
) -> Estimate:
    """The mean over sets of the size of the mean gap."""
    if not len(gaps):
        return Estimate(0.0, 0.0, 0.0)
    below = resampled_means(whole, seed=seed)
    drawn = np.abs(resampled_means(gaps.T, seed=seed)).mean(1)
    value = float(np.abs(gaps.mean(1)).mean() / abs(whole.mean()))
    if (below == 0).any():
        return Estimate(value, -np.inf, np.inf)
    low, high = np.quantile(drawn / np.abs(below), [0.025, 0.975])
    return Estimate(value, float(low), float(high))
