"""Repair: giving a task that a model does badly what its heads do on one that it does well.

The one idea: a head that the good task's circuit has and the bad one's lacks may be able, and never asked. The good
task shows where the last token's attention goes; if that is to what is wrong there (S of IOI), then on the bad task
it is told to attend to what is wrong there, and movers downstream do the rest. Heads are chosen on prompts that they
are not judged on. The override is told the wrong positions of each prompt, so it knows much of the answer:
it shows that the rest of the circuit would work, and does not make a better model.
Source: Merullo et al. 2023 (arXiv 2310.08744), section 5, where four heads take GPT-2 medium from 49.6% to 93.7%.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from circuits.batches import Batch
from circuits.errors import CircuitError
from circuits.evaluation.faithfulness import Estimate, mean_estimate
from circuits.interventions.downstream import at_names, attention
from circuits.interventions.effect import Answers, Effect, Samples, answers, effect
from circuits.interventions.intervention import Attend, Onto
from circuits.interventions.positions import Side, common_names
from circuits.metrics import Metric
from circuits.model import Model
from circuits.patching import engine_weights, require_engine
from circuits.progress import Progress, silent

CLEAR = 2.0
"""Times even attention: what a head pays to a side at least before it is said to look there."""

Direction = Literal["wrong", "right", "neither"]


@dataclass(frozen=True)
class Candidate:
    """A head, and where the last token's attention goes on the good task: to each position that all prompts name, to
    those that are wrong and those that are right, together. even: what even attention gives the wrong ones.

    direction: where it pays more than CLEAR times even attention, and exceeds that by more than at the other side,
    both beyond what the prompts at hand could do by luck.
    """

    head: str
    direction: Direction
    attention: Mapping[str, float]
    wrong: Estimate
    right: Estimate
    even: float


@dataclass(frozen=True)
class Repair:
    """candidates: heads of the good circuit that the bad one lacks. steps: heads in the order in which they were
    added, and the share of tuning prompts that was right then. alone, together: on judged prompts.
    """

    candidates: tuple[Candidate, ...]
    chosen: tuple[str, ...]
    steps: tuple[tuple[str, float], ...]
    tuning_before: float
    alone: Mapping[str, Effect]
    together: Effect

    @property
    def usable(self) -> tuple[str, ...]:
        return usable(self.candidates)


def usable(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """The heads that look at what is wrong."""
    return tuple(candidate.head for candidate in candidates if candidate.direction == "wrong")


def candidates(
    model: Model, heads: Sequence[str], batches: Sequence[Batch], seed: int
) -> tuple[Candidate, ...]:
    """Where `heads` look on prompts of the good task. One forward pass a prompt.

    Raises ModelError where the engine does not serve, CircuitError where prompts name nothing that is wrong.
    """
    require_engine(model, batches, "Reading where heads attend")
    if any(not Side(model).names_in(pair) for batch in batches for pair in batch.pairs):
        raise CircuitError(
            "Some prompts of the good task name no position that is wrong (called WRONG..., or holding a "
            "distractor), so it cannot be seen which heads look there. Choose a run of another task, such as ioi."
        )
    if not heads:
        return ()
    names, found = common_names(batches), [_looks(model, heads, batch) for batch in batches]
    rows, masks = [rows for rows, _ in found], [masks for _, masks in found]
    named = torch.cat([at_names(r, b, names) for r, b in zip(rows, batches, strict=True)]).mean(0)
    # Sums over positions: what each head pays to either side, and what even attention would.
    paid = torch.cat([torch.einsum("nhp,snp->nsh", r, m) for r, m in zip(rows, masks, strict=True)]).numpy()
    even = torch.cat([m.mean(-1).T for m in masks]).numpy()
    return tuple(
        Candidate(
            head,
            _direction(paid[:, :, column] - CLEAR * even, seed),
            dict(zip(names, named[column].tolist(), strict=True)),
            mean_estimate(paid[:, 0, column], seed),
            mean_estimate(paid[:, 1, column], seed),
            float(even[:, 0].mean()),
        )
        for column, head in enumerate(heads)
    )


def _looks(
    model: Model, heads: Sequence[str], batch: Batch
) -> tuple[Float[torch.Tensor, "prompt head pos"], Float[torch.Tensor, "side prompt pos"]]:
    """What each head pays to every position, and which are wrong (side 0) or right (side 1)."""
    weights = engine_weights(model, batch.clean.shape[1])
    assert weights is not None, "see require_engine"
    with torch.inference_mode():
        paid = attention(model, weights, batch, heads).double().cpu()
    return paid, torch.stack([Side(model, right)(batch) for right in (False, True)]).double().cpu()


def _direction(excess: Float[np.ndarray, "prompt side"], seed: int) -> Direction:
    """From what is paid to wrong and to right positions beyond CLEAR times even attention."""
    wrong, right = excess.T

    def clearly(own: Samples, other: Samples) -> bool:
        return min(mean_estimate(x, seed).low for x in (own, own - other)) > 0

    return "wrong" if clearly(wrong, right) else "right" if clearly(right, wrong) else "neither"


def repair(
    model: Model,
    found: Sequence[Candidate],
    onto: Onto,
    metric: Metric,
    *,
    tuning: Sequence[Batch],
    judged: Sequence[Batch],
    seed: int = 0,
    progress: Progress = silent,
) -> Repair:
    """Chooses among the candidates that look at what is wrong: the best alone, then whichever raises the share of
    right answers most, while one does. At most n (n + 1) / 2 forward passes a tuning prompt.

    Raises CircuitError where no candidate looks at what is wrong.
    """
    heads = usable(found)
    if not heads:
        looked = ", ".join(f"{c.head} ({c.direction})" for c in found) or "there is none"
        raise CircuitError(
            "No head that the good circuit has and the bad one lacks looks at what is wrong on the good task, so "
            f"there is nothing to give: {looked}. Choose other runs, or say what to do with --head and --attend."
        )
    before = answers(model, tuning, metric)
    steps = _steps(model, heads, onto, metric, tuning, progress)
    chosen = tuple(head for head in heads if head in dict(steps))
    plain = answers(model, judged, metric)

    def judge(some: tuple[str, ...]) -> Effect:
        return effect(plain, answers(model, judged, metric, [Attend(some, onto)]), seed)

    return Repair(
        tuple(found),
        chosen,
        steps,
        float(before.correct.mean()),
        {head: judge((head,)) for head in heads},
        judge(chosen),
    )


def _steps(
    model: Model,
    heads: tuple[str, ...],
    onto: Onto,
    metric: Metric,
    tuning: Sequence[Batch],
    progress: Progress,
) -> tuple[tuple[str, float], ...]:
    """Heads in the order in which they are added, with the share of right answers then."""
    steps: list[tuple[str, float]] = []
    while left := [head for head in heads if head not in dict(steps)]:
        tried = {
            head: _aim(answers(model, tuning, metric, [Attend((*dict(steps), head), onto)])) for head in left
        }
        best = max(tried, key=tried.__getitem__)
        if steps and tried[best][0] <= steps[-1][1]:
            break
        steps.append((best, tried[best][0]))
        progress("choosing heads", len(steps), len(heads))
    return tuple(steps)


def _aim(tried: Answers) -> tuple[float, float]:
    return float(tried.correct.mean()), float(tried.metric.mean())
