"""A network of MLPs alone, without norms or bends, whose effects are computed by hand.

Its residual stream has four numbers. A token t starts it at (t, 0, 0, 0); what MLPs write is given by matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from circuits.batches import Batch, TokenPair
from circuits.engine.weights import Affine, Layer, Norm, Weights
from circuits.metrics import logit_difference
from circuits.readout import Readout

WIDTH = 4


class NoNorm(Norm):
    def __call__(self, x: Tensor) -> Tensor:
        return x


def network(mlps: Sequence[Sequence[tuple[int, int, float]]], answer: Sequence[float]) -> Weights:
    """mlps: for each layer, (from, to, factor) of what its MLP carries; answer: how the answer's logit reads."""
    nothing, identity = Affine(torch.zeros(WIDTH, WIDTH)), Affine(torch.eye(WIDTH))
    norm = NoNorm(torch.ones(WIDTH), None, 1e-5, False)
    layers = []
    for carried in mlps:
        weight = torch.zeros(WIDTH, WIDTH)
        for source, target, factor in carried:
            weight[source, target] = factor
        attention = {"query": nothing, "key": nothing, "value": nothing, "out": nothing}
        layers.append(
            Layer(
                attention_norm=norm,
                mlp_norm=norm,
                mlp_in=identity,
                mlp_out=Affine(weight),
                activation=lambda x: x,
                scale=1.0,
                **attention,
            )
        )
    unembed = torch.zeros(WIDTH, 2)
    unembed[:, 0] = torch.tensor(answer)
    return Weights(
        layers=tuple(layers),
        n_heads=1,
        n_kv_heads=1,
        d_model=WIDTH,
        d_head=WIDTH,
        parallel=False,
        longest=8,
        embed=lambda ids: torch.nn.functional.pad(ids[..., None].float(), (0, WIDTH - 1)),
        rotation=None,
        final_norm=norm,
        unembed=Affine(unembed),
    )


def one_prompt(clean: int, corrupt: int) -> Readout:
    """Token 0 is the answer, token 1 the distractor."""
    pair = TokenPair((clean,), (corrupt,), (0,), (1,), {}, (corrupt,))
    return Readout(Batch((0,), torch.tensor([[clean]]), torch.tensor([[corrupt]]), (pair,)), logit_difference)
