"""The sparse autoencoder that turns a head's output into one of a few discrete codes.

The one idea: one small dictionary for all heads together, trained on ten examples, and the index of the
strongest feature as the code of a head on a prompt. O'Neill and Bui 2024 (arXiv 2405.12522), with the
choices of their code, github.com/charlieoneill11/sae-circuits:

    c = ReLU(W_e (x - b) + b_e)        x^ = W_d c + b
    loss = mean (x^ - x)^2 + l1 * mean over examples and heads of ||c||_1

b is shared and starts at zero; W_e and W_d are separate. Each is scaled to unit norm over its LAST dim at
every forward pass (for W_e that is each feature; for W_d each residual dimension, not each dictionary atom),
and the part of the gradient along a row is removed. Adam, full batch, no resampling of dead features.

The gradients are written out: five matrix products an epoch, and the tests hold them to autograd.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import linear, normalize

from circuits.errors import RunFolderError

TENSORS = ("encoder", "encoder_bias", "decoder", "bias")


@dataclass(frozen=True)
class Settings:
    """How a dictionary is trained. The paper's l1: 0.02 for IOI and greater-than, 0.05 for docstring."""

    features: int = 200
    l1: float = 0.02
    learning_rate: float = 1e-3
    epochs: int = 500


@dataclass(frozen=True)
class SparseAutoencoder:
    """encoder and decoder have unit norm over their last dim; bias is taken off before and put on after."""

    encoder: Float[Tensor, "features d_model"]
    encoder_bias: Float[Tensor, "features"]
    decoder: Float[Tensor, "d_model features"]
    bias: Float[Tensor, "d_model"]

    def activations(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows features"]:
        """Feature activations, never negative."""
        return linear(x - self.bias, self.encoder, self.encoder_bias).relu()

    def reconstruct(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        return linear(self.activations(x), self.decoder, self.bias)

    def loss(self, x: Float[Tensor, "*rows d_model"], l1: float) -> Float[Tensor, ""]:
        """Mean squared error over all elements, plus l1 times the mean size of a row's activations."""
        return (self.reconstruct(x) - x).pow(2).mean() + l1 * self.activations(x).sum(-1).mean()

    def tensors(self) -> dict[str, np.ndarray]:
        """The four tensors by name, on the CPU, as a run folder keeps them."""
        return {name: getattr(self, name).cpu().numpy() for name in TENSORS}


def untrained(d_model: int, features: int, generator: torch.Generator) -> SparseAutoencoder:
    """The dictionary before training: Gaussian rows of unit norm, uniform encoder bias, zero shared bias.

    generator: on the CPU, so that a seed means the same on every device.
    """
    encoder = normalize(torch.randn(features, d_model, generator=generator), dim=-1)
    decoder = normalize(torch.randn(d_model, features, generator=generator), dim=-1)
    bound = 1 / math.sqrt(d_model)
    encoder_bias = torch.empty(features).uniform_(-bound, bound, generator=generator)
    return SparseAutoencoder(encoder, encoder_bias, decoder, torch.zeros(d_model))


def _across(
    gradient: Float[Tensor, "row column"], unit: Float[Tensor, "row column"]
) -> Float[Tensor, "row column"]:
    """The gradient less its part along each row of unit norm."""
    return gradient - (gradient * unit).sum(-1, keepdim=True) * unit


def gradients(
    sae: SparseAutoencoder, x: Float[Tensor, "row d_model"], l1: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of the loss for (encoder, encoder_bias, decoder, bias), what runs along unit rows removed."""
    centred = x - sae.bias
    active = linear(centred, sae.encoder, sae.encoder_bias).relu_()
    error = linear(active, sae.decoder, sae.bias).sub_(x).mul_(2 / x.numel())
    decoder = _across(error.T @ active, sae.decoder)
    # Both the L1 term and the ReLU have no slope where a feature is silent.
    inward = (error @ sae.decoder).add_(l1 / len(x)).mul_(active.sign_())
    encoder = _across(inward.T @ centred, sae.encoder)
    encoder_bias = inward.sum(0)
    return encoder, encoder_bias, decoder, error.sum(0) - encoder_bias @ sae.encoder


def _to_unit_norm(*weights: Tensor) -> None:
    for weight in weights:
        weight.div_(weight.norm(dim=-1, keepdim=True).clamp_min_(1e-12))


@torch.no_grad()
def train(
    start: SparseAutoencoder, x: Float[Tensor, "*rows d_model"], settings: Settings
) -> SparseAutoencoder:
    """`start` after settings.epochs full-batch steps of Adam on the rows of x, where x lies and in fp32.

    Nothing here is random: on a CPU the same start and rows give the same bytes.
    """
    rows = x.reshape(-1, x.shape[-1]).float()
    parameters = [getattr(start, name).to(rows.device, copy=True) for name in TENSORS]
    sae = SparseAutoencoder(*parameters)
    adam = torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
    for _ in range(settings.epochs):
        for parameter, gradient in zip(parameters, gradients(sae, rows, settings.l1), strict=True):
            parameter.grad = gradient
        adam.step()
        _to_unit_norm(sae.encoder, sae.decoder)
    for parameter in parameters:
        parameter.grad = None
    return sae


@torch.no_grad()
def encode(
    sae: SparseAutoencoder, x: Float[Tensor, "example head d_model"]
) -> Int[np.ndarray, "example head"]:
    """The code of every vector: its strongest feature, the first of equals; 0 where no feature is active."""
    sae = SparseAutoencoder(*(getattr(sae, name).to(x.device) for name in TENSORS))
    blocks = (x[start : start + 64] for start in range(0, len(x), 64))
    return np.asarray(torch.cat([sae.activations(block).argmax(-1) for block in blocks]).cpu())


def from_tensors(tensors: Mapping[str, np.ndarray]) -> SparseAutoencoder:
    """The dictionary whose `tensors()` these are."""
    return SparseAutoencoder(*(torch.from_numpy(np.array(tensors[name])) for name in TENSORS))


def save(sae: SparseAutoencoder, path: Path, settings: Settings) -> None:
    """Writes a safetensors file whose header holds the settings; equal values give equal bytes."""
    tensors = {name: getattr(sae, name).cpu().contiguous() for name in TENSORS}
    # One key only: safetensors writes several in no fixed order.
    save_file(tensors, path, metadata={"settings": json.dumps(asdict(settings), sort_keys=True)})


def load(path: Path) -> tuple[SparseAutoencoder, Settings | None]:
    """The dictionary in a safetensors file, and its settings (None where the header holds none).

    Raises RunFolderError for a file that is missing, damaged or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("settings")
            sae = SparseAutoencoder(*(file.get_tensor(name) for name in TENSORS))
        return sae, Settings(**json.loads(header)) if header else None
    except Exception as error:
        raise RunFolderError(f"{path} holds no sparse autoencoder: {error}") from None
