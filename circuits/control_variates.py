"""Control variates: mean effects of components from exact patching on few prompts and a cheap guess on all.

The one idea: the cheap effects need not be right to be of use. What they say of the patched prompts, against
what they say of all prompts, corrects the mean of the exact effects:
    estimate = mean_n(exact) + beta (mean_N(cheap) - mean_n(cheap))
A wrong guess widens the interval and moves nothing. A component whose interval lies on one side of a threshold
is patched no further. Sources: Lavenberg and Welch 1981 (control variates); Maron and Moore 1994 (races).

Slope. Each prompt is corrected with the beta that the others give (leave-one-out), drawn towards 0, which is
plain exact patching, as by SHRINKAGE more prompts that show no relation. Measured on the built-in models, 16
prompts, error over that of plain exact patching (twelve largest means): beta = 1 0.8 to 2.1, for gradients
mislead where a softmax is saturated; this fit 0.77 to 1.03. An ordinary fit does as well there, but is biased
by O(1/n): for exact = cheap + cheap^2 and 8 prompts by 14% of the mean, leave-one-out by 0.2% +- 0.3%.

Standard error. That of the mean over the population which the N prompts were drawn from, as in Scores: about
var(exact) / N + var(residual) (1/n - 1/N), with n = N the usual one. For the mean over just these N prompts it
is too wide, so bounds err on the safe side.

Threshold. A share of the largest effect, itself known up to bounds: screened out is what has its upper bound
below that share of the largest lower bound; what clears it, its lower bound above that share of the largest
upper bound. Bounds are Student t, Bonferroni over components and planned rounds, so they hold all at once and
under repeated looks, as far as t holds at all: an effect on one prompt in fifty is not seen in sixteen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from circuits.errors import CircuitError

Effects = Float[np.ndarray, "prompt component"]
PerComponent = Float[np.ndarray, "component"]
Exact = Callable[[Sequence[int], Sequence[int]], Effects]
"""(prompts, components), both by index -> the exact effect of each component on each prompt."""

SHRINKAGE = 2
FIRST_ROUND = 8
"""Fewest prompts in a first round of several: with seven, a corrected bound is over six standard errors wide."""
LOOKS = 3
"""Most rounds: each one more widens all bounds."""
IDENTICAL = 30
"""Prompts after which identical residuals may settle a component: were one prompt in ten different, thirty
would all be the same once in 24 times."""

CLEARS, SCREENED, UNDECIDED = "clears the threshold", "screened out", "undecided at the budget"


@dataclass(frozen=True)
class BudgetedEffects:
    """Estimated mean effects, with the account of what they cost and what was left out.

    samples: pseudo-samples, one row a prompt: their means are the estimates, and their standard error as Scores
    computes it is the stated one. Rows are not independent (patched prompts stand for the others), so no
    permutation test or bootstrap on them is valid: give Scores.unit another name than "prompt".
    n_exact: prompts that each component was patched on. beta: slope over all of them.
    verdicts: CLEARS, SCREENED or UNDECIDED. settled: round, from 1, in which the verdict fell; 0 if undecided.
    upper: upper bound of the size of each effect; all bounds hold at once with `confidence`.
    rounds: prompts patched by the end of each round. correlation: cheap with exact, over every prompt and
    component of which both are known. variance_reduction: median of var(exact) / var(exact - beta cheap).
    """

    samples: Effects
    n_exact: Int[np.ndarray, "component"]
    beta: PerComponent
    verdicts: tuple[str, ...]
    settled: Int[np.ndarray, "component"]
    upper: PerComponent
    rounds: tuple[int, ...]
    share: float
    confidence: float
    correlation: float | None
    variance_reduction: float | None

    @cached_property
    def values(self) -> PerComponent:
        return np.asarray(self.samples.mean(0))

    @cached_property
    def stderr(self) -> PerComponent:
        return _standard_errors(self.samples)

    @property
    def threshold(self) -> float:
        """`share` of the largest estimated effect."""
        return float(self.share * np.abs(self.values).max())

    @property
    def largest_screened(self) -> float | None:
        """The largest upper bound among what was screened out; None where nothing was."""
        bounds = [float(u) for u, v in zip(self.upper, self.verdicts, strict=True) if v == SCREENED]
        return max(bounds, default=None)

    def details(self, components: Sequence[str]) -> dict[str, object]:
        """The account by name of component, ready for JSON."""
        keys = ("verdict", "round", "exact_prompts", "slope", "upper_bound")
        numbers = (column.tolist() for column in (self.settled, self.n_exact, self.beta, self.upper))
        rows = zip(components, self.verdicts, *numbers, strict=True)
        return {
            "prompts": len(self.samples),
            "prompts_after_round": list(self.rounds),
            "exact_runs": int(self.n_exact.sum()),
            "exact_runs_on_all_prompts": self.samples.size,
            "threshold": self.threshold,
            "threshold_share": self.share,
            "confidence": self.confidence,
            "largest_bound_screened_out": self.largest_screened,
            "correlation_with_exact": self.correlation,
            "median_variance_reduction": self.variance_reduction,
            "components": {name: dict(zip(keys, row, strict=True)) for name, *row in rows},
        }


def describe(effects: BudgetedEffects, components: Sequence[str]) -> list[str]:
    """The account in plain words, a statement a line."""
    runs, full = int(effects.n_exact.sum()), effects.samples.size
    lines = [
        f"Exact patching on at most {effects.n_exact.max()} of {len(effects.samples)} prompts: {runs:,} runs "
        f"instead of {full:,} ({runs / full:.0%}); the cheap effects on all prompts correct the means.",
        f"Threshold: {effects.threshold:.3g}, {effects.share:.0%} of the largest effect.",
    ]
    if effects.correlation is not None and effects.variance_reduction is not None:
        what = (
            f"Cheap and exact effects correlate at {effects.correlation:.2f}; the median component's variance"
        )
        lines.append(f"{what} falls {effects.variance_reduction:.3g} times.")
    groups: dict[tuple[str, int], list[str]] = {}
    for name, verdict, number in zip(components, effects.verdicts, effects.settled.tolist(), strict=True):
        groups.setdefault((verdict, number), []).append(name)
    for (verdict, number), names in sorted(groups.items()):
        when = f" after {effects.rounds[number - 1]} prompts" if number else ""
        lines.append(f"{verdict.capitalize()}{when} ({len(names)}): {', '.join(names)}.")
    if effects.largest_screened is not None:
        bound = f"below {effects.largest_screened:.3g} in size with {effects.confidence:.0%} confidence"
        lines.append(f"Everything screened out is {bound}, all of it at once.")
    return lines


def planned_rounds(budget: int) -> tuple[int, ...]:
    """Prompts patched by the end of each round: at most LOOKS of them, doubling, the last one the budget."""
    sizes = (-(-budget // 2**halvings) for halvings in reversed(range(LOOKS)))
    return tuple(n for n in sizes if n >= min(FIRST_ROUND, budget))


def estimate_on_budget(
    cheap: Effects,
    exact: Exact,
    budget: int,
    *,
    share: float = 0.05,
    refine: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
) -> BudgetedEffects:
    """Mean exact effect of every component, each patched on at most `budget` prompts.

    Prompts come in one seeded random order, the same for all components. The threshold is `share` of the largest
    effect. refine: go on to the budget with what clears it, for smaller errors of what is kept.
    Raises CircuitError for a budget or a share that cannot work and for effects that are not finite.
    """
    _check(cheap, budget, share)
    cheap = cheap.astype(np.float64)
    order = np.random.default_rng(seed).permutation(len(cheap))
    plan = planned_rounds(min(budget, len(cheap)))
    race = _Race(cheap, exact, share, refine, (1 - confidence) / (cheap.shape[1] * len(plan)))
    for n in plan:
        if race.open.any():
            race.look(order[:n])
    return BudgetedEffects(
        samples=race.samples,
        n_exact=np.isfinite(race.known).sum(0),
        beta=race.beta,
        verdicts=tuple(race.verdicts.tolist()),
        settled=race.settled,
        upper=race.upper,
        rounds=plan[: race.looks],
        share=share,
        confidence=confidence,
        correlation=_correlation(cheap, race.known),
        variance_reduction=_variance_reduction(cheap, race.known, race.beta),
    )


class _Race:
    """What is known between rounds. known: exact effects, NaN where not patched. open: what to patch next."""

    def __init__(self, cheap: Effects, exact: Exact, share: float, refine: bool, level: float) -> None:
        n = cheap.shape[1]
        self.cheap, self.exact, self.share, self.refine, self.level = cheap, exact, share, refine, level
        self.known, self.samples = np.full(cheap.shape, np.nan), np.zeros(cheap.shape)
        self.beta, self.lower, self.upper = np.zeros((3, n))
        self.verdicts, self.settled = np.full(n, UNDECIDED), np.zeros(n, dtype=int)
        self.open, self.looks, self.seen = np.ones(n, dtype=bool), 0, 0

    def look(self, prompts: Int[np.ndarray, "seen"]) -> None:
        """Patches what is open on those of `prompts` that are new, and settles what can be settled."""
        columns, new = np.flatnonzero(self.open), prompts[self.seen :]
        effects = self.exact(new.tolist(), columns.tolist())
        self.known[np.ix_(new, columns)] = _finite(effects, "Patching")
        self.looks, self.seen = self.looks + 1, len(prompts)
        found = corrected(self.cheap[:, columns], self.known[np.ix_(prompts, columns)], prompts)
        self.samples[:, columns], self.beta[columns] = found.samples, found.beta
        self._bound(columns, found)
        self._settle(columns[~found.lucky])

    def _bound(self, columns: Int[np.ndarray, "open"], found: Corrected) -> None:
        size = np.abs(found.samples.mean(0))
        reach = stats.t.isf(self.level / 2, self.seen - 1) * _standard_errors(found.samples)
        self.lower[columns] = np.where(found.lucky, 0, np.maximum(size - reach, 0))
        self.upper[columns] = size + reach

    def _settle(self, columns: Int[np.ndarray, "candidate"]) -> None:
        new = columns[self.verdicts[columns] == UNDECIDED]
        clears = new[self.lower[new] > self.share * self.upper.max()]
        screened = new[self.upper[new] < self.share * self.lower.max()]
        self.verdicts[clears], self.verdicts[screened] = CLEARS, SCREENED
        self.settled[clears] = self.settled[screened] = self.looks
        undecided = self.verdicts == UNDECIDED
        # The others wait on the threshold, so what may be the largest and set it is patched on for them.
        largest = undecided.any() & (self.upper >= self.lower.max())
        self.open &= undecided | largest | (self.refine & (self.verdicts == CLEARS))


class Corrected(NamedTuple):
    """Pseudo-samples, slopes, and where all residuals are the same on so few prompts that it may be luck."""

    samples: Effects
    beta: PerComponent
    lucky: Bool[np.ndarray, "component"]


def corrected(
    cheap: Effects, effects: Float[np.ndarray, "seen component"], prompts: Int[np.ndarray, "seen"]
) -> Corrected:
    """The exact effects of `prompts`, corrected by the cheap effects of all.

    The mean of the pseudo-samples is the mean leave-one-out residual. Every row holds what beta makes of its
    cheap effect, patched rows the residuals too, scaled so that their share of the squared standard error is
    the variance of that mean.
    """
    n, n_prompts, seen = len(prompts), len(cheap), cheap[prompts]
    x, y, centred = seen - seen.mean(0), effects - effects.mean(0), cheap - cheap.mean(0)
    # What a prompt adds to the sums over all, which they lose where it is left out.
    products, squares = n / (n - 1) * x * y, n / (n - 1) * x * x
    beta = _slopes(cheap, (x * y).sum(0), (x * x).sum(0))
    others = _slopes(cheap, (x * y).sum(0) - products, (x * x).sum(0) - squares)
    residuals = effects - others * centred[prompts]
    samples = residuals.mean(0) + beta * centred
    samples[prompts] += np.sqrt(n_prompts * (n_prompts - 1) / (n * (n - 1))) * (residuals - residuals.mean(0))
    if n == n_prompts:
        samples[prompts] = effects
    identical = np.ptp(residuals, axis=0) <= 1e-6 * np.abs(effects).max()
    return Corrected(samples, beta, identical & (n < min(IDENTICAL, n_prompts)))


def _slopes(
    cheap: Effects, products: Float[np.ndarray, "*sum"], squares: Float[np.ndarray, "*sum"]
) -> Float[np.ndarray, "*sum"]:
    """Least squares from sums of products and squares, drawn towards 0; 0 where cheap is constant."""
    below = squares + SHRINKAGE * cheap.var(0)
    # A constant has a variance of its own by rounding.
    varies = (below > 0) & (np.ptp(cheap, axis=0) > 0)
    return np.asarray(np.divide(products, below, out=np.zeros(below.shape), where=varies))


def _standard_errors(samples: Effects) -> PerComponent:
    return np.asarray(samples.std(0, ddof=1) / np.sqrt(len(samples)))


def _correlation(cheap: Effects, known: Effects) -> float | None:
    both = np.isfinite(known)
    constant = np.ptp(cheap[both]) == 0 or np.ptp(known[both]) == 0
    return None if constant else float(np.corrcoef(cheap[both], known[both])[0, 1])


def _variance_reduction(cheap: Effects, known: Effects, beta: PerComponent) -> float | None:
    before, after = np.nanvar(known, axis=0), np.nanvar(known - beta * cheap, axis=0)
    return float(np.median(before[after > 0] / after[after > 0])) if after.any() else None


def _check(cheap: Effects, budget: int, share: float) -> None:
    if len(cheap) < 2:
        raise CircuitError(f"A standard error needs at least 2 prompts; there is {len(cheap)}. Give more.")
    if budget < 2:
        raise CircuitError(f"A budget of {budget} exact prompts is too small; the least that works is 2.")
    if not 0 < share < 1:
        raise CircuitError(f"A threshold of {share} times the largest effect is none; choose 0 < share < 1.")
    _finite(cheap, "The cheap method")


def _finite(effects: Effects, what: str) -> Effects:
    bad = np.flatnonzero(~np.isfinite(effects).all(0))
    if len(bad):
        raise CircuitError(
            f"{what} gives no finite effect for {len(bad)} of {effects.shape[1]} components: the model's "
            "activations or gradients overflow. Load it with --dtype float32."
        )
    return effects
