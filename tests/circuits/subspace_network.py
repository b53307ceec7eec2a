"""Networks of one MLP whose hidden activations are worked out by hand: one whose subspace is an illusion, one not.

The residual stream is (x, 0, 0, 0) with x = 1 for clean and -1 for corrupt prompts of one token; the logits are x and
0, so token 0 is right after clean prompts and token 1 after corrupt ones, by a logit difference of 1 each.
    dormant: h = (x, 0, 0 ...), of which only h_2 is written, to x, times 2. Nothing of h differs that is read; along
        (1, 1) / sqrt(2) a patch moves h_2 by half of what x differs by, so the answer turns around.
    genuine: h = (x, 0, 0 ...), and h_1 is written, to x, times 1: there half of the logit comes from. h_2 to h_4 are
        written where nobody looks, so that the row space is no single direction.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from fake_model import Bare
from linear_network import NoNorm, network
from torch import Tensor

from circuits.batches import Batch, TokenPair
from circuits.engine.weights import Affine, Weights
from circuits.graph import Graph
from circuits.model import Run

HIDDEN, WIDTH = 32, 4


def one_mlp(written: int, factor: float) -> Weights:
    base = network([()], answer=(1.0, 0.0, 0.0, 0.0))
    into, out = torch.zeros(WIDTH, HIDDEN), torch.zeros(HIDDEN, WIDTH)
    into[0, 0], out[written, 0] = 1.0, factor
    if written == 0:
        out[[1, 2, 3], [1, 2, 3]] = 1.0
    (layer,) = base.layers
    return replace(
        base,
        layers=(replace(layer, mlp_in=Affine(into), mlp_out=Affine(out)),),
        embed=lambda ids: torch.nn.functional.pad(2.0 * ids[..., None].float() - 1, (0, WIDTH - 1)),
        final_norm=NoNorm(torch.ones(WIDTH), None, 1e-5, False),
    )


DORMANT, GENUINE = one_mlp(1, 2.0), one_mlp(0, 1.0)


class OneLayer(Bare):
    name, graph, d_model, path, memory = "by-hand", Graph(1, 1, 1), WIDTH, "engine", 2**28

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def run(self, *args: object, **options: object) -> Run:
        raise NotImplementedError


def signs(n: int) -> Batch:
    """n pairs, alike."""
    pair = TokenPair((1,), (0,), (0,), (1,), {"END": 0}, (0,))
    clean: Tensor = torch.ones(n, 1, dtype=torch.long)
    return Batch(tuple(range(n)), clean, 1 - clean, (pair,) * n)
