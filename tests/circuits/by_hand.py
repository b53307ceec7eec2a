"""What networks written by hand share: matrices by their entries, a model that the engine runs, a reader of words."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from fake_model import Bare

from circuits.engine.weights import Affine
from circuits.model import Run

Entries = Iterable[tuple[int, int, float]]
"""Row, column, value; whatever is not named is 0."""


def matrix(rows: int, columns: int, entries: Entries) -> Affine:
    weight = torch.zeros(rows, columns)
    for row, column, factor in entries:
        weight[row, column] = factor
    return Affine(weight)


class ByHand(Bare):
    """Its weights are all that there is: the engine runs it, and nothing else does."""

    name, path, memory = "by-hand", "engine", 2**28

    def run(self, *args: object, **options: object) -> Run:
        raise NotImplementedError


class WordModel(ByHand):
    """Reads words between spaces behind the first of `words`; whatever else is the last of them, the unknown one."""

    words: tuple[str, ...]

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids, spans, at = [0], [(0, 0)], 0
        for word in text.split():
            at = text.index(word, at)
            ids.append(self.words.index(word) if word in self.words else len(self.words) - 1)
            spans.append((at, at := at + len(word)))
        return ids, spans

    def token_string(self, token: int) -> str:
        return self.words[token]

    def is_unknown(self, token: int) -> bool:
        return token == len(self.words) - 1
