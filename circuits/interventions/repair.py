"""Repair: giving a task that a model does badly what its heads do on one that it does well.

The one idea: a head that the good task's circuit has may be able to help the bad task, and not be asked: the bad
task's circuit lacks it, or there its attention goes elsewhere. The good task shows where the last token's attention
belongs: at what is wrong (S of IOI), or at a position that both tasks name (SUBJECT). On the bad task the head is
told to attend there, and the heads downstream do the rest. Heads are chosen on prompts that nothing is judged on.
An override that is told the wrong positions knows much of the answer, and one that is told a named position knows
the layout of the prompt: either shows that the rest of the circuit would work, and makes no better model. Heads that
look at the right answer are left alone, for telling them would be telling the answer.
Source: Merullo et al. 2023 (arXiv 2310.08744), section 5, where four heads take GPT-2 medium from 49.6% to 93.7%; the
second kind of candidate and of position are ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from circuits.batches import Batch
from circuits.errors import CircuitError
from circuits.evaluation.faithfulness import Estimate, mean_estimate
from circuits.interventions.downstream import at_names, attention
from circuits.interventions.effect import Answers, Effect, answers, effect
from circuits.interventions.intervention import Attend, Intervention, Onto
from circuits.interventions.positions import Named, Side, common_names
from circuits.metrics import Metric
from circuits.model import Model
from circuits.patching import engine_weights, require_engine
from circuits.progress import Progress, silent

CLEAR = 2.0
"""Times even attention: what a head pays at least before it is said to look there."""

WRONG, RIGHT, NOWHERE = "wrong", "right", ""
"""Where a head looks, where that is no named position."""


@dataclass(frozen=True)
class Candidate:
    """A head of the good circuit, and where the last token's attention goes on the good task.

    looks_at: WRONG, RIGHT, a named position, or NOWHERE; see _look. attention: to each position that all prompts of
    the good task name. good, bad: what it pays there on either task, even: what even attention would on the good one;
    None where it looks nowhere. in_bad_circuit: whether the bad task's circuit has it, too.
    """

    head: str
    looks_at: str
    attention: Mapping[str, float]
    in_bad_circuit: bool
    good: Estimate | None = None
    bad: Estimate | None = None
    even: float | None = None

    @property
    def idle(self) -> bool:
        """Whether the bad task does not use it: its circuit lacks it, or it clearly looks away there."""
        away = self.good is not None and self.bad is not None and self.bad.high < self.good.low
        return away or not self.in_bad_circuit

    @property
    def usable(self) -> bool:
        return self.idle and self.looks_at not in (RIGHT, NOWHERE)


@dataclass(frozen=True)
class Repair:
    """candidates: heads of the good circuit. steps: heads in the order in which they were added, and the share of
    tuning prompts that was right then. alone, together: on judged prompts.
    """

    candidates: tuple[Candidate, ...]
    chosen: tuple[str, ...]
    steps: tuple[tuple[str, float], ...]
    tuning_before: float
    alone: Mapping[str, Effect]
    together: Effect

    @property
    def usable(self) -> tuple[str, ...]:
        return tuple(candidate.head for candidate in self.candidates if candidate.usable)

    @property
    def told(self) -> dict[str, tuple[str, ...]]:
        """WRONG or a named position -> the chosen heads that are told to attend there."""
        looks = {candidate.head: candidate.looks_at for candidate in self.candidates}
        targets = dict.fromkeys(looks[head] for head in self.chosen)
        return {at: tuple(head for head in self.chosen if looks[head] == at) for at in targets}


@dataclass(frozen=True)
class Targets:
    """Where heads may look: WRONG, RIGHT and named positions, each as positions of every prompt.

    wrong: which positions are wrong on the bad task, if not those that its prompts call so or that hold a distractor.
    """

    model: Model
    names: tuple[str, ...]
    wrong: Onto | None = None

    def rule(self, name: str) -> Onto:
        """The positions of one target; those of WRONG are the good task's, where `wrong` is None."""
        if name == WRONG:
            return self.wrong or Side(self.model)
        return Side(self.model, right=True) if name == RIGHT else Named((name,))

    def __call__(self, batch: Batch) -> Bool[torch.Tensor, "target prompt pos"]:
        return torch.stack([self.rule(name)(batch) for name in self.names])


def shared_targets(
    model: Model, good: Sequence[Batch], bad: Sequence[Batch], named: bool = False
) -> tuple[str, ...]:
    """What heads may look at on both tasks.

    WRONG and RIGHT as far as all prompts of the good task have such positions; WRONG only if the bad task's have
    them, too, or the user named them. Then the positions that all prompts of both name and that are neither of
    those, nor the last token's own.
    """
    sides = [
        (name, Side(model, right))
        for name, right in ((WRONG, False), (RIGHT, True))
        if _somewhere(Side(model, right), (*good, *(() if right or named else bad)))
    ]
    taken = {name for right in (False, True) for name in Side(model, right).names((*good, *bad))}
    ends = {
        name
        for batch in (*good, *bad)
        for pair in batch.pairs
        for name, place in pair.positions.items()
        if place == len(pair.clean) - 1
    }
    both = [name for name in common_names(good) if name in common_names(bad)]
    return (*(name for name, _ in sides), *(name for name in both if name not in taken | ends))


def _somewhere(onto: Onto, batches: Sequence[Batch]) -> bool:
    return all(bool(onto(batch).any(1).all()) for batch in batches)


def candidates(
    model: Model,
    heads: Sequence[str],
    bad_circuit: Collection[str],
    targets: tuple[str, ...],
    good: Sequence[Batch],
    bad: Sequence[Batch],
    wrong: Onto,
    seed: int,
) -> tuple[Candidate, ...]:
    """Where `heads` look on the prompts of the good task, and how much on those of the bad one; a forward pass each.

    targets: see shared_targets. wrong: the wrong positions of the bad task.
    Raises ModelError where the engine does not serve.
    """
    require_engine(model, (*good, *bad), "Reading where heads attend")
    if not heads:
        return ()
    names = common_names(good)
    named = torch.cat([at_names(_rows(model, heads, batch), batch, names) for batch in good]).mean(0)
    there, even = _paid(model, heads, Targets(model, targets), good)
    here, _ = _paid(model, heads, Targets(model, targets, wrong), bad)
    found = []
    for column, head in enumerate(heads):
        look = _look(there[:, :, column] - CLEAR * even, targets, seed)
        entry = Candidate(
            head, look, dict(zip(names, named[column].tolist(), strict=True)), head in bad_circuit
        )
        if look != NOWHERE:
            at = targets.index(look)
            entry = replace(
                entry,
                good=mean_estimate(there[:, at, column], seed),
                bad=mean_estimate(here[:, at, column], seed),
                even=float(even[:, at].mean()),
            )
        found.append(entry)
    return tuple(found)


def _paid(
    model: Model, heads: Sequence[str], targets: Targets, batches: Sequence[Batch]
) -> tuple[Float[np.ndarray, "prompt target head"], Float[np.ndarray, "prompt target"]]:
    """What each head pays to each target together, and what even attention would."""
    paid, even = [], []
    for batch in batches:
        masks = targets(batch).double().cpu()
        paid.append(torch.einsum("nhp,tnp->nth", _rows(model, heads, batch), masks))
        even.append(masks.mean(-1).T)
    return torch.cat(paid).numpy(), torch.cat(even).numpy()


def _rows(model: Model, heads: Sequence[str], batch: Batch) -> Float[torch.Tensor, "prompt head pos"]:
    """The last token's attention."""
    weights = engine_weights(model, batch.clean.shape[1])
    assert weights is not None, "see require_engine"
    with torch.inference_mode():
        return attention(model, weights, batch, heads).double().cpu()


def _look(excess: Float[np.ndarray, "prompt target"], targets: Sequence[str], seed: int) -> str:
    """The target that is paid more than CLEAR times even attention, and exceeds that by more than any other, both
    beyond what the prompts at hand could do by luck."""
    for at, target in enumerate(targets):
        others = [excess[:, at] - excess[:, other] for other in range(len(targets)) if other != at]
        if min(mean_estimate(x, seed).low for x in (excess[:, at], *others)) > 0:
            return target
    return NOWHERE


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
    """Chooses among the usable candidates: the best alone, then whichever raises the share of
    right answers most, while one does. At most n (n + 1) / 2 forward passes a tuning prompt.

    onto: the wrong positions of the bad task. Raises CircuitError where no candidate has anything to give.
    """
    told = told_where(found, onto)
    heads = tuple(told)
    if not heads:
        idle = [c for c in found if c.idle]
        looked = (
            ", ".join(f"{c.head} looks at {c.looks_at or 'nothing named'}" for c in idle) or "none is idle"
        )
        raise CircuitError(
            "No head of the good circuit that the bad task leaves idle looks at what is wrong, or at a position that "
            f"both tasks name, so there is nothing to give: {looked}. Choose other runs, or say what to do with "
            "--head and --attend."
        )
    before = answers(model, tuning, metric)
    steps = _steps(model, told, metric, tuning, progress)
    chosen = tuple(head for head in heads if head in dict(steps))
    plain = answers(model, judged, metric)

    def judge(some: tuple[str, ...]) -> Effect:
        return effect(plain, answers(model, judged, metric, overrides(told, some)), seed)

    return Repair(
        tuple(found),
        chosen,
        steps,
        float(before.correct.mean()),
        {head: judge((head,)) for head in heads},
        judge(chosen),
    )


def told_where(found: Sequence[Candidate], wrong: Onto) -> dict[str, Onto]:
    """Where each usable candidate is told to attend. wrong: the wrong positions of the bad task."""
    return {c.head: wrong if c.looks_at == WRONG else Named((c.looks_at,)) for c in found if c.usable}


def overrides(told: Mapping[str, Onto], heads: Sequence[str]) -> list[Intervention]:
    """What tells `heads` where to attend, one intervention for each rule."""
    rules = dict.fromkeys(told[head] for head in heads)
    return [Attend(tuple(head for head in heads if told[head] == rule), rule) for rule in rules]


def _steps(
    model: Model,
    told: Mapping[str, Onto],
    metric: Metric,
    tuning: Sequence[Batch],
    progress: Progress,
) -> tuple[tuple[str, float], ...]:
    """Heads in the order in which they are added, with the share of right answers then."""
    steps: list[tuple[str, float]] = []
    while left := [head for head in told if head not in dict(steps)]:
        tried = {
            head: _aim(answers(model, tuning, metric, overrides(told, (*dict(steps), head)))) for head in left
        }
        best = max(tried, key=tried.__getitem__)
        if steps and tried[best][0] <= steps[-1][1]:
            break
        steps.append((best, tried[best][0]))
        progress("choosing heads", len(steps), len(told))
    progress("choosing heads", len(told), len(told))
    return tuple(steps)


def _aim(tried: Answers) -> tuple[float, float]:
    return float(tried.correct.mean()), float(tried.metric.mean())
