"""Hypothesis tests on a circuit: four questions with a p-value each, and what the answer means in plain words.

The one idea: "the circuit explains the model" is several claims. Two idealised ones are hypotheses that the data may
reject: the circuit does as well as the model on any prompt (equivalence), and what is left without the circuit knows
nothing of what the model does (independence). Two modest ones are what the data may show: the circuit is closer to
the model than most random circuits of its size (sufficiency), and losing it hurts more than losing most of those
(partial necessity).
Source: Shi et al. 2024 (arXiv 2410.13032). Their code takes the mean difference for the share of prompts in the
equivalence test; here the prompts are counted. Their permutation p-value can be 0; here the +1 correction holds.
HSIC: Gretton et al. 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from circuits.circuit import Circuit
from circuits.evaluation.curves import measured
from circuits.evaluation.faithfulness import Bench, random_circuits, random_edge_circuits
from circuits.evaluation.minimality import ALPHA, QUANTILE, binomial_tails
from circuits.progress import Progress, silent

EPSILON, N_RANDOM, PERMUTATIONS = 0.1, 100, 2000

TIE = 1e-5
"""Metrics closer than this share of the scale are equal: they differ by rounding alone."""


@dataclass(frozen=True)
class HypothesisTest:
    """hypothesis: what is put to the test. rejected: at ALPHA. words: what that says of the circuit.

    statistic: a share of prompts (equivalence), HSIC (independence), a share of random circuits (the others).
    """

    name: str
    hypothesis: str
    statistic: float
    p_value: float
    words: str
    n_prompts: int
    n_random: int = 0

    @property
    def rejected(self) -> bool:
        return self.p_value <= ALPHA

    @property
    def favourable(self) -> bool:
        """Whether the outcome speaks for the circuit: an idealised claim stands, or a modest one is shown."""
        return self.rejected == (self.n_random > 0)


def hypothesis_tests(
    at: Bench,
    chance: Bench,
    circuit: Circuit,
    *,
    seed: int,
    n_random: int = N_RANDOM,
    progress: Progress = silent,
) -> tuple[HypothesisTest, ...]:
    """All four: the idealised ones on the prompts of `at`, those against random circuits on the prompts of `chance`.

    Two passes over the prompts of `at`, and 2 * n_random + 2 over those of `chance`.
    """
    outside = _rest(at, circuit.kept)
    found = measured(at, [[circuit.kept, outside]], progress)
    own, rest = found.inside[0]
    tie = TIE * abs(float((found.everything - found.nothing).mean()))
    drawn = random_edge_circuits if at.granularity == "edge" else random_circuits
    others = drawn(at.model.graph, at.played, circuit, n_random, seed)
    near, far, n_prompts = _distances(chance, [circuit.kept, *others], progress)
    return (
        equivalence(own, found.everything, tie=tie),
        independence(rest, found.everything, seed=seed),
        sufficiency(float(near[0]), near[1:], n_prompts),
        partial_necessity(float(far[0]), far[1:], n_prompts),
    )


def _rest(at: Bench, kept: tuple[str, ...]) -> tuple[str, ...]:
    out = set(kept)
    return tuple(c for c in at.played if c not in out)


def _distances(
    at: Bench, circuits: list[tuple[str, ...]], progress: Progress
) -> tuple[Float[np.ndarray, "circuit"], Float[np.ndarray, "circuit"], int]:
    """Mean size of the difference from the model: of each circuit alone, and of the model without it; over how many
    prompts."""
    found = measured(at, [circuits, [_rest(at, circuit) for circuit in circuits]], progress)
    near, far = (np.abs(inside - found.everything).mean(1) for inside in found.inside)
    return near, far, len(found.everything)


def equivalence(
    circuit: Float[np.ndarray, "prompt"], model: Float[np.ndarray, "prompt"], *, tie: float = 0.0
) -> HypothesisTest:
    """H0: the chance that the circuit does better than the model on a prompt is within EPSILON of 1/2.

    The p-value is exact at the edge of H0, where it is largest. Ties count half.
    """
    n, difference = len(circuit), circuit - model
    better = int((difference > tie).sum())
    share = (better + int((np.abs(difference) <= tie).sum()) / 2) / n
    # Half a tie is rounded towards 1/2, which errs on the side of H0.
    most = int(np.floor(max(share, 1 - share) * n))
    edge = 0.5 + EPSILON
    p = float(stats.binom.sf(most - 1, n, edge) + stats.binom.cdf(n - most, n, edge))
    p = 1.0 if most <= n / 2 else min(1.0, p)
    verdict = "which rules out that the two do equally well" if p <= ALPHA else "which a fair coin allows"
    return HypothesisTest(
        "equivalence",
        f"the circuit beats the model on {0.5 - EPSILON:.0%} to {0.5 + EPSILON:.0%} of all prompts",
        share,
        p,
        f"The circuit's metric is above the model's on {share:.0%} of {n} prompts, {verdict}.",
        n,
    )


def independence(
    complement: Float[np.ndarray, "prompt"],
    model: Float[np.ndarray, "prompt"],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> HypothesisTest:
    """H0: the metric of the model without the circuit is independent of the model's (permutation test on HSIC)."""
    x, y = _centred_kernel(complement), _centred_kernel(model)
    rng, n = np.random.default_rng([seed, 0x451C]), len(model)
    observed = float((x * y).sum())
    orders = (rng.permutation(n) for _ in range(permutations))
    drawn = np.array([(x * y[np.ix_(order, order)]).sum() for order in orders])
    p = float((1 + (drawn >= observed - 1e-12 * abs(observed)).sum()) / (1 + permutations))
    knows = (
        "still tells something of what the model does: part of the work is done outside the circuit"
        if p <= ALPHA
        else "shows no trace of what the model does"
    )
    return HypothesisTest(
        "independence",
        "what is left without the circuit is independent of what the model does",
        observed / max(1, n - 1) ** 2,
        p,
        f"Over {n} prompts, what is left without the circuit {knows}.",
        n,
    )


def _centred_kernel(values: Float[np.ndarray, "prompt"]) -> Float[np.ndarray, "prompt other"]:
    """A Gaussian kernel as wide as the median distance, centred; zero where all values are one."""
    distance = np.abs(values[:, None] - values)
    apart = distance[np.triu_indices(len(values), 1)]
    width = float(np.median(apart)) if len(apart) else 0.0
    # More than half of the pairs may be equal.
    width = width or float(apart.max(initial=0.0)) or 1.0
    kernel = np.exp(-((distance / width) ** 2) / 2)
    return np.asarray(kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean())


def sufficiency(own: float, others: Float[np.ndarray, "circuit"], n_prompts: int) -> HypothesisTest:
    """H0: a random circuit is at least as far from the model as this one with a chance of QUANTILE at most."""
    closer = int((own < others).sum())
    p = float(binomial_tails(closer, len(others), QUANTILE)[1])
    return HypothesisTest(
        "sufficiency",
        f"the circuit is closer to the model than at most {QUANTILE:.0%} of random circuits of its size",
        closer / len(others),
        p,
        f"Alone, the circuit is closer to the model than {closer} of {len(others)} random circuits of its size, "
        + ("so it suffices better than nearly all." if p <= ALPHA else "which does not set it apart."),
        n_prompts,
        len(others),
    )


def partial_necessity(own: float, others: Float[np.ndarray, "circuit"], n_prompts: int) -> HypothesisTest:
    """H0: losing a random circuit moves the model less than losing this one with a chance of QUANTILE at most."""
    further = int((own > others).sum())
    p = float(binomial_tails(further, len(others), QUANTILE)[1])
    return HypothesisTest(
        "partial necessity",
        f"knocking the circuit out hurts more than knocking out at most {QUANTILE:.0%} of random ones",
        further / len(others),
        p,
        f"Knocking the circuit out moves the model further than {further} of {len(others)} random circuits of its "
        "size do, "
        + ("so the model needs it more than nearly all." if p <= ALPHA else "which does not set it apart."),
        n_prompts,
        len(others),
    )
