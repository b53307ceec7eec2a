"""A head as two maps of the residual stream: OV, what it makes of what it attends to, and QK, what it attends to.

The one idea: each is a d_model x d_model matrix of rank d_head at most, so it is never formed: two thin factors give
its singular value decomposition through two small QR decompositions. What a norm does that is linear (gain, and
taking off the mean) is folded in; what it divides by, and biases, are left out.
Source: Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.weights import Norm, Weights
from circuits.errors import ModelError
from circuits.model import Model


@dataclass(frozen=True)
class Thin:
    """left @ diag(size) @ right for every head of a layer; singular values from large to small, in float64."""

    left: Float[Tensor, "head d_model rank"]
    size: Float[Tensor, "head rank"]
    right: Float[Tensor, "head rank d_model"]

    @property
    def transposed(self) -> Thin:
        return Thin(self.right.mT, self.size, self.left.mT)

    @property
    def norm(self) -> Float[Tensor, "head"]:
        """Frobenius."""
        return self.size.pow(2).sum(-1).sqrt()


def thin(a: Float[Tensor, "head d_model inner"], b: Float[Tensor, "head inner d_model"]) -> Thin:
    """The decomposition of a @ b."""
    (q_a, r_a), (q_b, r_b) = torch.linalg.qr(a.double()), torch.linalg.qr(b.double().mT)
    left, size, right = torch.linalg.svd(r_a @ r_b.mT)
    return Thin(q_a @ left, size, right @ q_b.mT)


def read_ov(weights: Weights, depth: int) -> Thin:
    """What each head of a layer writes for what it attends to: a norm, W_V W_O, and behind it another norm."""
    layer = weights.layers[depth]
    value = _by_head(folded(layer.attention_norm, layer.value.weight), weights)
    writer = layer.out.weight.double().view(weights.n_heads, weights.d_head, -1)
    centres = weights.final_norm.centres
    return thin(value, writer - writer.mean(-1, keepdim=True) if centres else writer)


def read_qk(weights: Weights, depth: int) -> Thin | None:
    """W_Q W_K^T of each head, the query's stream on the left: of what is not rotated, for the rest has no fixed map.

    None where nothing is left, or where queries and keys are normalised.
    """
    layer = weights.layers[depth]
    turned = 0 if weights.rotation is None else weights.rotation(1)[0].shape[-1]
    if layer.query_norm is not None or turned >= weights.d_head:
        return None
    fold = partial(folded, layer.attention_norm)
    query, key = (_by_head(fold(part.weight), weights)[..., turned:] for part in (layer.query, layer.key))
    return thin(query, key.mT)


def folded(norm: Norm, matrix: Float[Tensor, "d_model out"]) -> Float[Tensor, "d_model out"]:
    """What reads through `norm`, as a map of the stream before it; its scale is left out."""
    scaled = norm.gain.double()[:, None] * matrix.double()
    return scaled - scaled.mean(0) if norm.centres else scaled


def _by_head(matrix: Float[Tensor, "d_model out"], weights: Weights) -> Float[Tensor, "head d_model d_head"]:
    """Heads of a group share their keys and values."""
    split = matrix.view(len(matrix), -1, weights.d_head).transpose(0, 1)
    return split.repeat_interleave(weights.n_heads // len(split), 0)


def require_weights(model: Model, what: str) -> Weights:
    """Raises ModelError where the engine, by which matrices are known, does not cover the model."""
    if model.weights is None:
        raise ModelError(
            f"{what} reads matrices off the exact engine, which does not serve {model.name} ({model.path}). "
            "Choose another model."
        )
    return model.weights
