"""A transformer of two layers and four heads, written by hand, in which every head has a known role.

Its residual stream holds three blocks: which token stands here, at which place, and which token stood before.
    a0.h0 previous token (writes it into the third block)     a1.h0 induction
    a0.h1 duplicate token                                     a1.h1 looks evenly, writes the token: copying
    a0.h2 looks evenly, writes nothing                        a1.h2 looks evenly, writes the next letter: successor
    a0.h3 from Z to place 3                                   a1.h3 from Z to A to E, writes them negated
    m0 writes the token once more                             m1 writes nothing
"""

from __future__ import annotations

import torch
from by_hand import Entries, WordModel, matrix
from linear_network import NoNorm
from torch import Tensor

from circuits.batches import make_batches
from circuits.engine.weights import Layer, Weights
from circuits.graph import Graph
from circuits.prompts import PromptPair
from circuits.roles.role import Evidence

WORDS = ("<bos>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "<unk>")
N, PLACES, HEADS, SHARP = len(WORDS), 24, 4, 40.0
TOKEN, PLACE, BEFORE = 0, N, N + PLACES
D_MODEL, D_HEAD = 2 * N + PLACES, N + PLACES


def _into(head: int, entries: Entries) -> Entries:
    return [(row, head * D_HEAD + column, factor) for row, column, factor in entries]


def _out_of(head: int, entries: Entries) -> Entries:
    return [(head * D_HEAD + row, column, factor) for row, column, factor in entries]


def _same(start: int, n: int, factor: float = 1.0) -> Entries:
    return [(start + i, i, factor) for i in range(n)]


def _layer(query: Entries, key: Entries, value: Entries, out: Entries, mlp_writes: float) -> Layer:
    wide = HEADS * D_HEAD
    norm = NoNorm(torch.ones(D_MODEL), None, 1e-5, False)
    return Layer(
        attention_norm=norm,
        query=matrix(D_MODEL, wide, query),
        key=matrix(D_MODEL, wide, key),
        value=matrix(D_MODEL, wide, value),
        out=matrix(wide, D_MODEL, out),
        mlp_norm=norm,
        mlp_in=matrix(D_MODEL, N, _same(TOKEN, N)),
        mlp_out=matrix(N, D_MODEL, [(i, TOKEN + i, mlp_writes) for i in range(N)]),
        activation=torch.relu,
        scale=1.0,
    )


def _first() -> Layer:
    z = WORDS.index("Z")
    itself = [(PLACE + i, N + i, -2 * SHARP) for i in range(PLACES)]
    return _layer(
        query=[
            *_into(0, _same(PLACE, PLACES, SHARP)),
            *_into(1, [*_same(TOKEN, N, SHARP), *itself]),
            *_into(3, [(TOKEN + z, 0, SHARP)]),
        ],
        key=[
            *_into(0, [(PLACE + i, i + 1, 1.0) for i in range(PLACES - 1)]),
            *_into(1, [*_same(TOKEN, N), *((PLACE + i, N + i, 1.0) for i in range(PLACES))]),
            *_into(3, [(PLACE + 3, 0, 1.0)]),
        ],
        value=_into(0, _same(TOKEN, N)),
        out=_out_of(0, [(i, BEFORE + i, 1.0) for i in range(N)]),
        mlp_writes=1.0,
    )


def _second() -> Layer:
    z = WORDS.index("Z")
    letters = range(1, N - 2)
    return _layer(
        query=[*_into(0, _same(TOKEN, N, SHARP)), *_into(3, [(TOKEN + z, 0, SHARP)])],
        key=[*_into(0, _same(BEFORE, N)), *_into(3, [(TOKEN + i, 0, 1.0) for i in range(1, 6)])],
        value=[entry for head in (1, 2, 3) for entry in _into(head, _same(TOKEN, N))],
        out=[
            *_out_of(1, [(i, TOKEN + i, 1.0) for i in range(N)]),
            *_out_of(2, [(i, TOKEN + i + 1, 1.0) for i in letters]),
            *_out_of(3, [(i, TOKEN + i, -1.0) for i in range(N)]),
        ],
        mlp_writes=0.0,
    )


def _positions() -> Tensor:
    return torch.nn.functional.pad(torch.eye(PLACES), (PLACE, D_MODEL - PLACE - PLACES))


def role_weights() -> Weights:
    positions = _positions()

    def embed(ids: Tensor) -> Tensor:
        tokens = torch.nn.functional.one_hot(ids, D_MODEL).float()
        return tokens + positions[: ids.shape[1]]

    return Weights(
        layers=(_first(), _second()),
        n_heads=HEADS,
        n_kv_heads=HEADS,
        d_model=D_MODEL,
        d_head=D_HEAD,
        parallel=False,
        longest=PLACES,
        embed=embed,
        rotation=None,
        final_norm=NoNorm(torch.ones(D_MODEL), None, 1e-5, False),
        unembed=matrix(D_MODEL, N, _same(TOKEN, N)),
        positions=positions,
    )


class RoleModel(WordModel):
    """Reads capital letters; whatever else is one unknown word."""

    graph, d_model, words = Graph(2, HEADS, HEADS), D_MODEL, WORDS

    def __init__(self) -> None:
        self.weights = role_weights()


def letter_prompts() -> tuple[PromptPair, ...]:
    """<bos> IO S1 S2 and then letters that are no names, up to Z; S2 is also what is asked for."""
    spans = {"IO": (0, 1), "S1": (2, 3), "S2": (4, 5), "ASKED": (4, 5)}
    rows = (("A", "B", "K L"), ("C", "A", "M N"), ("E", "D", "P Q"), ("B", "E", "T F"))
    return tuple(
        PromptPair(f"{io} {s} {s} {rest} Z", f"{io} {s} {io} {rest} Z", (f" {io}",), (f" {s}",), spans)
        for io, s, rest in rows
    )


def role_evidence(seed: int = 0) -> Evidence:
    model = RoleModel()
    return Evidence(model, make_batches(model, letter_prompts()), "letters", seed)
