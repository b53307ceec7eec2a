"""An MLP's output as heads' outputs, each times a number, and one vector for the task.

The one idea: y_n = sum_h b_h a_nh + c, where y_n is what the MLP writes at the last token of prompt n, a_nh what head
h wrote there, b_h one number for all dimensions and c a vector for all prompts. b < 0 erases what the head wrote,
b > 0 amplifies it, and c is what the MLP adds whatever the prompt says: the task's own vector.
Source: Lv et al. 2024 (arXiv 2403.19521), who regress MLP outputs on heads with a task-aware intercept. Their design
matrix is in no text that we could read, so this one is ours: ordinary least squares over all prompts and dimensions,
centred per dimension, heads of all layers that feed the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

RIDGES = (1e-3, 1e-2, 1e-1)
"""Of the mean diagonal of the Gram matrix."""

HeadOutputs = Float[np.ndarray, "prompt head d_model"]
MlpOutputs = Float[np.ndarray, "prompt d_model"]


@dataclass(frozen=True)
class Fit:
    """heads: b; task: c; mean: of the outputs that were fitted; condition: of the design matrix."""

    heads: Float[np.ndarray, "head"]
    task: Float[np.ndarray, "d_model"]
    mean: Float[np.ndarray, "d_model"]
    condition: float

    def predict(self, a: HeadOutputs) -> MlpOutputs:
        return np.asarray(self.of_heads(a) + self.task)

    def of_heads(self, a: HeadOutputs) -> MlpOutputs:
        """The same without the task's vector."""
        return np.asarray(np.einsum("nhd,h->nd", a, self.heads))

    def left(
        self, a: HeadOutputs, y: MlpOutputs
    ) -> tuple[Float[np.ndarray, "prompt"], Float[np.ndarray, "prompt"]]:
        """Squared error of each prompt, and that of the mean output: R^2 is one minus the ratio of their sums."""
        return ((y - self.predict(a)) ** 2).sum(1), ((y - self.mean) ** 2).sum(1)

    def r2(self, a: HeadOutputs, y: MlpOutputs) -> float:
        error, whole = self.left(a, y)
        return float(1 - error.sum() / whole.sum()) if whole.sum() > 0 else 0.0


@dataclass(frozen=True)
class Moments:
    """All that a fit needs of the prompts, so that a bootstrap draw is a weighted sum."""

    a: HeadOutputs
    y: MlpOutputs
    grams: Float[np.ndarray, "prompt head head"]
    products: Float[np.ndarray, "prompt head"]

    @classmethod
    def of(cls, a: HeadOutputs, y: MlpOutputs) -> Moments:
        return cls(a, y, np.einsum("nhd,ngd->nhg", a, a), np.einsum("nhd,nd->nh", a, y))

    def fit(self, weights: Float[np.ndarray, "prompt"], ridge: float = 0.0) -> Fit:
        """weights: of the prompts, summing to 1. The smallest solution where there are many."""
        a, y = np.einsum("n,nhd->hd", weights, self.a), weights @ self.y
        gram = np.einsum("n,nhg->hg", weights, self.grams) - a @ a.T
        product = weights @ self.products - a @ y
        values = np.linalg.eigvalsh(gram)
        penalty = ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
        heads = np.linalg.lstsq(gram + penalty, product, rcond=1e-12)[0]
        return Fit(heads, y - heads @ a, y, float(np.sqrt(values[-1] / max(values[0], values[-1] * 1e-16))))


def even(n: int) -> Float[np.ndarray, "prompt"]:
    return np.full(n, 1 / n)


def fit(a: HeadOutputs, y: MlpOutputs, ridge: float = 0.0) -> Fit:
    return Moments.of(a, y).fit(even(len(y)), ridge)


@dataclass(frozen=True)
class Regression:
    """A fit beside what it is worth on prompts that it has not seen, and by chance.

    low, high: 95% bootstrap interval of each head's number. shuffled: held-out R^2 of fits to the outputs of other
    prompts. by_ridge: held-out R^2 by penalty.
    """

    fit: Fit
    low: Float[np.ndarray, "head"]
    high: Float[np.ndarray, "head"]
    r2: float
    r2_low: float
    r2_high: float
    shuffled: tuple[float, ...]
    by_ridge: dict[float, float]


def regress(
    a: HeadOutputs,
    y: MlpOutputs,
    held_a: Float[np.ndarray, "held head d_model"],
    held_y: Float[np.ndarray, "held d_model"],
    *,
    seed: int,
    draws: int = 200,
    shuffles: int = 20,
) -> Regression:
    """Fits one half, judges on the other."""
    rng, moments, n = np.random.default_rng(seed), Moments.of(a, y), len(y)
    found = moments.fit(even(n))
    drawn = np.array([moments.fit(_draw(rng, n)).heads for _ in range(draws)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    error, whole = found.left(held_a, held_y)
    r2s = [
        1 - (w @ error) / (w @ whole) for w in (_draw(rng, len(held_y)) for _ in range(1000)) if w @ whole > 0
    ]
    r2_low, r2_high = np.quantile(r2s or [0.0], [0.025, 0.975])
    shuffled = (fit(a, y[_others(rng, n)]).r2(held_a, held_y) for _ in range(shuffles))
    ridges = {ridge: moments.fit(even(n), ridge).r2(held_a, held_y) for ridge in RIDGES}
    return Regression(
        found, low, high, found.r2(held_a, held_y), float(r2_low), float(r2_high), tuple(shuffled), ridges
    )


def _draw(rng: np.random.Generator, n: int) -> Float[np.ndarray, "prompt"]:
    return np.asarray(rng.multinomial(n, even(n)) / n)


def _others(rng: np.random.Generator, n: int) -> Int[np.ndarray, "prompt"]:
    return np.asarray(rng.permutation(n))
