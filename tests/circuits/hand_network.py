"""A transformer of two layers and two heads whose numbers are worked out by hand, and the model around its weights.

Its residual stream has four numbers, a b c d; a token t starts it at (t, 0, 0, 0), and prompts have one token, so
that heads attend to it alone:
    a0.h0 writes b += a      a0.h1 writes c += 2a     m0 writes d += b^2
    a1.h0 writes b += 3c     a1.h1 writes nothing     m1 writes a += (b + d)^2
The answer's logit is a + b, the distractor's 0.
    t = 1: b = 1, c = 2, d = 1, then b = 1 + 6 = 7, a = 1 + (7 + 1)^2 = 65; answer 72
    t = 2: b = 2, c = 4, d = 4, then b = 2 + 12 = 14, a = 2 + (14 + 4)^2 = 326; answer 340
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from fake_model import Bare
from linear_network import WIDTH, NoNorm, one_prompt
from torch import Tensor

from circuits.engine.forward import trace
from circuits.engine.weights import Affine, Layer, Weights
from circuits.graph import Graph
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.model import Edit, Resume, Run, Site

A, B, C, D = range(WIDTH)
CLEAN, CORRUPT = 72, 340


def _matrix(*entries: tuple[int, int, float]) -> Affine:
    weight = torch.zeros(WIDTH, WIDTH)
    for source, target, factor in entries:
        weight[source, target] = factor
    return Affine(weight)


def hand_weights() -> Weights:
    """Head 0 carries its value in z's first number, head 1 in its third."""
    norm = NoNorm(torch.ones(WIDTH), None, 1e-5, False)
    alike = {"attention_norm": norm, "mlp_norm": norm, "query": _matrix(), "key": _matrix(), "scale": 1.0}
    first = Layer(
        value=_matrix((A, 0, 1), (A, 2, 2)),
        out=_matrix((0, B, 1), (2, C, 1)),
        mlp_in=_matrix((B, 0, 1)),
        mlp_out=_matrix((0, D, 1)),
        activation=torch.square,
        **alike,
    )
    second = Layer(
        value=_matrix((C, 0, 3)),
        out=_matrix((0, B, 1)),
        mlp_in=_matrix((B, 0, 1), (D, 0, 1)),
        mlp_out=_matrix((0, A, 1)),
        activation=torch.square,
        **alike,
    )
    unembed = torch.zeros(WIDTH, 3)
    unembed[[A, B], 0] = 1
    return Weights(
        layers=(first, second),
        n_heads=2,
        n_kv_heads=2,
        d_model=WIDTH,
        d_head=2,
        parallel=False,
        longest=8,
        embed=lambda ids: torch.nn.functional.pad(ids[..., None].float(), (0, WIDTH - 1)),
        rotation=None,
        final_norm=norm,
        unembed=Affine(unembed),
    )


class HandModel(Bare):
    name, graph, d_model, path = "by-hand", Graph(2, 2, 2), WIDTH, "engine"
    memory = 2**28

    def __init__(self) -> None:
        self.weights = hand_weights()

    def run(
        self,
        tokens: Tensor,
        *,
        capture: Collection[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        resume: Resume | None = None,
    ) -> Run:
        assert not [asked for asked in (capture, edit, resume) if asked], "it only runs"
        return Run(self.weights.logits(trace(self.weights, self.weights.embed(tokens)).after[:, -1]), {})


def hand_problem() -> Problem:
    return Problem((one_prompt(1, 2).batch,), logit_difference)
