"""What the engine knows of a model: its matrices and a few facts, whatever library they came from.

The one idea: GPT-2, NeoX, Llama and their kin differ in norm, position code, gating and head grouping, and in
nothing else that a patch could feel; so one frozen value describes them all. Matrices are views of the loaded
model's own, not copies. The residual stream is fp32 whatever the matrices are; products are taken in their dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import layer_norm, rms_norm

from circuits.engine.products import product

Activation = Callable[[Tensor], Tensor]

PatternRule = Callable[[Tensor], Tensor]
"""Pattern of a layer behind the softmax, [prompt, kv_head, row, query, group, source] -> the one that is used."""


@dataclass(frozen=True)
class Affine:
    """activation(x @ weight + bias), in the dtype of the weight; the result is fp32."""

    weight: Float[Tensor, "d_in d_out"]
    bias: Float[Tensor, "d_out"] | None = None

    def __call__(
        self, x: Float[Tensor, "*rows d_in"], activation: Activation | None = None
    ) -> Float[Tensor, "*rows d_out"]:
        flat = x.reshape(-1, x.shape[-1]).to(self.weight.dtype)
        return (
            product(flat, self.weight, self.bias, activation)
            .view(*x.shape[:-1], self.weight.shape[1])
            .float()
        )


@dataclass(frozen=True)
class Norm:
    """LayerNorm where it centres, else RMSNorm; gain and bias are fp32."""

    gain: Float[Tensor, "width"]
    bias: Float[Tensor, "width"] | None
    eps: float
    centres: bool

    def __call__(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        if self.centres:
            return layer_norm(x, self.gain.shape, self.gain, self.bias, self.eps)
        return rms_norm(x, self.gain.shape, self.gain, self.eps)


@dataclass(frozen=True)
class Layer:
    """One block. query, key, value: d_model -> head * d_head (key and value: kv heads).

    joint: the three side by side, where they lie so in memory (GPT-2). query_norm, key_norm: over d_head, before
    rotation (Qwen3). gate: of a gated MLP. scale: of attention scores. rule: what becomes of the pattern, see
    circuits.engine.patterns.
    """

    attention_norm: Norm
    query: Affine
    key: Affine
    value: Affine
    out: Affine
    mlp_norm: Norm
    mlp_in: Affine
    mlp_out: Affine
    activation: Activation
    scale: float
    gate: Affine | None = None
    joint: Affine | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    rule: PatternRule | None = None


@dataclass(frozen=True)
class Weights:
    """A decoder. parallel: attention and MLP read the same residual. longest: positions for which this holds.

    embed: tokens -> residual stream before layer 0, fp32; positions: what that adds to the tokens' own, if anything.
    rotation: number of positions -> (cos, sin), each [pos, rotated part of d_head], or None where they are embedded.
    """

    layers: tuple[Layer, ...]
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    parallel: bool
    longest: int
    embed: Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch pos d_model"]]
    rotation: Callable[[int], tuple[Tensor, Tensor]] | None
    final_norm: Norm
    unembed: Affine
    positions: Float[Tensor, "pos d_model"] | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.unembed.weight.dtype

    @property
    def vocab_size(self) -> int:
        return self.unembed.weight.shape[1]

    def token_embedding(self, tokens: Int[Tensor, "token"]) -> Float[Tensor, "token d_model"]:
        """What `embed` makes of tokens without their positions."""
        embedded = self.embed(tokens[:, None])[:, 0]
        return embedded if self.positions is None else embedded - self.positions[0].float()

    def logits(
        self, x: Float[Tensor, "*rows d_model"], tokens: Int[Tensor, "token"] | None = None
    ) -> Float[Tensor, "*rows token"]:
        """Logits of the residual stream `x` behind the last layer: of `tokens`, or of the whole vocabulary."""
        if tokens is None:
            return self.unembed(self.final_norm(x))
        bias = self.unembed.bias
        some = Affine(self.unembed.weight[:, tokens].float(), None if bias is None else bias[tokens].float())
        return some(self.final_norm(x))
