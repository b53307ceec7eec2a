"""Directions that need no training, to set a learned subspace against.

The one idea: each is a frame of orthonormal columns, as a learned one is: what separates clean from corrupt on
average; the main directions of the differences whatever their sign; those along which the logit difference rises;
and random ones, which are the chance level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.metrics import logit_difference
from circuits.subspaces.swaps import Swap

Frame = Float[Tensor, "width rank"]
NOTHING = 1e-4
"""Below this a direction's length is rounding."""


def orthonormal(matrix: Float[Tensor, "width rank"]) -> Frame:
    """The orthonormal columns that span the same, with the signs of the given ones. Differentiable."""
    q, r = torch.linalg.qr(matrix)
    signed: Tensor = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return signed


def spanned(matrix: Float[Tensor, "width column"]) -> Float[Tensor, "width rank"]:
    """Orthonormal columns that span the columns of `matrix`; as many as its rank."""
    found: tuple[Tensor, Tensor, Tensor] = torch.linalg.svd(matrix, full_matrices=False)
    units, lengths, _ = found
    return units[:, lengths > NOTHING * max(1.0, float(lengths.max()))] if matrix.numel() else matrix


def mean_difference(some: Sequence[Swap]) -> Frame:
    """From clean to corrupt, on average: one direction."""
    return orthonormal(_differences(some).mean(0)[:, None])


def main_differences(some: Sequence[Swap], rank: int) -> Frame:
    """The first singular vectors of the differences, not centred: for rank 1 their mean whatever their signs."""
    return _first(_differences(some), rank)


def main_gradients(some: Sequence[Swap], rank: int) -> Frame:
    """The first singular vectors of the gradients of the logit difference at the place, both ways."""
    slopes = []
    for swap in some:
        value = swap.value.clone().requires_grad_()
        total = logit_difference(swap.logits(value[None])[0], swap.right, swap.counterfactual).sum()
        slopes.append(torch.autograd.grad(total, value)[0])
    return _first(torch.cat(slopes), rank)


def random_frames(size: int, rank: int, n: int, seed: int) -> list[Frame]:
    """Uniformly random subspaces."""
    generator = torch.Generator().manual_seed(seed)
    return [orthonormal(torch.randn(size, rank, generator=generator)) for _ in range(n)]


def _differences(some: Sequence[Swap]) -> Float[Tensor, "prompt width"]:
    return torch.cat([swap.difference for swap in some if swap.of_clean])


def _first(rows: Float[Tensor, "prompt width"], rank: int) -> Frame:
    found: Tensor = torch.linalg.svd(rows, full_matrices=False).Vh[:rank]
    return found.T.contiguous()
