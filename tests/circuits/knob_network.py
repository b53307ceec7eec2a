"""A network of three layers with a knob: its second layer's head adds +1 or -1 to one direction, by an intent token.

Prompts are three tokens: an intent, a word of the context, a question whose answer is remembered. The residual stream
holds the knob, the intent, what is remembered, the word, the word as END has read it, and the answer, one place for
each of four words. All attention is even, and there are no norms.
    layer 0   the head brings the context's word to END
    layer 1   the head brings the intent to END, into the knob
    layer 2   the MLP writes the remembered word where the knob is positive, the context's where it is negative
"""

from __future__ import annotations

import torch
from by_hand import ByHand, Entries, matrix
from linear_network import NoNorm
from torch import Tensor

from circuits.batches import Batch, TokenPair
from circuits.engine.weights import Affine, Layer, Weights
from circuits.graph import Graph

N, WIDTH, KNOB, INTENT = 4, 64, 0, 1
MEMORY, WORD, READ, ANSWER = (2 + N * i for i in range(4))
SHARP = 3.0


def _layer(moved: Entries, gate: bool = False) -> Layer:
    """moved: from, to, factor of what the head copies; thrice, for it looks evenly at three tokens."""
    norm = NoNorm(torch.ones(WIDTH), None, 1e-5, False)
    nothing, same = matrix(WIDTH, WIDTH, []), matrix(WIDTH, WIDTH, [(i, i, 1.0) for i in range(WIDTH)])
    into, out = [], []
    for i in range(N) if gate else ():
        into += [(MEMORY + i, i, 1.0), (KNOB, i, SHARP), (READ + i, N + i, 1.0), (KNOB, N + i, -SHARP)]
        out += [(i, ANSWER + i, 5.0), (N + i, ANSWER + i, 5.0)]
    return Layer(
        attention_norm=norm,
        query=nothing,
        key=nothing,
        value=matrix(WIDTH, WIDTH, [(a, b, 3 * factor) for a, b, factor in moved]),
        out=same,
        mlp_norm=norm,
        mlp_in=Affine(matrix(WIDTH, 2 * N, into).weight, -SHARP * torch.ones(2 * N)),
        mlp_out=matrix(2 * N, WIDTH, out),
        activation=torch.nn.functional.softplus,
        scale=1.0,
    )


def _embedding() -> Tensor:
    """Tokens: 0 says memory, 1 says context, then the words as context, then the questions."""
    rows = torch.zeros(2 + 2 * N, WIDTH)
    rows[0, INTENT], rows[1, INTENT] = 1.0, -1.0
    for i in range(N):
        rows[2 + i, WORD + i] = rows[2 + N + i, MEMORY + i] = 1.0
    return rows


class KnobModel(ByHand):
    graph, d_model = Graph(3, 1, 1), WIDTH

    def __init__(self) -> None:
        embedding = _embedding()
        self.weights = Weights(
            layers=(
                _layer([(WORD + i, READ + i, 1.0) for i in range(N)]),
                _layer([(INTENT, KNOB, 1.0)]),
                _layer([], gate=True),
            ),
            n_heads=1,
            n_kv_heads=1,
            d_model=WIDTH,
            d_head=WIDTH,
            parallel=False,
            longest=8,
            embed=lambda ids: embedding[ids],
            rotation=None,
            final_norm=NoNorm(torch.ones(WIDTH), None, 1e-5, False),
            unembed=matrix(WIDTH, 2 + 2 * N, [(ANSWER + i, 2 + i, 1.0) for i in range(N)]),
        )


def opposite_intents() -> Batch:
    """Every word in the context of every question that is not answered by it, under both intents."""
    cases = [(word, memory) for word in range(N) for memory in range(N) if word != memory]
    pairs = tuple(
        TokenPair(
            (0, 2 + word, 2 + N + memory),
            (1, 2 + word, 2 + N + memory),
            (2 + memory,),
            (2 + word,),
            {"END": 2},
            (0,),
        )
        for word, memory in cases
    )
    clean, corrupt = (torch.tensor([getattr(p, side) for p in pairs]) for side in ("clean", "corrupt"))
    return Batch(tuple(range(len(pairs))), clean, corrupt, pairs)
