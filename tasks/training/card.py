"""The model card: card.json for programs, README.md for readers; both from the same measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.prompts import PromptPair
from tasks import TASKS
from tasks.training.accuracy import held_out_pairs, measure
from tasks.training.attention import links
from tasks.training.effects import kept_alone, named_effects
from tasks.training.judged import FOUR_TASKS, Judged
from tasks.training.network import Network
from tasks.training.polish import Lists, task_effects
from tasks.training.rows import Words

N_ACCURACY = 1000
N_EFFECTS = 128
LARGEST_SHOWN = 6


@dataclass(frozen=True)
class StrictCircuit:
    """The heads that carry a task, by training.

    min_inside, max_outside: the smallest effect of a listed head, the largest of any other; kept_alone: the
    share of the logit difference left when all others are replaced at once; the worst of all `forms`.
    """

    heads: tuple[str, ...]
    forms: tuple[str, ...]
    corruption: str
    min_inside: float
    max_outside: float
    kept_alone: float
    n: int


@dataclass(frozen=True)
class Card:
    """What is known of a trained model. It has no date: the same seed gives the same card.

    stages: stage -> steps. accuracy: task/form -> accuracy and n, full vocabulary, held-out prompts.
    effects: task/form -> the heads with the largest noising effects. attention: task/form -> where those
    heads look, between named positions. circuits: task -> its heads (strict models only).
    """

    name: str
    kind: str
    summary: str
    seed: int
    steps: int
    stages: Mapping[str, int]
    parameters: int
    layers: int
    heads: int
    d_model: int
    context: int
    vocabulary: int
    torch: str
    base: str = ""
    accuracy: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    effects: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    attention: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    circuits: Mapping[str, StrictCircuit] = field(default_factory=dict)


def _judged(words: Words, task: str, form: str) -> list[PromptPair]:
    return held_out_pairs(words, task, form, N_EFFECTS, seed=1)


def _effects(network: Network, words: Words, judged: Judged) -> dict[str, Float[Tensor, "form layer head"]]:
    """Task -> noising effects on held-out pairs, under each of its forms."""
    return {
        task: task_effects(network, words, {form: _judged(words, task, form) for form in forms})
        for task, forms in judged.effects.items()
    }


def _circuits(
    network: Network,
    words: Words,
    forms: Mapping[str, tuple[str, ...]],
    effects: Mapping[str, Float[Tensor, "form layer head"]],
    lists: Lists,
) -> dict[str, StrictCircuit]:
    """The strict lists with the margin between them and all other heads."""
    circuits = {}
    for task, heads in lists.items():
        least = named_effects(effects[task].min(0).values)
        most = named_effects(effects[task].abs().max(0).values)
        kept = min(kept_alone(network, words, _judged(words, task, form), heads) for form in forms[task])
        circuits[task] = StrictCircuit(
            heads=tuple(sorted(heads)),
            forms=forms[task],
            corruption=next(iter(TASKS.load(task).corruptions)),
            min_inside=min(least[head] for head in heads),
            max_outside=max(value for head, value in most.items() if head not in heads),
            kept_alone=round(kept, 4),
            n=N_EFFECTS,
        )
    return circuits


def make_card(
    network: Network,
    *,
    name: str,
    kind: str,
    summary: str,
    seed: int,
    stages: Mapping[str, int],
    base: str = "",
    lists: Lists | None = None,
    words: Words | None = None,
    judged: Judged = FOUR_TASKS,
    n: int = N_ACCURACY,
) -> Card:
    """Measures `network` on held-out prompts and writes down what was found."""
    words, shape = words or Words(), network.shape
    effects = _effects(network, words, judged)
    largest = {
        f"{task}/{form}": dict(list(named_effects(found[i]).items())[:LARGEST_SHOWN])
        for task, found in effects.items()
        for i, form in enumerate(judged.effects[task])
    }
    attention = {
        f"{task}/{form}": links(network, words, _judged(words, task, form), largest[f"{task}/{form}"])
        for task, forms in judged.effects.items()
        for form in forms
    }
    return Card(
        name=name,
        kind=kind,
        summary=summary,
        seed=seed,
        steps=sum(stages.values()),
        stages=dict(stages),
        parameters=sum(w.numel() for w in network.parameters()),
        layers=shape.n_layers,
        heads=shape.n_heads,
        d_model=shape.d_model,
        context=shape.n_ctx,
        vocabulary=network.wte.num_embeddings,
        torch=torch.__version__.split("+")[0],
        base=base,
        accuracy=measure(network, words, judged.accuracy, n, seed=1),
        effects=largest,
        attention=attention,
        circuits=_circuits(network, words, judged.effects, effects, lists) if lists else {},
    )


_README = """# {name}

{summary}. A GPT-2 of {layers} layers x {heads} heads, d_model {d_model}, {parameters:,} parameters, context \
{context}, and a word-level vocabulary of {vocabulary:,} tokens; a word outside it becomes `<unk>`.

    circuit train {name} --output my-{name} --seed {seed}

trains it anew ({steps} steps{base}). The same seed gives the same weights only with the same torch \
({torch}), one thread and the same kind of processor; elsewhere rounding differs, and with it the weights.

## How well it does

Share of held-out prompts after which the most likely word of the whole vocabulary is the answer. {held_out}

| task | form | accuracy | n |
|---|---|---|---|
{accuracy}

## What was learned

The largest single-head noising effects on held-out pairs (n = {n_effects}): the share of the logit \
difference that is lost when the head's output, at all positions, comes from the corrupted run. Beside \
them, where the head looks (mean attention between named positions, from 0.3 up).

| task | form | head | effect | attention |
|---|---|---|---|---|
{effects}
{circuits}
## Limits

It knows the sentences of its tasks and little else: other wordings may fail, and its circuits are those \
of a small model trained for these tasks, not those of a language model. {untrained}
"""
_CIRCUITS = """
Trained strictly: for each task the heads below carry what its corruption changes (MLPs are free). The last \
column is the share of the logit difference left when all other heads are replaced at once.

| task | heads | smallest effect inside | largest outside | kept alone |
|---|---|---|---|---|
{rows}
"""


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _looks(found: Mapping[str, float]) -> str:
    return ", ".join(f"{link.replace('->', ' to ')} {value:.2f}" for link, value in found.items())


def readme(card: Card, judged: Judged = FOUR_TASKS) -> str:
    """The card as Markdown."""
    accuracy = [
        _row(*where.split("/"), f"{100 * found['accuracy']:.1f} %", int(found["n"]))
        for where, found in card.accuracy.items()
    ]
    effects = [
        _row(*where.split("/"), head, f"{value:.2f}", _looks(card.attention[where][head]))
        for where, found in card.effects.items()
        for head, value in found.items()
    ]
    circuits = [
        _row(task, ", ".join(found.heads), found.min_inside, found.max_outside, found.kept_alone)
        for task, found in card.circuits.items()
    ]
    text = asdict(card) | {
        "accuracy": "\n".join(accuracy),
        "effects": "\n".join(effects),
        "circuits": _CIRCUITS.format(rows="\n".join(circuits)) if circuits else "",
        "summary": card.summary[:1].upper() + card.summary[1:],
        "base": f", from the weights of {card.base}" if card.base else "",
        "n_effects": N_EFFECTS,
        "held_out": judged.held_out,
        "untrained": judged.untrained,
    }
    return _README.format(**text)


def save_card(card: Card, folder: Path, judged: Judged = FOUR_TASKS) -> None:
    """Writes card.json and README.md."""
    (folder / "card.json").write_text(json.dumps(asdict(card), indent=2) + "\n")
    (folder / "README.md").write_text(readme(card, judged))
