"""Rules of layer-wise relevance propagation, as weights that compute the same and pass other gradients on.

The one idea: a gradient says what an infinitesimal change does, and says it badly where norms, gates and activations
bend; each rule takes one of them for linear, as it is at the value that it has. The rules replace what the forward
pass calls, which itself knows nothing of them.
Source: Farnoush Rezaei Jafari et al. 2025 (RelP, arXiv 2508.21258); the rules go back to Ali et al. 2022 (LN, AH),
Arras et al. 2019 (Half) and Jafari et al. 2024 (Identity).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.weights import Activation, Affine, Layer, Norm, Weights

TINY = 1e-6
"""An input so near zero has the ratio of this one, which is the slope there."""


@dataclass(frozen=True)
class Rules:
    """norms keep their scale (LN rule); activations keep the ratio of output to input (Identity rule); a gate and
    what it gates get half of the gradient each (Half rule); attention patterns stay as they are (AH rule)."""

    norms: bool = True
    activations: bool = True
    gates: bool = True
    attention: bool = False

    def __call__(self, weights: Weights) -> Weights:
        """The same forward pass, with gradients by these rules."""
        final = steady(weights.final_norm) if self.norms else weights.final_norm
        return replace(weights, layers=tuple(map(self._layer, weights.layers)), final_norm=final)

    def _layer(self, layer: Layer) -> Layer:
        if self.norms:
            layer = replace(
                layer,
                attention_norm=steady(layer.attention_norm),
                mlp_norm=steady(layer.mlp_norm),
                query_norm=layer.query_norm and steady(layer.query_norm),
                key_norm=layer.key_norm and steady(layer.key_norm),
            )
        if self.activations:
            layer = replace(layer, activation=proportional(layer.activation))
        if self.gates and layer.gate is not None:
            layer = replace(layer, mlp_out=HalfGradient(layer.mlp_out.weight, layer.mlp_out.bias))
        if self.attention:
            query, key = (NoGradient(part.weight, part.bias) for part in (layer.query, layer.key))
            layer = replace(layer, query=query, key=key, joint=None)
        return layer


class SteadyNorm(Norm):
    """Divides by the same scale, whatever changes."""

    def __call__(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        centred = x - x.mean(-1, keepdim=True) if self.centres else x
        scale = (centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt().detach()
        scaled = centred / scale * self.gain
        return scaled if self.bias is None else scaled + self.bias


def steady(norm: Norm) -> Norm:
    return SteadyNorm(norm.gain, norm.bias, norm.eps, norm.centres)


def proportional(activation: Activation) -> Activation:
    """x times activation(x) / x, the ratio held fixed."""

    def held(x: Tensor) -> Tensor:
        away = torch.where(x.abs() < TINY, TINY, x).detach()
        return x * (activation(away) / away)

    return held


class HalfGradient(Affine):
    """What comes in is the product of two factors."""

    def __call__(
        self, x: Float[Tensor, "*rows d_in"], activation: Activation | None = None
    ) -> Float[Tensor, "*rows d_out"]:
        return super().__call__((x + x.detach()) / 2, activation)


class NoGradient(Affine):
    """Queries and keys: without a gradient through them the pattern has none."""

    def __call__(
        self, x: Float[Tensor, "*rows d_in"], activation: Activation | None = None
    ) -> Float[Tensor, "*rows d_out"]:
        return super().__call__(x.detach(), activation)
