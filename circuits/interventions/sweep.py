"""A sweep: value vectors scaled by several factors, one of them chosen on prompts that it is not judged on.

The one idea: the best of many factors looks good on the prompts that chose it, so those are not the ones that the
effect is stated on. Source: Yu et al. 2023 (arXiv 2310.15910), section 5: scaling down one memory head makes a model
trust what the prompt says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from circuits.batches import Batch
from circuits.interventions.effect import Effect, answers, effect
from circuits.interventions.intervention import Scale
from circuits.metrics import Metric
from circuits.model import Model
from circuits.progress import Progress, silent

Toward = Literal["answer", "distractor"]


@dataclass(frozen=True)
class Sweep:
    """tuning, judged: the effect of each factor on either set of prompts. chosen: by the tuning set alone."""

    factors: tuple[float, ...]
    toward: Toward
    tuning: tuple[Effect, ...]
    judged: tuple[Effect, ...]
    chosen: float


def sweep(
    model: Model,
    heads: tuple[str, ...],
    factors: Sequence[float],
    metric: Metric,
    *,
    tuning: Sequence[Batch],
    judged: Sequence[Batch],
    toward: Toward = "answer",
    seed: int = 0,
    progress: Progress = silent,
) -> Sweep:
    """One forward pass a factor and prompt. toward: what the model shall say more often."""
    ordered = tuple(sorted(set(factors)))
    tried: list[list[Effect]] = []
    for batches in (tuning, judged):
        before = answers(model, batches, metric)
        tried.append([])
        for factor in ordered:
            after = answers(model, batches, metric, [Scale(heads, factor)])
            tried[-1].append(effect(before, after, seed))
            progress("factors", sum(map(len, tried)), 2 * len(ordered))
    best = max(range(len(ordered)), key=lambda i: (*_aim(tried[0][i], toward), -abs(ordered[i] - 1)))
    return Sweep(ordered, toward, tuple(tried[0]), tuple(tried[1]), ordered[best])


def _aim(found: Effect, toward: Toward) -> tuple[float, float]:
    """Larger is better: how often it is said first, then by how much it is preferred."""
    if toward == "answer":
        return found.correct.after.value, found.metric.after.value
    return found.distracted.after.value, -found.metric.after.value
