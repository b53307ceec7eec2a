"""Tuning heads of a run, the table of contents: train -> judge here and on other tasks -> by chance -> all heads.

The one idea: what a training of a few heads is worth shows beside the same training of others: of random heads in the
same layers, of the same heads on shuffled answers, and of all heads at once; on prompts that nothing was trained on,
and on tasks that should not suffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from circuits.batches import Batch, make_batches
from circuits.engine.weights import Weights
from circuits.errors import PromptError
from circuits.evaluation.run_evaluation import PromptSet
from circuits.interventions.effect import (
    Answers,
    Control,
    Effect,
    answers_of,
    band,
    effect,
    random_heads,
)
from circuits.interventions.intervention import require_heads
from circuits.metrics import metric_named
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.removal import require, weights_of
from circuits.tuning.head_weights import Changes, changed, learned_changes, tuned_parts
from circuits.tuning.training import Example, Schedule, examples, final_state, shuffled

DRAWS = 5
"""Random sets of heads: each is a training."""


@dataclass(frozen=True)
class Asked:
    """schedule: of every training."""

    schedule: Schedule
    seed: int = 0
    batch_size: int = 64


@dataclass(frozen=True)
class Elsewhere:
    """What the tunings do to one set of prompts. shuffled: of the same heads, taught the answers of other prompts.

    everything: of all heads. control: random heads of the same layers; None where too few are left to draw from.
    """

    prompts: PromptSet
    effect: Effect
    shuffled: Effect
    everything: Effect
    control: Control | None


@dataclass(frozen=True)
class Tuned:
    """n_taught: prompts that were trained on. n_changed: numbers that may differ. parts: the matrices they lie in."""

    heads: tuple[str, ...]
    n_taught: int
    n_changed: int
    changes: Changes
    results: tuple[Elsewhere, ...]
    parts: tuple[str, ...]


class _Judged(NamedTuple):
    prompts: PromptSet
    batches: tuple[Batch, ...]


def tune(
    model: Model,
    heads: tuple[str, ...],
    taught: PromptSet,
    judged: Sequence[PromptSet],
    asked: Asked,
    progress: Progress = silent,
) -> Tuned:
    """Trains `heads` on `taught` and judges them on each of `judged`. Eight trainings, by Adam.

    Raises CircuitError for what is no head, ModelError where the engine does not cover the model.
    """
    require_heads(model.graph, heads)
    if len(taught.pairs) < 2:
        raise PromptError(f"{len(taught.pairs)} {taught.about} are too few to train on. Give 2 or more.")
    batches = make_batches(model, taught.pairs, batch_size=asked.batch_size, names=taught.names)
    sets = [
        _Judged(some, make_batches(model, some.pairs, batch_size=asked.batch_size, names=some.names))
        for some in judged
    ]
    require(model, [*batches, *(batch for some in sets for batch in some.batches)], "Tuning")
    weights, lessons = weights_of(model, batches), examples(batches)

    def learn(named: Sequence[str], lessons: Sequence[Example] = lessons) -> tuple[Weights, Changes]:
        nodes = [model.graph.node(name) for name in named]
        learned = learned_changes(weights, nodes, lessons, asked.schedule, asked.seed, progress)
        return changed(weights, nodes, learned), learned

    own, changes = learn(heads)
    wrong = learn(heads, shuffled(lessons, asked.seed))[0]
    everything = learn(model.graph.heads)[0]
    others = random_heads(model.graph, heads, (), DRAWS, asked.seed)
    rivals = {", ".join(other.values()): learn(tuple(other.values()))[0] for other in others}
    matched = sum(_layers(model, tuple(other.values())) == _layers(model, heads) for other in others)
    results = tuple(
        _elsewhere(some, weights, (own, wrong, everything), rivals, matched, asked.seed) for some in sets
    )
    n_changed = sum(change.numel() for change in changes.values())
    return Tuned(heads, len(taught.pairs), n_changed, changes, results, tuned_parts(weights))


def _layers(model: Model, heads: Sequence[str]) -> list[int]:
    return sorted(model.graph.node(head).layer for head in heads)


def _said(weights: Weights, judged: _Judged) -> Answers:
    def run(batch: Batch) -> object:
        return weights.logits(final_state(weights, Example(batch, batch.answers)))

    return answers_of(judged.batches, metric_named(judged.prompts.metric), run)  # type: ignore[arg-type]


def _elsewhere(
    judged: _Judged,
    weights: Weights,
    tuned: tuple[Weights, Weights, Weights],
    rivals: dict[str, Weights],
    matched: int,
    seed: int,
) -> Elsewhere:
    before = _said(weights, judged)
    own, wrong, everything = (effect(before, _said(other, judged), seed) for other in tuned)
    found = [effect(before, _said(other, judged), seed) for other in rivals.values()]
    control = None
    if rivals:
        bands = (
            band(getattr(own, name).change.value, [getattr(e, name).change.value for e in found])
            for name in ("metric", "correct")
        )
        control = Control("random heads", own.n_prompts, tuple(rivals), matched, *bands)
    return Elsewhere(judged.prompts, own, wrong, everything, control)
