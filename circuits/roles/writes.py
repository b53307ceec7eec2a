"""What a head writes where it attends to one token alone, and which logits that raises: its OV circuit.

The one idea: with attention taken for granted a head is a linear map of the normalised residual stream, W_V W_O,
and through the last norm's gain and the unembedding it raises and lowers tokens. Biases are the same for all
tokens, so they are left out; the norm's scale is positive, so it changes no order.
Source: Elhage et al. 2021 (OV circuits); Wang et al. 2022, section 3.1 (copying by the first five of the vocabulary).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.engine.forward import mlp
from circuits.engine.weights import Affine, Weights

FIRST = 5
"""How many of the vocabulary's logits count as raised most, as in Wang et al. 2022."""

ROUNDING = 1e-5
"""Cosine of what is written and a token's unembedding, under which the token counts as untouched (in float32): a head
that writes where nothing reads would else be ranked by rounding errors."""


def through_first_mlp(weights: Weights, tokens: Int[Tensor, "token"]) -> Float[Tensor, "token d_model"]:
    """What the first MLP, behind its own norm, makes of the tokens' embeddings, without positions."""
    return mlp(weights.layers[0], weights.token_embedding(tokens))


def written(
    weights: Weights, depth: int, x: Float[Tensor, "token d_model"]
) -> Float[Tensor, "head token d_model"]:
    """What each head of a layer writes for the residual stream `x` before that layer."""
    layer = weights.layers[depth]
    v = Affine(layer.value.weight)(replace(layer.attention_norm, bias=None)(x))
    by_head = v.view(len(x), weights.n_kv_heads, -1).repeat_interleave(
        weights.n_heads // weights.n_kv_heads, 1
    )
    writer = layer.out.weight.float().view(weights.n_heads, weights.d_head, -1)
    return torch.einsum("thd,hdm->htm", by_head, writer)


def raised(
    weights: Weights, written: Float[Tensor, "token d_model"], tokens: Int[Tensor, "some"] | None = None
) -> Float[Tensor, "token _"]:
    """Logits that what is written adds, up to a positive factor a row: of `tokens`, or of the whole vocabulary."""
    norm = weights.final_norm
    centred = written - written.mean(-1, keepdim=True) if norm.centres else written
    matrix = weights.unembed.weight if tokens is None else weights.unembed.weight[:, tokens]
    return Affine(matrix)(centred * norm.gain)


def among_first(
    weights: Weights,
    depth: int,
    x: Float[Tensor, "token d_model"],
    tokens: Int[Tensor, "token"],
    sign: int = 1,
) -> Bool[Tensor, "token head"]:
    """Whether each head, attending to x, raises the token beside it to the vocabulary's first five.

    sign: -1 asks for the last five. A tie counts against.
    """
    columns = weights.unembed.weight[:, tokens].float().norm(dim=0)
    smallest = max(ROUNDING, torch.finfo(weights.dtype).eps) * columns
    found = []
    for one in written(weights, depth, x):
        logits = sign * raised(weights, one)
        own = logits.gather(1, tokens[:, None])
        rises = own[:, 0] - logits.mean(1) > smallest * (one * weights.final_norm.gain).norm(dim=1)
        found.append(rises & ((logits >= own).sum(1) <= FIRST))
    return torch.stack(found, 1)


def chance_of_first(weights: Weights) -> float:
    return min(1.0, FIRST / weights.vocab_size)
