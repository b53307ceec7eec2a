"""Where the last token looks: at the right label, at all labels, at what the prompt is about, at the prompt's end.

The one idea: the classes of heads are told apart by what they write and by where they look, and where a label stands
can be read off any prompt: the last token spelled like it. The end is what all prompts have in common there, such as
"Answer:". Chance is even attention over all tokens that the last one sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

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
    """Mean attention of each head from the last token; chance: what even attention gives to the same tokens.

    right, labels: at the right label, at all of them. evenness: entropy over the labels, 1 where all get alike.
    None where labels stand in no prompt. end: at the common end. content: None where no position has such a name.
    """

    right: Float[np.ndarray, "head"] | None
    labels: Float[np.ndarray, "head"] | None
    evenness: Float[np.ndarray, "head"] | None
    end: Float[np.ndarray, "head"]
    content: Float[np.ndarray, "head"] | None
    chance: dict[str, float]


def looks(model: Model, batches: Sequence[Batch]) -> Looks:
    """One forward pass, and queries and keys a second time."""
    paid = _paid(model, batches)
    pairs = {i: pair for batch in batches for i, pair in zip(batch.index, batch.pairs, strict=True)}
    rows = [pair for _, pair in sorted(pairs.items())]
    places = [label_places(model, pair) for pair in rows]
    end = common_end(rows)
    named = [[pair.positions[name] for name in CONTENT if name in pair.positions] for pair in rows]
    at: dict[str, list[list[int]]] = {
        "end": [list(range(len(pair.clean) - end, len(pair.clean))) for pair in rows],
        "right": []
        if None in places
        else [p[: len(pair.answers)] for p, pair in zip(places, rows, strict=True) if p],
        "labels": [] if None in places else [p for p in places if p],
        "content": named if all(named) else [],
    }
    means = {name: _mean_at(paid, some) for name, some in at.items() if some}
    chance = {
        name: float(np.mean([len(set(p)) / len(pair.clean) for p, pair in zip(some, rows, strict=True)]))
        for name, some in at.items()
        if some
    }
    evenness = _evenness(paid, at["labels"]) if at["labels"] else None
    return Looks(
        means.get("right"), means.get("labels"), evenness, means["end"], means.get("content"), chance
    )


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


def label_places(model: Reader, pair: TokenPair) -> list[int] | None:
    """Where the prompt's labels stand, answers first: the last token spelled so, in capitals or not.

    None where one of them stands nowhere.
    """
    spell = cache(lambda token: model.token_string(token).strip())
    found = []
    for token in (*pair.answers, *pair.distractors):
        exact = [i for i, other in enumerate(pair.clean) if spell(other) == spell(token)]
        alike = [i for i, other in enumerate(pair.clean) if spell(other).lower() == spell(token).lower()]
        if not alike:
            return None
        found.append((exact or alike)[-1])
    return found


def common_end(rows: Sequence[TokenPair]) -> int:
    """How many last tokens all prompts have in common: one at least, the last, whatever it is."""
    shortest = min(len(pair.clean) for pair in rows)
    ends = zip(*(pair.clean[: -shortest - 1 : -1] for pair in rows), strict=True)
    same = [len(set(tokens)) == 1 for tokens in ends]
    return max(1, same.index(False) if False in same else shortest)
