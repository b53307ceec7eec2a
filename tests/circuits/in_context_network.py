"""A transformer of three layers, written by hand, that learns in context, a phase in each layer; and its prompts.

Texts are letters of two classes, A to D and E to H; the forerunner is ":". All heads fall back on <bos>.
    a0.h0 looks at the token before: s_i knows x_i          a1.h0 does too: y_i knows what s_i knows
    a2.h0 looks from a class to labels that know it         every other head writes nothing
Where nothing is found, "foo" is a little likelier than "bar".
"""

from __future__ import annotations

import random

import torch
from by_hand import Entries, WordModel, matrix
from linear_network import NoNorm
from torch import Tensor

from circuits.engine.weights import Affine, Layer, Weights
from circuits.graph import Graph
from circuits.prompts import PromptPair

TEXTS, LABELS = "ABCDEFGH", ("foo", "bar")
WORDS = ("<bos>", *TEXTS, ":", *LABELS, "<unk>")
N, PLACES, HEADS, SHARP, SINK = len(WORDS), 16, 2, 60.0, 20.0
KNOWN = len(TEXTS) + 2  # each text, then its class
PLACE, SUMMARY, MERGED = N, N + PLACES, N + PLACES + KNOWN
D_MODEL = N + PLACES + 2 * KNOWN


def _layer(query: Entries, key: Entries, value: Entries, out: Entries) -> Layer:
    """Of the first head; heads are as wide as the model. The last number of keys is that of <bos>."""
    wide, norm = HEADS * D_MODEL, NoNorm(torch.ones(D_MODEL), None, 1e-5, False)
    sink = [(PLACE + i, D_MODEL - 1, SINK) for i in range(PLACES)]
    return Layer(
        attention_norm=norm,
        query=matrix(D_MODEL, wide, [*query, *sink]),
        key=matrix(D_MODEL, wide, [*key, (0, D_MODEL - 1, 1.0)]),
        value=matrix(D_MODEL, wide, value),
        out=matrix(wide, D_MODEL, out),
        mlp_norm=norm,
        mlp_in=matrix(D_MODEL, 1, ()),
        mlp_out=matrix(1, D_MODEL, ()),
        activation=torch.relu,
        scale=1.0,
    )


def _layers() -> tuple[Layer, ...]:
    texts = [(1 + i, i, 1.0) for i in range(len(TEXTS))]
    classes = [(1 + i, len(TEXTS) + i // 4, 1.0) for i in range(len(TEXTS))]
    here = [(PLACE + i, i, SHARP) for i in range(PLACES)]
    next_to = [(PLACE + i, i + 1, 1.0) for i in range(PLACES - 1)]
    labels = [(WORDS.index(word), WORDS.index(word), 1.0) for word in LABELS]
    class_at = [len(TEXTS), len(TEXTS) + 1]
    return (
        _layer(here, next_to, [*texts, *classes], [(i, SUMMARY + i, 1.0) for i in range(KNOWN)]),
        _layer(
            here,
            next_to,
            [(SUMMARY + i, i, 1.0) for i in range(KNOWN)],
            [(i, MERGED + i, 1.0) for i in range(KNOWN)],
        ),
        _layer(
            [(SUMMARY + i, i, SHARP) for i in class_at],
            [(MERGED + i, i, 1.0) for i in class_at],
            labels,
            labels,
        ),
    )


def in_context_weights() -> Weights:
    positions = torch.nn.functional.pad(torch.eye(PLACES), (PLACE, D_MODEL - PLACE - PLACES))

    def embed(ids: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(ids, D_MODEL).float() + positions[: ids.shape[1]]

    bias = torch.zeros(N)
    bias[WORDS.index("foo")] = 0.1
    return Weights(
        layers=_layers(),
        n_heads=HEADS,
        n_kv_heads=HEADS,
        d_model=D_MODEL,
        d_head=D_MODEL,
        parallel=False,
        longest=PLACES,
        embed=embed,
        rotation=None,
        final_norm=NoNorm(torch.ones(D_MODEL), None, 1e-5, False),
        unembed=Affine(torch.eye(D_MODEL, N), bias),
        positions=positions,
    )


class InContextModel(WordModel):
    """Reads the letters and labels; whatever else is one unknown word."""

    graph, d_model, words = Graph(3, HEADS, HEADS), D_MODEL, WORDS

    def __init__(self) -> None:
        self.weights = in_context_weights()


def letter_examples(n: int, seed: int = 0) -> tuple[PromptPair, ...]:
    """Two examples of each class in random order, called foo and bar either way round; both answers n / 2 times."""
    rng = random.Random(seed)
    return tuple(_example(rng, LABELS if i % 2 else LABELS[::-1]) for i in range(n))


def _example(rng: random.Random, answer_then_other: tuple[str, ...]) -> PromptPair:
    classes = rng.sample(["ABCD", "EFGH"], 2)
    (*shown, asked), others = rng.sample(classes[0], 3), rng.sample(classes[1], 3)
    right, wrong = answer_then_other
    rows = [f"{text} : {right}" for text in shown] + [f"{text} : {wrong}" for text in others[:2]]
    text = " ".join(rng.sample(rows, 4))
    return PromptPair(
        f"{text} {asked} :", f"{text} {others[2]} :", (f" {right}",), (f" {wrong}",), template=classes[0]
    )
