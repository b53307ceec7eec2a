"""x @ W + b, by the fastest exact product that this machine has.

The one idea: torch's own fp32 product on x86 is MKL's, which runs at half the rate of oneDNN on processors that are
not Intel's; torch ships both. So rows enough to matter go to oneDNN, the activation behind them in the same pass.
The choice hangs on shapes and the machine's kind alone, never on timing: the same run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

FEW_ROWS = 48
"""Below this many rows the call itself costs more than it saves."""


class Fused(NamedTuple):
    """How oneDNN spells an activation."""

    name: str
    numbers: tuple[float, ...] = ()
    algorithm: str = ""


NOTHING = Fused("none")


def product(
    x: Float[Tensor, "row d_in"],
    weight: Float[Tensor, "d_in d_out"],
    bias: Float[Tensor, "d_out"] | None,
    activation: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "row d_out"]:
    """activation(x @ weight + bias), in the dtype of x."""
    if _suits_onednn(x, weight):
        if x.requires_grad:
            return _activated(_Differentiable.apply(x, weight, bias), activation)  # type: ignore[no-untyped-call]
        fused = _fused(activation)
        y = _onednn(x, weight, bias, fused or NOTHING)
        return y if fused else _activated(y, activation)
    return _activated(x @ weight if bias is None else torch.addmm(bias, x, weight), activation)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Fused = NOTHING) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight.T, bias, *activation)
    return y


class _Differentiable(torch.autograd.Function):
    """The gradient of a product is another one: weights are frozen, so only x takes a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = slopes
        return _onednn(slope.contiguous(), ctx.weight.T, None), None, None


def _activated(y: Tensor, activation: Callable[[Tensor], Tensor] | None) -> Tensor:
    return y if activation is None else activation(y)


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and len(x) >= FEW_ROWS
        and not weight.requires_grad  # its backward pass knows no gradient of weights
        and (weight.is_contiguous() or weight.T.is_contiguous())  # else oneDNN takes its slow reference path
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _fused(activation: Any) -> Fused | None:
    """None where oneDNN has no such activation."""
    if activation is None:
        return NOTHING
    if isinstance(activation, torch.nn.GELU):
        return Fused("gelu", (), activation.approximate)
    if isinstance(activation, torch.nn.SiLU) or type(activation).__name__ == "SiLUActivation":
        return Fused("swish", (1.0,))
    if type(activation).__name__ == "GELUActivation" and activation.act is torch.nn.functional.gelu:
        return Fused("gelu", (), "none")
    return Fused("relu") if isinstance(activation, torch.nn.ReLU) else None
