"""The effect of interventions on what a model answers, beside what the same does by chance.

The one idea: every prompt is its own control, so a change is a mean of paired differences; and a change is owed to
these heads, or these positions, only if others do not bring it about. Random heads are as many in each layer and lie
outside the circuit; random positions are as many in each prompt, and named by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from circuits.batches import Batch, first_prompts, require_single_tokens
from circuits.errors import CircuitError
from circuits.evaluation.faithfulness import Estimate
from circuits.graph import Graph
from circuits.interventions.intervention import Attend, Channels, Intervention, edits, with_heads
from circuits.interventions.positions import Elsewhere
from circuits.metrics import Metric, correct, preferred
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.statistics import bootstrap_interval
from circuits.weight_reading.channels import Channel, n_components
from circuits.weight_reading.heads import require_weights

CONTROL_PROMPTS = 64
"""Prompts that controls run on: their spread is wide, so more would not sharpen it."""

DRAWS = 20
"""Random sets of heads, and of positions."""

Samples = Float[np.ndarray, "prompt"]


@dataclass(frozen=True)
class Answers:
    """What a model said, prompt by prompt, in the order of the prompt set.

    metric: of the clean answers. preferred: an answer beats all distractors; correct, distracted: the most likely
    token of all is an answer, a distractor (each 0 or 1).
    """

    metric: Samples
    preferred: Samples
    correct: Samples
    distracted: Samples

    def first(self, n: int) -> Answers:
        return Answers(self.metric[:n], self.preferred[:n], self.correct[:n], self.distracted[:n])


def answers(
    model: Model, batches: Sequence[Batch], metric: Metric, interventions: Sequence[Intervention] = ()
) -> Answers:
    """One forward pass a prompt, on clean prompts. Raises CircuitError where the metric is no number."""
    require_single_tokens(batches, "An intervention")
    return answers_of(
        batches, metric, lambda batch: model.run(batch.clean, edit=edits(model, batch, interventions)).logits
    )


def answers_of(
    batches: Sequence[Batch], metric: Metric, run: Callable[[Batch], Float[torch.Tensor, "prompt vocab"]]
) -> Answers:
    """The same of whatever runs. Raises as `answers` does."""
    parts = []
    for batch in batches:
        logits = run(batch)
        sides = batch.answers, batch.distractors
        rows = (metric(logits, *sides), preferred(logits, *sides), *(correct(logits, side) for side in sides))
        parts.append(torch.stack([row.double() for row in rows]).cpu())
    order = np.argsort([index for batch in batches for index in batch.index])
    said = Answers(*torch.cat(parts, 1).numpy()[:, order])
    if overflown := int((~np.isfinite(said.metric)).sum()):
        raise CircuitError(
            f"On {overflown} of {len(order)} prompts the metric is no finite number: activations overflow. "
            "Choose a smaller factor or step size, or a model in float32."
        )
    return said


@dataclass(frozen=True)
class Shift:
    """A mean before and after, and the mean paired difference; each with its 95% bootstrap interval over prompts."""

    before: Estimate
    after: Estimate
    change: Estimate


def shifts(
    before: Float[np.ndarray, "prompt column"], after: Float[np.ndarray, "prompt column"], seed: int
) -> list[Shift]:
    """One a column; all from the same draws of prompts."""
    sides = before, after, after - before
    means = [side.mean(0) for side in sides]
    bounds = [bootstrap_interval(side, seed=seed) for side in sides]
    return [
        Shift(
            *(
                Estimate(float(m[i]), float(b.low[i]), float(b.high[i]))
                for m, b in zip(means, bounds, strict=True)
            )
        )
        for i in range(before.shape[1])
    ]


@dataclass(frozen=True)
class Effect:
    """What changed on a set of prompts. fixed, new_errors: prompts that became correct, and that no longer are."""

    n_prompts: int
    metric: Shift
    preferred: Shift
    correct: Shift
    distracted: Shift
    fixed: int
    new_errors: int


def effect(before: Answers, after: Answers, seed: int) -> Effect:
    """The effect of whatever came between two runs of the same prompts."""
    names = ("metric", "preferred", "correct", "distracted")
    one, two = (np.stack([getattr(side, name) for name in names], 1) for side in (before, after))
    turned = after.correct - before.correct
    found = dict(zip(names, shifts(one, two, seed), strict=True))
    return Effect(len(one), **found, fixed=int((turned > 0).sum()), new_errors=int((turned < 0).sum()))


@dataclass(frozen=True)
class Band:
    """How far random draws moved a mean. reached: how many moved it as far as the intervention, the same way.

    p_value: chance of that for a draw that is as good as the intervention, with the +1 correction.
    """

    own: float
    changes: tuple[float, ...]
    reached: int
    p_value: float


@dataclass(frozen=True)
class Control:
    """The same done to other heads, onto other positions, or to other components of the same heads.

    drawn: what each draw took, in words. matched: how many draws of heads took as many in each layer as the
    intervention does; None for positions and components.
    """

    kind: str
    n_prompts: int
    drawn: tuple[str, ...]
    matched: int | None
    metric: Band
    correct: Band

    @property
    def as_good(self) -> bool:
        """Whether draws move the metric as far too often to tell the intervention from them."""
        return self.metric.reached > 0


def band(own: float, changes: Sequence[float]) -> Band:
    # What is equal but for rounding counts as reached, which errs on the side of a larger p-value.
    way = -1 if own < 0 else 1
    reached = sum(way * change >= way * own - 1e-9 for change in changes)
    return Band(own, tuple(changes), reached, (1 + reached) / (1 + len(changes)))


def controls(
    model: Model,
    batches: Sequence[Batch],
    metric: Metric,
    interventions: Sequence[Intervention],
    *,
    circuit: Collection[str] = (),
    seed: int = 0,
    n: int = DRAWS,
    progress: Progress = silent,
) -> tuple[Control, ...]:
    """Random heads, and random positions where heads are told where to attend; on the first prompts. For channels
    random components of the same heads instead.

    circuit: heads that are drawn only where there are too few others. No control where there is nothing to draw from.
    """
    few = first_prompts(batches, CONTROL_PROMPTS)
    named = tuple(head for intervention in interventions for head in intervention.heads)
    others: list[dict[str, str]] = []
    found: list[tuple[str, str, Sequence[Intervention]]]
    if channels := [i for i in interventions if isinstance(i, Channels)]:
        found = [
            ("random components", ", ".join(map(str, drawn.channels)), [drawn])
            for drawn in random_components(model, channels[0], n, seed)
        ]
    else:
        others = random_heads(model.graph, named, circuit, n, seed)
        found = [
            (
                "random heads",
                ", ".join(other[head] for head in named),
                [with_heads(i, other) for i in interventions],
            )
            for other in others
        ]
    if any(isinstance(i, Attend) for i in interventions):
        found += [
            ("random positions", f"draw {draw + 1}", [_elsewhere(i, seed, draw) for i in interventions])
            for draw in range(n)
        ]
    before = answers(model, few, metric)
    own = _means(before, answers(model, few, metric, interventions))
    changes = []
    for done, (_, _, changed) in enumerate(found):
        changes.append(_means(before, answers(model, few, metric, changed)))
        progress("controls", done + 1, len(found))
    kinds = dict.fromkeys(kind for kind, _, _ in found)
    return tuple(
        Control(
            kind,
            len(before.metric),
            tuple(words for other, words, _ in found if other == kind),
            sum(map(_matched, others)) if kind == "random heads" else None,
            *(
                band(own[i], [c[i] for c, (other, _, _) in zip(changes, found, strict=True) if other == kind])
                for i in range(2)
            ),
        )
        for kind in kinds
    )


def _matched(other: Mapping[str, str]) -> bool:
    return sorted(map(_layer, other)) == sorted(map(_layer, other.values()))


def _means(before: Answers, after: Answers) -> tuple[float, float]:
    """Mean change of the metric, and of the share of correct answers."""
    return float((after.metric - before.metric).mean()), float((after.correct - before.correct).mean())


def _elsewhere(intervention: Intervention, seed: int, draw: int) -> Intervention:
    if isinstance(intervention, Attend):
        return replace(intervention, onto=Elsewhere(intervention.onto, seed, draw))
    return intervention


def random_components(model: Model, cut: Channels, n: int, seed: int) -> list[Channels]:
    """Up to n distinct ways to take as many other components of each head; none of those that are cut."""
    rng = np.random.default_rng([seed, 0xC])
    count = n_components(require_weights(model, "A channel"))
    taken = {head: [c.component for c in cut.channels if c.head == head] for head in cut.heads}
    free = {head: [i for i in range(count) if i not in own] for head, own in taken.items()}
    if any(len(free[head]) < len(own) for head, own in taken.items()):
        return []
    found: dict[tuple[Channel, ...], Channels] = {}
    for _ in range(20 * n):
        drawn = tuple(
            Channel(head, int(i))
            for head, own in taken.items()
            for i in sorted(rng.choice(free[head], len(own), replace=False))
        )
        if len(found) < n:
            found.setdefault(drawn, replace(cut, channels=drawn))
    return list(found.values())


def random_heads(
    graph: Graph, heads: Sequence[str], avoid: Collection[str], n: int, seed: int
) -> list[dict[str, str]]:
    """Up to n distinct ways to put another head in the place of each; none of `heads` is ever drawn.

    First those of the same layers that lie outside `avoid`. Where that gives fewer than n, heads of any layer outside
    `avoid` follow; where too few lie outside to draw from at all, any heads.
    """
    rng = np.random.default_rng([seed, 0x1E])
    left = [head for head in graph.heads if head not in heads]
    outside = [head for head in left if head not in avoid]
    pools = [
        {head: [other for other in outside if _layer(other) == _layer(head)] for head in heads},
        dict.fromkeys(heads, outside),
    ]
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for pool in pools if len(outside) >= len(heads) else [dict.fromkeys(heads, left)]:
        for _ in range(20 * n):
            if len(found) < n and (other := _draw(rng, pool)):
                found.setdefault(tuple(sorted(other.values())), other)
    return list(found.values())


def _layer(head: str) -> str:
    return head.partition(".")[0]


def _draw(rng: np.random.Generator, pools: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """No head twice; empty where some head finds none left."""
    drawn: dict[str, str] = {}
    for head, pool in pools.items():
        free = [other for other in pool if other not in drawn.values()]
        if not free:
            return {}
        drawn[head] = free[int(rng.integers(len(free)))]
    return drawn
