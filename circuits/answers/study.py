"""The study of a model's answers: effects of every node, their table by answer and label, classes, the set, its test.

The one idea: nodes are read and chosen on the discovery half, on the prompts that the model answers rightly, and the
set is judged on all prompts of the other half, and again where those are changed (mutations).
Source: Lieberum et al. 2023 (arXiv 2307.09458).
Cost: on the discovery half six forward passes and one a component; on the judged half, and each change of it, four
and two a set, of which one is the set and 25 are random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circuits.answers.classes import Acting, acting, classes
from circuits.answers.effects import Effects, effects, written
from circuits.answers.joint import Joint, Rows, clearly_positive, joint, patched_in, sets_beside, smallest_set
from circuits.answers.labels import Labels, labels_of, on_right
from circuits.answers.looks import Looks, looks
from circuits.answers.table import Table, answer_table
from circuits.batches import Batch, places, require_single_tokens
from circuits.errors import CircuitError
from circuits.evaluation.faithfulness import Estimate, mean_estimate, ratio_estimate
from circuits.model import Model
from circuits.patching import require_engine
from circuits.progress import Progress, silent

LEAST = 8
"""Prompts that the model must answer rightly in the discovery half."""


@dataclass(frozen=True)
class NodeReading:
    """One node: net logit of the right label that it writes, direct and total effect; class: "" where none fits."""

    name: str
    net: Estimate
    direct: Estimate
    total: Estimate
    kind: str
    in_set: bool


@dataclass(frozen=True)
class Changed:
    """The set on mutated prompts. survives: what it brings there in what it brings unchanged; random: what random
    sets bring there, in the same, on average. None where the set brings nothing clear unchanged."""

    joint: Joint
    survives: Estimate | None
    random: float | None


@dataclass(frozen=True)
class Answers:
    """n, right: discovery prompts, and how many of them are answered rightly, on which nodes were read.

    own: net logit of the right label there. biases: what is written by no node. table: None where labels differ too
    much. chosen: the set, the highest score first. changed: by mutation.
    """

    labels: Labels
    n: int
    right: int
    own: Estimate
    biases: float
    nodes: tuple[NodeReading, ...]
    effects: Effects
    acts: Acting
    table: Table | None
    looks: Looks
    chosen: tuple[str, ...]
    judged: Joint
    changed: dict[str, Changed]


def read_answers(
    model: Model,
    discovery: Sequence[Batch],
    judged: Sequence[Batch],
    changed: Mapping[str, Sequence[Batch]],
    *,
    seed: int,
    progress: Progress = silent,
) -> Answers:
    """changed: the judged prompts under each mutation, in the same order.

    Raises ModelError where the engine does not serve the model; CircuitError where it answers too few prompts.
    """
    every = [*discovery, *judged, *(batch for batches in changed.values() for batch in batches)]
    require_single_tokens(every, "A table of answers")
    require_engine(model, every, "A table of answers")
    solved, n = _solved(model, discovery)
    labels = labels_of(model, solved)
    found = effects(model, solved, labels, progress)
    acts, seen = acting(found.direct, found.total, seed), looks(model, solved)
    table = answer_table(found.net[:, :-1], labels, seed=seed) if labels.tabled else None
    scores = on_right(found.net, labels.right)
    graph, own = model.graph, mean_estimate(found.centred[:, 0], seed)
    chosen = smallest_set(dict(zip(graph.components, scores.mean(0).tolist(), strict=False)))
    heads = {at: graph.heads.index(name) for at, name in enumerate(found.parts) if name in set(graph.heads)}
    kinds = classes(acts, table, heads, seen, own.value)
    sets = sets_beside(model, chosen, seed)
    rows = patched_in(model, judged, sets)
    again: dict[str, Changed] = {}
    for name, batches in changed.items():
        again[name] = _changed(model, batches, sets, rows, seed)
        progress("mutations", len(again), len(changed))
    return Answers(
        labels=labels,
        n=n,
        right=len(scores),
        own=own,
        biases=float(scores[:, -1].mean()),
        nodes=tuple(_nodes(found, scores, kinds, chosen, seed)),
        effects=found,
        acts=acts,
        table=table,
        looks=seen,
        chosen=chosen,
        judged=joint(rows, labels_of(model, judged), judged, seed),
        changed=again,
    )


def _solved(model: Model, batches: Sequence[Batch]) -> tuple[list[Batch], int]:
    """The prompts that the model answers rightly, and how many there were. Raises CircuitError for too few."""
    right = answered(model, batches)
    index = {i for i, yes in zip(places(batches), right, strict=True) if yes}
    if len(index) < LEAST:
        raise CircuitError(
            f"{model.name} answers {len(index)} of {len(right)} prompts rightly, and nodes are read on those alone: "
            f"{LEAST} are needed. Ask for more with --pairs, or choose another model or task."
        )
    return [some for batch in batches if len(some := batch.where(lambda i: i in index))], len(right)


def answered(model: Model, batches: Sequence[Batch]) -> np.ndarray:
    """Whether a right label has the highest logit of all labels, in the order of the prompt set. One pass."""
    labels = labels_of(model, batches)
    logits = np.where(labels.own, written(model, batches, labels.tokens).logits().sum(1), -np.inf)
    best = np.where(labels.right, logits, -np.inf).max(1)
    return np.asarray(best > np.where(labels.right, -np.inf, logits).max(1))


def _nodes(
    found: Effects, scores: np.ndarray, kinds: Sequence[str], chosen: Sequence[str], seed: int
) -> Iterator[NodeReading]:
    for at, name in enumerate(found.parts):
        written_, direct, total = (
            mean_estimate(np.ascontiguousarray(values[:, at]), seed)
            for values in (scores, found.direct, found.total)
        )
        yield NodeReading(name, written_, direct, total, kinds[at], name in chosen)


def _changed(
    model: Model, batches: Sequence[Batch], sets: Sequence[tuple[str, ...]], own: Rows, seed: int
) -> Changed:
    rows = patched_in(model, batches, sets)
    whole, found = own.brought[0], joint(rows, labels_of(model, batches), batches, seed)
    if not clearly_positive(whole, seed):
        return Changed(found, None, None)
    return Changed(found, ratio_estimate(rows.brought[0], whole, seed), found.brought_random / whole.mean())
