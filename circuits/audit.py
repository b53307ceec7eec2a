"""Audit: the largest edge scores of an approximate method, measured again exactly.

The one idea: of the edges that a method ranks first, the exact effects can be had at a forward pass each; beside
them stand how well ranks and sizes agree, which signs are wrong, and which edges turn out to do nothing that shows.
Only edges that the method ranks high are looked at, so what it missed is not: correlations are of the top alone.
Sources: Syed et al. 2023 (arXiv 2310.10348) hold EAP against exact patching so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from circuits.batches import first_prompts
from circuits.edge_patches import cut_effects
from circuits.errors import CircuitError
from circuits.methods.method import Problem
from circuits.model import Model
from circuits.patches import ReplacementOptions
from circuits.scores import Scores
from circuits.statistics import bootstrap_interval, resample_weights

MOST_PROMPTS = 64
"""Prompts that are asked, as the rest of them would sharpen little."""

LEAST_SHARE = 0.01
"""Of the largest exact effect: an edge below it does nothing that shows."""

RESAMPLES = 2000


@dataclass(frozen=True)
class Agreement:
    """A correlation with its 95% bootstrap interval over prompts; None where it has no meaning: fewer than three
    edges, or all alike."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class AuditedEdge:
    """score: of the method. exact: the mean effect over the prompts asked, with its 95% bootstrap interval.

    sign_error: the interval lies on the other side of zero. false_positive: it holds zero, or the effect is below a
    share of the largest.
    """

    edge: str
    score: float
    exact: float
    low: float
    high: float
    sign_error: bool
    false_positive: bool


@dataclass(frozen=True)
class Audit:
    """What the exact effects of the top edges say of a method. edges: largest score first."""

    method: str
    n_prompts: int
    direction: str
    ablation: str
    least_share: float
    spearman: Agreement
    pearson: Agreement
    edges: tuple[AuditedEdge, ...]

    @property
    def sign_errors(self) -> tuple[str, ...]:
        return tuple(audited.edge for audited in self.edges if audited.sign_error)

    @property
    def false_positives(self) -> tuple[str, ...]:
        return tuple(audited.edge for audited in self.edges if audited.false_positive)

    def record(self) -> dict[str, object]:
        """Ready for JSON."""
        return {
            **asdict(self),
            "sign_errors": list(self.sign_errors),
            "false_positives": list(self.false_positives),
        }


def verify(
    model: Model, problem: Problem, scores: Scores, k: int, *, least_share: float = LEAST_SHARE
) -> Audit:
    """Measures the k edges with the largest scores again, on the first prompts of `problem`, by its metric and seed.

    Direction and ablation are those that the method had. Cost: a forward pass an edge and prompt.
    Raises CircuitError for scores without edges, or no edge to look at; ModelError where the engine does not serve.
    """
    if scores.edges is None:
        raise CircuitError(
            f"{scores.method} scores no edges, so none can be verified; choose a method of edges."
        )
    if k < 1:
        raise CircuitError(f"{k} edges cannot be verified; ask for 1 or more.")
    edges = scores.edges.ranking()[:k]
    swapped = swap_of(scores)
    some = replace(problem, batches=first_prompts(problem.batches, MOST_PROMPTS))
    effects = cut_effects(model, some, swapped, "verifying edges", [[edge] for edge in edges])
    approximate = np.array([scores.edges.of(edge) for edge in edges])
    low, high = bootstrap_interval(effects, seed=problem.seed)
    mean = effects.mean(0)
    wrong = np.where(approximate > 0, high < 0, low > 0)
    idle = ((low <= 0) & (high >= 0)) | (np.abs(mean) < least_share * np.abs(mean).max())
    columns = (column.tolist() for column in (approximate, mean, low, high, wrong, idle))
    weights = resample_weights(len(effects), RESAMPLES, problem.seed)
    return Audit(
        method=scores.method,
        n_prompts=len(effects),
        direction=swapped.direction,
        ablation=swapped.ablation,
        least_share=least_share,
        spearman=_agreement(approximate, effects, weights, ranks=True),
        pearson=_agreement(approximate, effects, weights, ranks=False),
        edges=tuple(AuditedEdge(*values) for values in zip(edges, *columns, strict=True)),
    )


def swap_of(scores: Scores) -> ReplacementOptions:
    """The direction and ablation that the method had."""
    options = scores.details.get("options", {})
    assert isinstance(options, Mapping)
    return ReplacementOptions(
        **{name: options[name] for name in ReplacementOptions.model_fields if name in options}
    )


def _agreement(
    approximate: Float[np.ndarray, "edge"],
    effects: Float[np.ndarray, "prompt edge"],
    weights: Float[np.ndarray, "resample prompt"],
    *,
    ranks: bool,
) -> Agreement:
    """Correlation of the scores, which stay as they are, with mean effects over the prompts, and over those drawn."""
    exact = effects.mean(0)
    if len(exact) < 3 or np.ptp(approximate) == 0 or np.ptp(exact) == 0:
        return Agreement(None, None, None)
    value = _correlations(approximate, exact[None], ranks=ranks)[0]
    drawn = _correlations(approximate, weights @ effects, ranks=ranks)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Agreement(float(value), float(low), float(high))


def _correlations(
    one: Float[np.ndarray, "edge"], others: Float[np.ndarray, "row edge"], *, ranks: bool
) -> Float[np.ndarray, "row"]:
    if ranks:
        one, others = rankdata(one), rankdata(others, axis=1)
    one, others = one - one.mean(), others - others.mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray(others @ one / np.sqrt((one**2).sum() * (others**2).sum(1)))
