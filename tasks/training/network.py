"""GPT-2 in plain torch, as small as training needs it, and how its weights start.

The one idea: the same function as Hugging Face's GPT2LMHeadModel (a test holds them together), with query,
key and value matrices apart, so that the optimiser sees each by itself, and with head outputs open to edits.

What the start is for: positions are sinusoids in a random basis; numbers carry their Fourier features;
head 0.0 attends to the previous token, without which binding a colour to its thing is learned from some seeds
only. A recipe may have further heads of the first layer begin as heads that look so many tokens back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

Edit = Callable[[int, Tensor], Tensor]
"""(layer, z [batch, pos, head, d_head]) -> the z that passes instead."""

PERIODS = (2.5, 5, 10, 20, 50, 100, 200, 400)
EMBEDDING_SCALE = 0.1
NUMBER_NORM = 0.8
PREVIOUS_TOKEN_GAIN = 3.5
PREVIOUS_TOKEN_FREQUENCIES = tuple(range(0, 32, 4))


@dataclass(frozen=True)
class Shape:
    """How large the model is; the MLP is four times d_model wide, embeddings are tied."""

    n_layers: int
    n_heads: int = 8
    d_model: int = 128
    n_ctx: int = 128

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads


class Block(nn.Module):
    """One layer: attention, then the MLP, each behind its LayerNorm."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        d = shape.d_model
        self.layer, self.n_heads = layer, shape.n_heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query, self.key, self.value, self.out = (nn.Linear(d, d) for _ in range(4))
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor, edit: Edit | None = None) -> Tensor:
        batch, pos, d = x.shape
        normed = self.ln_1(x)
        q, k, v = (
            part(normed).view(batch, pos, self.n_heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        z = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        if edit is not None:
            z = edit(self.layer, z)
        x = x + self.out(z.reshape(batch, pos, d))
        hidden: Tensor = functional.gelu(self.up(self.ln_2(x)), approximate="tanh")
        written: Tensor = self.down(hidden)
        return x + written


class Network(nn.Module):
    """A GPT-2 with tied embeddings."""

    def __init__(self, shape: Shape, n_vocab: int) -> None:
        super().__init__()
        self.shape = shape
        self.wte = nn.Embedding(n_vocab, shape.d_model)
        self.wpe = nn.Embedding(shape.n_ctx, shape.d_model)
        self.blocks = nn.ModuleList([Block(shape, layer) for layer in range(shape.n_layers)])
        self.ln_f = nn.LayerNorm(shape.d_model)

    def forward(
        self, tokens: Int[Tensor, "batch pos"], *, offset: int = 0, edit: Edit | None = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """The normalised residual stream behind each token; `logits` turns it into words.

        offset: the position that the first token is said to have.
        """
        places = torch.arange(offset, offset + tokens.shape[1])
        x = self.wte(tokens) + self.wpe(places)
        for block in self.blocks:
            x = block(x, edit)
        normed: Tensor = self.ln_f(x)
        return normed

    def logits(self, hidden: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        return hidden @ self.wte.weight.T


def _basis(d: int, generator: torch.Generator) -> Tensor:
    """A random orthonormal basis [d, d]."""
    basis: Tensor = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    return basis


def _frequencies(d_model: int) -> Tensor:
    """d_model/2 angles a position, from 2.5 radians down to 1/50."""
    n = d_model // 2
    return 2.5 * (1 / 125) ** (torch.arange(n) / (n - 1))


def _sinusoids(shape: Shape) -> Float[Tensor, "pos d_model"]:
    angle = torch.arange(shape.n_ctx)[:, None] * _frequencies(shape.d_model)[None]
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def number_features(n: int) -> Float[Tensor, "number feature"]:
    """A line and the sines and cosines of PERIODS, for 0..n-1; all of like size."""
    value = torch.arange(n)[:, None]
    angle = 2 * math.pi * value / torch.tensor(PERIODS)[None]
    return torch.cat([2 * value / (n - 1) - 1, angle.sin(), angle.cos()], 1)


def _looks_back(block: Block, head: int, steps: int, basis: Tensor, shape: Shape) -> None:
    """The head scores a key by how well its position, `steps` further, fits the query's."""
    angles = _frequencies(shape.d_model) * steps
    for pair, index in enumerate(PREVIOUS_TOKEN_FREQUENCIES[: shape.d_head // 2]):
        first = head * shape.d_head + 2 * pair
        rows = slice(first, first + 2)
        plane = basis[2 * index : 2 * index + 2] * PREVIOUS_TOKEN_GAIN
        c, s = math.cos(float(angles[index])), math.sin(float(angles[index]))
        # (sin, cos) of position p turned back: (sin, cos) of p - steps.
        back = torch.tensor([[c, -s], [s, c]])
        block.key.weight[rows] = plane
        block.query.weight[rows] = back @ plane


@torch.no_grad()
def start(network: Network, numbers: range, seed: int, back: Sequence[int] = (1,)) -> None:
    """Sets every weight from `seed`. numbers: the ids of the tokens "0", "1", ...

    back: how many tokens back heads 0.0, 0.1, ... look at first.
    """
    shape, generator = network.shape, torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            weight.zero_()
        elif weight.ndim == 2:
            weight.normal_(std=weight.shape[1] ** -0.5, generator=generator)
    for block in network.blocks:
        for writer in (block.out, block.down):
            assert isinstance(writer, nn.Linear)
            writer.weight.mul_((2 * shape.n_layers) ** -0.5)
    network.wte.weight.normal_(std=EMBEDDING_SCALE, generator=generator)
    features = number_features(len(numbers)) @ _basis(shape.d_model, generator)[: 1 + 2 * len(PERIODS)]
    median = network.wte.weight.norm(dim=1).median()
    network.wte.weight[numbers.start : numbers.stop] = (
        features * NUMBER_NORM * median / features.norm(dim=1).median()
    )
    basis = _basis(shape.d_model, generator)
    network.wpe.weight.copy_(EMBEDDING_SCALE * _sinusoids(shape) @ basis)
    taken = basis[[i for p in PREVIOUS_TOKEN_FREQUENCIES[: shape.d_head // 2] for i in (2 * p, 2 * p + 1)]]
    network.wte.weight.sub_(network.wte.weight @ taken.T @ taken)
    first = network.blocks[0]
    assert isinstance(first, Block)
    for head, steps in enumerate(back):
        _looks_back(first, head, steps, basis, shape)
