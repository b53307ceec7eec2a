"""A transformer of two layers and two heads, written by hand, that answers one of four letters.

A prompt is one token, "a" to "d", and its right letter is A to D. The residual stream holds three blocks of four:
what was asked, what was passed on, and what is answered.
    a0.h0 passes on what was asked                   a1.h0 answers what was passed on, four times
    a0.h1 raises B by two, whatever was asked        a1.h1 lowers the right letter by one
    m0, m1 write nothing
The last norm divides by a million and multiplies by it, whatever stands there.
"""

from __future__ import annotations

import torch
from by_hand import ByHand
from linear_network import NoNorm
from torch import Tensor

from circuits.batches import make_batches
from circuits.engine.weights import Affine, Layer, Norm, Weights
from circuits.graph import Graph
from circuits.prompts import PromptPair

LETTERS, N = "ABCD", 4
WORDS = (*LETTERS, *LETTERS.lower())
ASKED, PASSED, ANSWERED, WIDTH = 0, N, 2 * N, 3 * N


def _block(rows: int, columns: int, factor: float, shape: tuple[int, int]) -> Tensor:
    matrix = torch.zeros(shape)
    matrix[rows : rows + N, columns : columns + N] = factor * torch.eye(N)
    return matrix


def _layer(value: Tensor, out: Tensor, bias: Tensor | None = None) -> Layer:
    nothing, norm = Affine(torch.zeros(WIDTH, 2 * N)), NoNorm(torch.ones(WIDTH), None, 1e-5, False)
    return Layer(
        attention_norm=norm,
        query=nothing,
        key=nothing,
        value=Affine(value, bias),
        out=Affine(out),
        mlp_norm=norm,
        mlp_in=Affine(torch.zeros(WIDTH, WIDTH)),
        mlp_out=Affine(torch.zeros(WIDTH, WIDTH)),
        activation=torch.relu,
        scale=1.0,
    )


def letter_weights() -> Weights:
    wide, high = (WIDTH, 2 * N), (2 * N, WIDTH)
    bias = torch.zeros(2 * N)
    bias[N + LETTERS.index("B")] = 2.0
    first = _layer(_block(ASKED, 0, 1, wide), _block(0, PASSED, 1, high) + _block(N, ANSWERED, 1, high), bias)
    second = _layer(
        _block(PASSED, 0, 1, wide) + _block(ASKED, N, 1, wide),
        _block(0, ANSWERED, 4, high) + _block(N, ANSWERED, -1, high),
    )
    return Weights(
        layers=(first, second),
        n_heads=2,
        n_kv_heads=2,
        d_model=WIDTH,
        d_head=N,
        parallel=False,
        longest=8,
        embed=lambda ids: torch.nn.functional.one_hot(ids - N, WIDTH).float(),
        rotation=None,
        final_norm=Norm(torch.full((WIDTH,), 1e6), None, 1e12, False),
        unembed=Affine(_block(ANSWERED, 0, 1, (WIDTH, 2 * N))),
    )


class LetterModel(ByHand):
    name, graph, d_model = "letters", Graph(2, 2, 2), WIDTH

    def __init__(self) -> None:
        self.weights = letter_weights()

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        words = text.split()
        return [WORDS.index(word) for word in words], [(2 * i, 2 * i + 1) for i in range(len(words))]

    def token_string(self, token: int) -> str:
        return WORDS[token]


def letter_pairs() -> tuple[PromptPair, ...]:
    """Each question beside each other one: 12 pairs, every letter right three times."""
    pairs = [(x, y) for x in LETTERS.lower() for y in LETTERS.lower() if x != y]
    return tuple(
        PromptPair(
            x, y, (f" {x.upper()}",), tuple(f" {z}" for z in LETTERS if z != x.upper()), {"END": (0, 1)}
        )
        for x, y in pairs
    )


def letter_batches(model: LetterModel, batch_size: int = 64):
    return make_batches(model, letter_pairs(), batch_size=batch_size)
