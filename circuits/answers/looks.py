"""Where the last token looks: at the right label, at all labels, at what the prompt is about, at the prompt's end.

The one idea: the classes of heads are told apart by what they write and by where they look, and where a label stands
can be read off any prompt: the last token spelled like it. The end is what all prompts have in common there, such as
"Answer:". Chance is even attention over all tokens that the last one sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from circuits.answers.labels import in_order
from circuits.batches import Batch, TokenPair
from circuits.model import Model, Reader
from circuits.removal import weights_of
from circuits.roles.attention import patterns

CONTENT = ("OPTION", "OBJECT", "ASKED", "SUBJECT")
"""Positions of what a prompt is about, as tasks name them."""


@dataclass(frozen=True)
class Looks:
    """attention: mean over prompts of what each head gives from the last token to the tokens of a name: right (the
    right label), labels (all of them), content (what the prompt is about), end (what all prompts end in); a name is
    missing where no prompt has the tokens. chance: what even attention gives them. evenness: entropy over the labels,
    1 where all get alike.
    """

    attention: dict[str, Float[np.ndarray, "head"]]
    chance: dict[str, float]
    evenness: Float[np.ndarray, "head"] | None


def looks(model: Model, batches: Sequence[Batch]) -> Looks:
    """One forward pass, and queries and keys a second time."""
    pairs = {i: pair for batch in batches for i, pair in zip(batch.index, batch.pairs, strict=True)}
    rows = [pair for _, pair in sorted(pairs.items())]
    paid, at = _paid(model, batches), _tokens(model, rows)
    lengths = [len(pair.clean) for pair in rows]
    return Looks(
        {name: _mean_at(paid, some) for name, some in at.items()},
        {
            name: float(np.mean([len(set(p)) / n for p, n in zip(some, lengths, strict=True)]))
            for name, some in at.items()
        },
        _evenness(paid, at["labels"]) if "labels" in at else None,
    )


def _tokens(model: Reader, rows: Sequence[TokenPair]) -> dict[str, list[list[int]]]:
    """The tokens of each name, prompt by prompt; of those that all prompts have."""
    named = [[pair.positions[name] for name in CONTENT if name in pair.positions] for pair in rows]
    labels, end = [label_places(model, pair) for pair in rows], common_end(rows)
    found = {
        "right": [places[: len(pair.answers)] for places, pair in zip(labels, rows, strict=True)],
        "labels": labels,
        "content": named,
        "end": [list(range(len(pair.clean) - end, len(pair.clean))) for pair in rows],
    }
    return {name: some for name, some in found.items() if all(some)}


def _paid(model: Model, batches: Sequence[Batch]) -> list[Float[np.ndarray, "head source"]]:
    """The last token's attention, prompt by prompt."""
    weights, longest = weights_of(model, batches), max(batch.clean.shape[1] for batch in batches)
    parts = []
    with torch.inference_mode():
        for batch in batches:
            last = torch.cat([seen.pattern[:, :, -1] for seen in patterns(weights, batch.clean)], 1)
            parts.append(torch.nn.functional.pad(last, (0, longest - last.shape[2])))
    return list(in_order(batches, parts))


def _mean_at(paid: list[np.ndarray], places: list[list[int]]) -> Float[np.ndarray, "head"]:
    rows = [row[:, sorted(set(at))].sum(1) for row, at in zip(paid, places, strict=True)]
    return np.asarray(np.mean(rows, axis=0))


def _evenness(paid: list[np.ndarray], places: list[list[int]]) -> Float[np.ndarray, "head"]:
    found = []
    for row, at in zip(paid, places, strict=True):
        shares = row[:, at] / np.maximum(row[:, at].sum(1, keepdims=True), 1e-30)
        found.append(-(shares * np.log(np.maximum(shares, 1e-30))).sum(1) / np.log(len(at)))
    return np.asarray(np.mean(found, axis=0))


def label_places(model: Reader, pair: TokenPair) -> list[int]:
    """Where the prompt's labels stand, answers first: the last token spelled so, in capitals or not.

    None at all where one of them stands nowhere.
    """
    spelled = [model.token_string(token).strip() for token in pair.clean]
    found = []
    for token in (*pair.answers, *pair.distractors):
        label = model.token_string(token).strip()
        exact = [i for i, other in enumerate(spelled) if other == label]
        alike = [i for i, other in enumerate(spelled) if other.lower() == label.lower()]
        found += (exact or alike)[-1:]
    return found if len(found) == len(pair.answers) + len(pair.distractors) else []


def common_end(rows: Sequence[TokenPair]) -> int:
    """How many last tokens all prompts have in common: one at least, the last, whatever it is."""
    shortest = min(len(pair.clean) for pair in rows)
    ends = zip(*(pair.clean[: -shortest - 1 : -1] for pair in rows), strict=True)
    same = [len(set(tokens)) == 1 for tokens in ends]
    return max(1, same.index(False) if False in same else shortest)
