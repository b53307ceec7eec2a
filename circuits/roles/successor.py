"""Successor heads: attending to a member of an ordered class, they raise the next one.

Score: share of ordered pairs (Monday, Tuesday) in which the head's OV circuit, fed what the first layer's MLP makes
of the first member, raises the second above all other members of the class that the tokenizer has as one token.
Source: Gould et al. 2023 (Successor Heads, arXiv 2312.09230); the classes are the paper's, with and without a space
before, and more than a half is the paper's cut-off; Roman numerals, which the paper holds out, are one of them here.
Classes of fewer than three tokens are left out, and each has a score and a chance level of its own beside the mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from circuits.batches import continuation
from circuits.engine.weights import Weights
from circuits.model import Model
from circuits.roles.digit_arithmetic import DigitArithmetic, Words, exchange_digits
from circuits.roles.mod_ten import Reading, read_all
from circuits.roles.role import Evidence, Group, Measured, Role
from circuits.roles.writes import raised, through_first_mlp, written

_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_MONTHS = "January February March April May June July August September October November December"
_NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
_ROMAN = "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX"
_LETTERS = " ".join("abcdefghijklmnopqrstuvwxyz")


def _prefixes(words: str) -> str:
    return " ".join(word[:3] for word in words.split())


CLASSES = {
    "numbers": (" ".join(map(str, range(1, 201))), False),
    "number words": (_NUMBERS, False),
    "ordinals": (_ORDINALS, False),
    "days": (_DAYS, True),
    "short days": (_prefixes(_DAYS), True),
    "months": (_MONTHS, True),
    "short months": (_prefixes(_MONTHS), True),
    "capital letters": (_LETTERS.upper(), False),
    "letters": (_LETTERS, False),
    "Roman numerals": (_ROMAN, False),
}
"""Words in order, and whether the last is followed by the first."""


class Ordered(NamedTuple):
    """A class as a tokenizer has it: its tokens, and (column of a token, column of its successor).

    places: of the tokens in the class, from 1.
    """

    tokens: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    name: str
    places: tuple[int, ...]


def ordered_classes(model: Model) -> tuple[Ordered, ...]:
    """The classes of which the tokenizer has three tokens or more, two of them neighbours; each once."""
    found: dict[tuple[int, ...], Ordered] = {}
    for name, (words, cyclic) in CLASSES.items():
        for before, variant in ((" ", name), ("", f"{name} without a space")):
            one = _ordered(model, words.split(), cyclic, before, variant)
            if len(one.tokens) > 2 and one.pairs:
                found.setdefault(one.tokens, one)
    return tuple(found.values())


def _ordered(model: Model, words: Sequence[str], cyclic: bool, before: str, name: str) -> Ordered:
    place = {number: token for number, word in enumerate(words) for token in _single(model, before + word)}
    kept = {number: n for n, number in enumerate(place)}
    steps = ((n, (n + 1) % len(words)) for n in range(len(words) if cyclic else len(words) - 1))
    pairs = tuple((kept[a], kept[b]) for a, b in steps if a in kept and b in kept)
    return Ordered(tuple(place.values()), pairs, name, tuple(number + 1 for number in place))


def _single(model: Model, text: str) -> Iterator[int]:
    """The token that `text` is, where it is one that the vocabulary knows."""
    if text[0] == " ":
        ids: Sequence[int] = continuation(model, "the", text)
    else:
        ids = [t for t, (start, stop) in zip(*model.tokenize(text), strict=True) if stop > start]
    if len(ids) == 1 and not model.is_unknown(ids[0]):
        yield ids[0]


def measure(evidence: Evidence) -> Measured | None:
    classes = ordered_classes(evidence.model)
    if not classes:
        return None
    samples = torch.cat([_succeeds(evidence.weights, one, evidence.model.device) for one in classes])
    sizes = [len(one.tokens) for one in classes for _ in one.pairs]
    chance = sum(1 / n for n in sizes) / len(sizes)
    words = {one.name: _words(evidence, one) for one in classes}
    numbers = next((name for name in words if name.startswith("numbers")), "")
    return Measured(
        samples.float(),
        "pair",
        chance,
        counts=True,
        groups=_groups(classes),
        features=_mod_ten(evidence, words, numbers),
        digits=_exchanged(evidence, words, numbers, samples),
    )


def _words(evidence: Evidence, one: Ordered) -> Words:
    tokens = torch.tensor(one.tokens, device=evidence.model.device)
    return Words(through_first_mlp(evidence.weights, tokens), one.tokens, one.places, one.pairs)


def _mod_ten(evidence: Evidence, words: Mapping[str, Words], numbers: str) -> dict[str, Reading]:
    """Place modulo ten in what the first MLP makes of each class; see circuits.roles.mod_ten."""
    found = {name: (one.vectors.double().cpu().numpy(), np.array(one.places)) for name, one in words.items()}
    return read_all(found, numbers, evidence.seed)


def _exchanged(
    evidence: Evidence, words: Mapping[str, Words], numbers: str, samples: Tensor
) -> DigitArithmetic | None:
    """Digits exchanged before the head that has the role most."""
    graph = evidence.model.graph
    node = graph.node(graph.heads[int(samples.double().mean(0).argmax())])
    return exchange_digits(
        evidence.weights, words, numbers, (node.name, node.layer, node.index), evidence.seed
    )


def _groups(classes: Sequence[Ordered]) -> dict[str, Group]:
    """Each class by itself: chance is one over its tokens."""
    groups, start = {}, 0
    for one in classes:
        groups[one.name] = Group(slice(start, start := start + len(one.pairs)), 1 / len(one.tokens))
    return groups


def _succeeds(weights: Weights, one: Ordered, device: torch.device) -> Tensor:
    """[pair, head]: whether the successor is raised above all others of its class; a tie counts against."""
    tokens = torch.tensor(one.tokens, device=device)
    member, successor = torch.tensor(one.pairs, device=device).unbind(1)
    x = through_first_mlp(weights, tokens[member])
    heads = []
    for depth in range(len(weights.layers)):
        for each in written(weights, depth, x):
            logits = raised(weights, each, tokens)
            heads.append((logits >= logits.gather(1, successor[:, None])).sum(1) == 1)
    return torch.stack(heads, 1)


ROLE = Role(
    name="successor",
    definition="share of ordered pairs (Monday, Tuesday) whose second the OV circuit raises above all of the class",
    paper="Gould et al. 2023, arXiv 2312.09230",
    measure=measure,
    absent="needs numbers, days, months or letters in order, which the tokenizer does not have as one token each",
)
