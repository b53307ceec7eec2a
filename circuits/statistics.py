"""Statistics: how far to trust a mean, which components stand out, how well scores find a known circuit.

The one idea: prompts (or trials) are the independent draws, so every interval and p-value resamples rows.
Everything is vectorised over components and seeded. numpy, scipy and scikit-learn only.

Sources: percentile bootstrap (Efron 1979); sign-flip permutation with the +1 correction (Phipson and Smyth
2010); Holm 1979; Benjamini and Hochberg 1995. The balanced harmonic score is what the code of O'Neill and
Bui 2024 (arXiv 2405.12522) calls F1; the F1 of precision and recall stands beside it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Correction = Literal["holm", "bonferroni", "benjamini-hochberg"]


class Interval(NamedTuple):
    """A percentile interval: scalars for samples of one column, else one value a column."""

    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


@dataclass(frozen=True)
class Best:
    """The best value over all thresholds, and the threshold: scores at or above it are kept.

    The threshold is chosen on the reference itself, so the value is optimistic: an upper bound, no estimate.
    """

    value: float
    threshold: float


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation and its two-sided p-value."""

    rho: float
    p_value: float


def resample_weights(n: int, resamples: int, seed: int) -> Float[np.ndarray, "resample sample"]:
    """How much each sample weighs in each bootstrap draw. Raises ValueError where there are no samples."""
    if n == 0:
        raise ValueError("there are no samples to resample")
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n


def _percentiles(values: Float[np.ndarray, "resample ..."], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return Interval(np.asarray(low), np.asarray(high))


def resampled_means(
    samples: Float[np.ndarray, "sample *column"], *, resamples: int = 2000, seed: int = 0
) -> Float[np.ndarray, "resample *column"]:
    """Means over bootstrap draws of the samples: the draws are the same for all columns, and for one seed.

    Raises ValueError where there are no samples.
    """
    return np.asarray(resample_weights(len(samples), resamples, seed) @ samples)


def bootstrap_interval(
    samples: Float[np.ndarray, "sample *component"],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the mean over samples, for each column.

    Raises ValueError where there are no samples.
    """
    return _percentiles(resample_weights(len(samples), resamples, seed) @ samples, confidence)


def wilson_interval(hits: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927): it holds at 0 and n too, where a bootstrap has no width.

    Raises ValueError where there are no samples.
    """
    if n == 0:
        raise ValueError("there are no samples")
    from scipy import stats

    z2 = float(stats.norm.ppf((1 + confidence) / 2)) ** 2
    middle = (hits + z2 / 2) / (n + z2)
    reach = np.sqrt(z2 * (hits * (n - hits) / n + z2 / 4)) / (n + z2)
    return Interval(np.asarray(max(middle - reach, 0.0)), np.asarray(min(middle + reach, 1.0)))


def bootstrap_ratio_interval(
    numerators: Float[np.ndarray, "sample *column"],
    denominators: Float[np.ndarray, "sample"],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Percentile bootstrap interval of mean(numerators) / mean(denominators), both of one draw, for each column.

    A ratio of means, no mean of ratios. None where a resampled denominator is zero: no interval is finite.
    Raises ValueError where there are no samples.
    """
    weights = resample_weights(len(numerators), resamples, seed)
    below = weights @ denominators
    if (below == 0).any():
        return None
    return _percentiles(((weights @ numerators).T / below).T, confidence)


def sign_flip_pvalues(
    samples: Float[np.ndarray, "sample component"], *, permutations: int = 5000, seed: int = 0
) -> Float[np.ndarray, "component"]:
    """Two-sided p-value of each component for "its scores are symmetric about zero" (so their mean is zero).

    Signs of whole rows are flipped at random. With the +1 correction no p-value is below
    1 / (permutations + 1); raise `permutations` where many components are to be corrected for.
    """
    if len(samples) == 0:
        raise ValueError("there are no samples to permute")
    rng = np.random.default_rng(seed)
    observed = np.abs(samples.sum(0))
    # Sums that are equal but for rounding count as equal, which errs on the side of a larger p-value.
    bound = observed - 1e-9 * np.abs(samples).sum(0)
    reached = np.zeros(samples.shape[1])
    for start in range(0, permutations, 1000):
        signs = rng.choice([-1.0, 1.0], size=(min(1000, permutations - start), len(samples)))
        reached += (np.abs(signs @ samples) >= bound).sum(0)
    return np.asarray((1 + reached) / (1 + permutations))


def _holm(pvalues: Float[np.ndarray, "component"]) -> Float[np.ndarray, "component"]:
    order, n = np.argsort(pvalues, kind="stable"), len(pvalues)
    adjusted = np.empty(n)
    adjusted[order] = np.maximum.accumulate(pvalues[order] * np.arange(n, 0, -1))
    return adjusted


def adjust_pvalues(
    pvalues: Float[np.ndarray, "component"], method: Correction
) -> Float[np.ndarray, "component"]:
    """P-values corrected for looking at many components: keep those at or below the level you choose.

    holm, bonferroni: bound the chance of any false find; benjamini-hochberg: the share of false finds.
    Raises ValueError for another method.
    """
    if method == "benjamini-hochberg":
        from scipy import stats  # it takes half a second to import, which `circuit compare` need not wait for

        return np.asarray(stats.false_discovery_control(pvalues)) if len(pvalues) else pvalues
    if method == "holm":
        return np.asarray(np.minimum(_holm(pvalues), 1.0))
    if method == "bonferroni":
        return np.asarray(np.minimum(pvalues * len(pvalues), 1.0))
    raise ValueError(f"{method!r} is no correction; there are holm, bonferroni and benjamini-hochberg")


def _unjudged(scores: Float[np.ndarray, "component"], positives: Bool[np.ndarray, "component"]) -> bool:
    return bool(positives.all() or not positives.any() or np.isnan(scores).any())


def auroc(scores: Float[np.ndarray, "component"], positives: Bool[np.ndarray, "component"]) -> float | None:
    """Chance that a random positive scores above a random negative; a tie counts half.

    None where every component is positive, none is, or a score is not a number.
    """
    if _unjudged(scores, positives):
        return None
    from sklearn.metrics import roc_auc_score  # slow to import, and comparisons have no use for it

    return float(roc_auc_score(positives, scores))


def true_positive_rate(kept: Collection[str], reference: Collection[str]) -> float:
    """Share of the reference that is kept (recall, sensitivity); 0 where the reference is empty."""
    return len(set(kept) & set(reference)) / len(set(reference)) if reference else 0.0


def false_positive_rate(
    kept: Collection[str], reference: Collection[str], universe: Collection[str]
) -> float:
    """Share of what is outside the reference that is kept; 0 where nothing is outside."""
    outside = set(universe) - set(reference)
    return len(set(kept) & outside) / len(outside) if outside else 0.0


def precision(kept: Collection[str], reference: Collection[str]) -> float:
    """Share of what is kept that is in the reference; 0 where nothing is kept."""
    return len(set(kept) & set(reference)) / len(set(kept)) if kept else 0.0


def f1(kept: Collection[str], reference: Collection[str]) -> float:
    """Harmonic mean of precision and recall."""
    total = len(set(kept)) + len(set(reference))
    return 2 * len(set(kept) & set(reference)) / total if total else 0.0


def _harmonic(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.asarray(2 * a * b / np.maximum(a + b, np.finfo(float).tiny))


def balanced_harmonic_score(
    kept: Collection[str], reference: Collection[str], universe: Collection[str]
) -> float:
    """2 TPR (1 - FPR) / (TPR + 1 - FPR): harmonic mean of sensitivity and specificity, not F1."""
    sensitivity = np.asarray(true_positive_rate(kept, reference))
    specificity = np.asarray(1 - false_positive_rate(kept, reference, universe))
    return float(_harmonic(sensitivity, specificity))


def _best(values: Float[np.ndarray, "threshold"], thresholds: Float[np.ndarray, "threshold"]) -> Best:
    # The first threshold of a ROC curve is infinite and keeps nothing.
    top = 1 + int(np.argmax(values[1:]))
    return Best(float(values[top]), float(thresholds[top]))


def best_f1(scores: Float[np.ndarray, "component"], positives: Bool[np.ndarray, "component"]) -> Best | None:
    """The largest F1 that any threshold reaches: optimistic, see Best. None where auroc is None."""
    if _unjudged(scores, positives):
        return None
    from sklearn.metrics import roc_curve

    fpr, tpr, thresholds = roc_curve(positives, scores, drop_intermediate=False)
    hits, false = tpr * positives.sum(), fpr * (~positives).sum()
    return _best(2 * hits / (hits + false + positives.sum()), thresholds)


def best_balanced_harmonic_score(
    scores: Float[np.ndarray, "component"], positives: Bool[np.ndarray, "component"]
) -> Best | None:
    """The largest balanced harmonic score that any threshold reaches: optimistic, see Best. None as auroc."""
    if _unjudged(scores, positives):
        return None
    from sklearn.metrics import roc_curve

    fpr, tpr, thresholds = roc_curve(positives, scores, drop_intermediate=False)
    return _best(_harmonic(tpr, 1 - fpr), thresholds)


def rank_correlation(
    a: Float[np.ndarray, "component"], b: Float[np.ndarray, "component"]
) -> Correlation | None:
    """Spearman's correlation of two scores of the same components.

    None where one of them is constant or there are fewer than three components: then ranks say nothing.
    """
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    from scipy import stats

    result = stats.spearmanr(a, b)
    return Correlation(float(result.statistic), float(result.pvalue))
