"""Arithmetic with mod-10 features: a word's last digit is exchanged, and a successor head answers for the other.

The one idea: if what a successor head reads of a word is its class and its place modulo ten, then taking the feature
of one digit away and adding another's makes 23 into 27, and the head must say 28; also in classes that the features
were not taken from.
Source: Gould et al. 2023 (Successor Heads, arXiv 2312.09230), who add k times features of a sparse autoencoder to
MLP0(E(t)). **Ours:** a feature is the mean of the numbers with that digit less the mean of all numbers; k is the one
of STEPS that moves most numbers, and is judged on the other classes; chance is random directions of the same norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.engine.weights import Weights
from circuits.roles.mod_ten import DRAWS, TEN
from circuits.roles.writes import raised, written

STEPS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""k, in features."""


class Words(NamedTuple):
    """A class: what the first MLP makes of its words, their tokens, places from 1, and (column, its successor's)."""

    vectors: Float[Tensor, "word d_model"]
    tokens: tuple[int, ...]
    places: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]


class Moved(NamedTuple):
    """Of n exchanges of a digit in a class: the share that the head answers with the other's successor; the same with
    random directions, on average."""

    n: int
    share: float
    random: float


class DigitArithmetic(NamedTuple):
    """classes: the numbers, on which k was chosen, first."""

    head: str
    k: float
    classes: Mapping[str, Moved]


def exchange_digits(
    weights: Weights, classes: Mapping[str, Words], numbers: str, head: tuple[str, int, int], seed: int
) -> DigitArithmetic | None:
    """head: name, layer and index of the successor head. None where two decades of numbers are not there."""
    known = classes.get(numbers)
    if known is None or len(known.tokens) < 2 * TEN:
        return None
    features = digit_features(known)
    draw = torch.Generator().manual_seed(seed)
    shape = (DRAWS, *features.shape)
    random = torch.nn.functional.normalize(torch.randn(shape, generator=draw), dim=-1).to(features)
    random = random * features.norm(dim=-1, keepdim=True)

    def share(words: Words, moves: Tensor, of: Tensor, k: float) -> float:
        return _answers(weights, words, moves, of, k, head[1:])

    among = exchanges(known)
    k = max(STEPS, key=lambda step: share(known, among, features, step))
    found = {}
    for name, words in sorted(classes.items(), key=lambda one: one[0] != numbers):
        if len(moves := exchanges(words)):
            by_chance = [share(words, moves, of, k) for of in random]
            found[name] = Moved(len(moves), share(words, moves, features, k), float(np.mean(by_chance)))
    return DigitArithmetic(head[0], k, found)


def digit_features(numbers: Words) -> Float[Tensor, "digit d_model"]:
    """The mean of the words with each digit, less that of all."""
    digits = torch.tensor(numbers.places) % TEN
    mean = numbers.vectors.mean(0)
    return torch.stack([numbers.vectors[digits == digit].mean(0) - mean for digit in range(TEN)])


def exchanges(words: Words) -> Int[Tensor, "exchange 4"]:
    """Every word and other digit of its decade that make a word with a successor: column of the word, its digit, the
    other one, column of the answer."""
    column = {place: n for n, place in enumerate(words.places)}
    successor = dict(words.pairs)
    found: list[Sequence[int]] = []
    for place, n in column.items():
        digit = place % TEN
        others = ((other, column.get(place - digit + other)) for other in range(TEN) if other != digit)
        found += [(n, digit, other, successor[there]) for other, there in others if there in successor]
    return torch.tensor(found, dtype=torch.long).view(-1, 4)


def _answers(
    weights: Weights, words: Words, moves: Tensor, features: Tensor, k: float, head: tuple[int, int]
) -> float:
    """Share of the exchanges whose answer the head raises above all others of the class; a tie counts against."""
    layer, index = head
    device = words.vectors.device
    word, digit, other, answer = moves.to(device).unbind(1)
    x = words.vectors[word] + k * (features[other] - features[digit])
    tokens = torch.tensor(words.tokens, device=device)
    logits = raised(weights, written(weights, layer, x)[index], tokens)
    return float(((logits >= logits.gather(1, answer[:, None])).sum(1) == 1).double().mean())
