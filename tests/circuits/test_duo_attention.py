"""DuoAttention: a head that looks far keeps its gate, local ones lose theirs; gates of 0 and 1 are what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from role_network import RoleModel, letter_prompts
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.engine.forward import steps
from circuits.errors import CircuitError, ModelError
from circuits.methods.duo_attention import METHOD, DuoAttentionOptions, pace, score, train
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel
from circuits.streaming import Window, full_outputs, mixed_residual

Tiny = Callable[[str], BridgeModel]


class FarReader(RoleModel):
    """a0.h3 looks from Z to place 3 and writes the token there; all other heads write what stands before, or nothing.

    Even heads see the whole prompt, so those of layer 1 write nothing here.
    """

    name = "far-reader"

    def __init__(self) -> None:
        super().__init__()
        first, second = self.weights.layers
        second.out.weight.zero_()
        width = first.value.weight.shape[1] // 4
        for i in range(1, 27):
            first.value.weight[i, 3 * width + i] = 1
            first.out.weight[3 * width + i, i] = 3


def problem(model: object) -> Problem:
    return Problem(make_batches(model, letter_prompts()), logit_difference)  # type: ignore[arg-type]


def test_the_far_reader_keeps_its_gate_and_all_others_lose_theirs() -> None:
    model = FarReader()
    found = score(
        model, problem(model), DuoAttentionOptions(sink=1, recent=2, steps=100, trials=1, sparsity=0.05)
    )
    assert found.ranking()[0] == "a0.h3"
    assert found.of("a0.h3") > 0.9
    others = [v for c, v in zip(found.components, found.values, strict=True) if c != "a0.h3"]
    assert max(others) < 0.05
    deployed = found.details["deployed"]
    assert isinstance(deployed, dict)
    assert deployed["full_groups"] == 1
    assert deployed["metric"] == pytest.approx(deployed["metric_full"], abs=1e-4)
    apart = [abs(value - deployed["metric_full"]) for value in deployed["metric_random"]]
    assert max(apart) > 1  # wherever another head of the layer is kept instead


def test_open_gates_are_the_model_and_closed_ones_the_same_with_a_masked_pattern(
    covered: str, tiny: Tiny
) -> None:
    """Closed: by a loop over heads and queries in plain torch for the first layer's output; GQA included."""
    weights = tiny(covered).weights
    assert weights is not None
    tokens = torch.arange(2, 18).view(2, 8)
    full, end = full_outputs(weights, tokens)
    *_, last = steps(weights, weights.embed(tokens))
    ones = torch.ones(len(weights.layers), weights.n_kv_heads)
    assert torch.allclose(
        mixed_residual(weights, tokens, full, ones, Window(1, 2)), last.after[:, -1], atol=1e-4
    )
    assert torch.equal(end, last.after[:, -1])
    # A window as long as the prompt hides nothing, so the gates do not matter.
    wide = mixed_residual(weights, tokens, full, 0 * ones, Window(0, 8))
    assert torch.allclose(wide, end, atol=1e-4)
    # One token back, no sinks: of two tokens the last sees all; of three it does not.
    narrow = mixed_residual(weights, tokens, full, 0 * ones, Window(0, 2))
    assert not torch.allclose(narrow, end, atol=1e-4)


def test_what_streaming_hides() -> None:
    hidden = Window(1, 2).hidden(5, torch.device("cpu"))
    assert [row.nonzero()[:, 0].tolist() for row in hidden] == [[], [], [], [1], [1, 2]]


def test_the_gradient_of_a_gate_is_its_finite_difference(tiny: Tiny) -> None:
    weights = tiny("tiny-llama").weights
    assert weights is not None
    tokens = torch.arange(2, 18).view(2, 8)
    full, _ = full_outputs(weights, tokens)

    def value(gates: torch.Tensor) -> torch.Tensor:
        return mixed_residual(weights, tokens, full, gates, Window(1, 2)).sum()

    gates = torch.full((3, 2), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(gates), gates)
    moved = torch.zeros(3, 2)
    moved[1, 1] = 1e-2
    with torch.no_grad():
        difference = (value(gates + moved) - value(gates - moved)) / 2e-2
    assert float(gradient[1, 1]) == pytest.approx(float(difference), rel=1e-2, abs=1e-3)


def test_sparsity_alone_closes_all_gates_and_none_leaves_them(tiny: Tiny) -> None:
    model = tiny("tiny-gpt2")
    asked = Problem(make_batches(model, prompt_pairs(4)), logit_difference)
    open_ = train(model, asked, DuoAttentionOptions(sparsity=0, steps=3))
    assert (open_ > 0.98).all()
    closed = train(model, asked, DuoAttentionOptions(sparsity=1e4, steps=80))
    assert (closed == 0).all()


def test_heads_of_a_group_share_their_gate_and_the_seed_decides(tiny: Tiny) -> None:
    model = tiny("tiny-llama")
    asked = Problem(make_batches(model, prompt_pairs(8)), logit_difference)
    options = DuoAttentionOptions(steps=5, prompts=2, trials=2)
    one, again, other = (score(model, replace(asked, seed=seed), options) for seed in (0, 0, 1))
    assert one.components == model.graph.heads
    grouped = one.samples.reshape(2, 3, 2, 2)
    assert (grouped[..., 0] == grouped[..., 1]).all()
    assert one.samples.tobytes() == again.samples.tobytes() != other.samples.tobytes()
    assert METHOD.work(model, asked, options).work.passes > 0  # type: ignore[union-attr]


def test_the_pace_rises_and_falls_over_a_fifth_each() -> None:
    rates = [pace(step, 100) for step in range(100)]
    assert rates[0] == rates[-1] == pytest.approx(0.1)
    assert rates[20:80] == [1.0] * 60
    assert rates[:21] == sorted(rates[:21])


def test_a_window_that_hides_nothing_and_an_engine_that_is_not_there_are_named(tiny: Tiny) -> None:
    model = tiny("tiny-gpt2")
    asked = Problem(make_batches(model, prompt_pairs(4)), logit_difference)
    with pytest.raises(CircuitError, match=r"longest prompt has \d+ tokens.*smaller duo-attention.recent"):
        score(model, asked, DuoAttentionOptions(recent=30))
    phi = tiny("tiny-phi")
    with pytest.raises(ModelError, match="does not serve tiny-phi"):
        score(phi, Problem(make_batches(phi, prompt_pairs(4)), logit_difference), DuoAttentionOptions())
