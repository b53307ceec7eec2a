"""Products: oneDNN's, with and without an activation behind them, beside torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.activations import ACT2FN

from circuits.engine import products
from circuits.engine.products import FEW_ROWS, product


@pytest.fixture(params=["rows of weights", "columns of weights", "a part of them"])
def weight(request: pytest.FixtureRequest) -> Tensor:
    """As Conv1D, as Linear, and as GPT-2's queries lie in memory: [d_in, d_out]."""
    torch.manual_seed(0)
    return {
        "rows of weights": torch.randn(24, 40),
        "columns of weights": torch.randn(40, 24).T,
        "a part of them": torch.randn(24, 120)[:, 40:80],
    }[request.param]


@pytest.mark.parametrize("n", [0, 1, FEW_ROWS, 200])
@pytest.mark.parametrize(
    "activation", [None, "gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "relu", "tanh"]
)
@pytest.mark.parametrize("biased", [True, False])
def test_every_product_is_torchs_own(weight: Tensor, n: int, activation: str | None, biased: bool) -> None:
    x, bias = torch.randn(n, 24), torch.randn(40) if biased else None
    act = ACT2FN[activation] if activation else None
    expected = x @ weight + (bias if bias is not None else 0)
    expected = act(expected) if act else expected
    torch.testing.assert_close(product(x, weight, bias, act), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 200])
def test_gradients_are_torchs_own_as_often_as_they_are_asked_for(weight: Tensor, n: int) -> None:
    x, bias = torch.randn(n, 24, requires_grad=True), torch.randn(40)
    act = ACT2FN["gelu_new"]
    slopes = torch.randn(n, 40)
    (expected,) = torch.autograd.grad(act(x @ weight + bias), x, slopes)
    y = product(x, weight, bias, act)
    for _ in range(2):
        (given,) = torch.autograd.grad(y, x, slopes, retain_graph=True)
        torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


def test_parts_of_a_matrix_and_few_rows_are_left_to_torch() -> None:
    """There oneDNN is slow: hundreds of times for the first, some for the second."""
    x, whole = torch.randn(FEW_ROWS, 24), torch.randn(24, 120)
    assert products._suits_onednn(x, whole)
    assert not products._suits_onednn(x, whole[:, :40])
    assert not products._suits_onednn(x[1:], whole)
    assert not products._suits_onednn(x.bfloat16(), whole.bfloat16())
