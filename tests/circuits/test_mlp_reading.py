"""MLPs as heads and a vector: planted numbers come back, and effects equal runs in which the part is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits.methods.method import Problem
from circuits.metrics import Tokens, logit_difference
from circuits.mlp_reading.outputs import last_outputs, with_mlp
from circuits.mlp_reading.overconfidence import FACTORS, read_last_layer
from circuits.mlp_reading.reading import read_mlps
from circuits.mlp_reading.regression import fit, regress
from circuits.model import Site
from circuits.models.bridge import BridgeModel
from circuits.readout import Readout

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]


def _planted(noise: float, n: int = 40, heads: int = 5, d: int = 32) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((n, heads, d)) + 3, np.linspace(-1.5, 2, heads), rng.standard_normal(d)
    return a, np.einsum("nhd,h->nd", a, b) + c + noise * rng.standard_normal((n, d)), b, c


def test_planted_numbers_and_the_task_vector_are_recovered() -> None:
    a, y, b, c = _planted(0.01)
    found = fit(a, y)
    assert np.abs(found.heads - b).max() < 0.01
    assert np.abs(found.task - c).max() < 0.05
    assert found.r2(a, y) > 0.999
    by_rows = np.linalg.lstsq(
        (a - a.mean(0)).transpose(0, 2, 1).reshape(-1, 5), (y - y.mean(0)).reshape(-1), rcond=None
    )
    np.testing.assert_allclose(found.heads, by_rows[0], atol=1e-8)
    assert found.condition == pytest.approx(by_rows[3][0] / by_rows[3][-1], rel=1e-6)


def test_a_regression_stands_beside_its_chance_level() -> None:
    a, y, b, _ = _planted(0.5)
    found = regress(a[:20], y[:20], a[20:], y[20:], seed=0)
    assert ((found.low < b) & (b < found.high)).sum() >= 4
    assert found.low[0] < found.high[0] < 0 < found.low[-1], "the first is erased, the last amplified"
    assert found.r2_low < found.r2 < found.r2_high
    assert found.r2 > 0.9 > 0.4 > max(found.shuffled)
    assert max(found.by_ridge, key=lambda ridge: found.by_ridge[ridge]) == 1e-3


def test_heads_that_say_the_same_get_the_smallest_solution() -> None:
    a, y, *_ = _planted(0.0, heads=2)
    found = fit(np.concatenate([a, a[:, :1]], 1), y)
    assert found.heads[0] == pytest.approx(found.heads[2])
    assert found.condition > 1e6


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-neox", "tiny-mixtral"])
def test_outputs_are_what_the_model_writes(family: str, tiny: Tiny, problem: MakeProblem) -> None:
    """Heads of a layer, their bias and its MLP are what the residual stream gains."""
    model = tiny(family)
    batches = problem(model).batches
    outputs, layer = last_outputs(model, batches), 1
    heads, _ = outputs.below(model, layer)
    assert len(heads) == (4 if model.graph.parallel else 8)
    gained = []
    for batch in batches:
        seen = model.run(batch.clean, capture=[Site("input", 1), Site("input", 2)]).captured
        gained.append((seen[Site("input", 2)] - seen[Site("input", 1)])[:, -1])
    written = outputs.heads[:, 4:8].sum(1) + outputs.mlps[:, 1] + model.head_writer(1)[1].numpy()
    np.testing.assert_allclose(written, torch.cat(gained).numpy(), atol=1e-4)
    own = with_mlp(model, batches, logit_difference, 1, None)
    same = with_mlp(model, batches, logit_difference, 1, outputs.mlps[:, 1])
    torch.testing.assert_close(own.metric, same.metric, atol=1e-4, rtol=0)
    without = with_mlp(model, batches, logit_difference, 1, np.zeros_like(outputs.mlps[:, 1]))
    assert (without.metric - own.metric).abs().max() > 0.01


def test_readings_state_every_replacement(gpt2: BridgeModel, problem: MakeProblem) -> None:
    fitted, judged = problem(gpt2, 20).batches, problem(gpt2, 10, seed=1).batches
    (reading,) = read_mlps(gpt2, fitted, judged, logit_difference, [2], seed=0)
    assert reading.mlp == "m2"
    assert reading.heads == gpt2.graph.heads
    assert set(reading.answered) == {"own", "fit", "without-task", "task-alone", "mean", "nothing"}
    fitted_to = last_outputs(gpt2, fitted).mlps[:, 2].mean(0)
    np.testing.assert_allclose(reading.regression.fit.mean, fitted_to)
    assert len(reading.tokens) == 5


def test_effects_of_the_last_layer_are_those_of_its_absence(gpt2: BridgeModel, problem: MakeProblem) -> None:
    """Nothing reads the last MLP, so its direct effect is that of a run without it."""
    batches = problem(gpt2).batches
    text = [batches[0].corrupt[:, :6]]
    found = read_last_layer(gpt2, batches, batches, text, seed=0)
    assert [part.name for part in found.parts] == ["a2.h0", "a2.h1", "a2.h2", "a2.h3", "m2"]
    effects = []
    for batch in batches:
        whole, without = (
            Readout(batch, lambda logits, answers, _: _said(logits, answers))
            .of_all(run.logits[None])
            .metric[0]
            for run in (gpt2.run(batch.clean), gpt2.run(batch.clean, edit={Site("mlp", 2): torch.zeros_like}))
        )
        effects.append(whole - without)
    assert found.parts[-1].effect.value == pytest.approx(float(torch.cat(effects).mean()), abs=1e-4)
    assert set(found.by_factor) == set(FACTORS)
    assert found.judged["none"].divergence.value == pytest.approx(0, abs=1e-6)
    assert set(found.scaled) == {part.name for part in found.parts if part.effect.high < 0}
    assert found.by_factor[found.chosen] == max(found.by_factor.values())


def test_what_lowers_the_answer_is_scaled_down_and_judged(gpt2: BridgeModel, problem: MakeProblem) -> None:
    """Answers are made those that the last MLP lowers most."""
    batches, read = problem(gpt2).batches, gpt2.unembedding()
    lowered, start = [], 0
    written = torch.from_numpy(last_outputs(gpt2, batches).mlps[:, 2]).float()
    for batch in batches:
        tokens = (written[start : start + len(batch)] @ read.weight).argmin(-1).tolist()
        start += len(batch)
        pairs = (replace(pair, answers=(token,)) for pair, token in zip(batch.pairs, tokens, strict=True))
        lowered.append(replace(batch, pairs=tuple(pairs)))
    found = read_last_layer(gpt2, lowered, lowered, [batches[0].corrupt[:, :6]], seed=0)
    assert "m2" in found.scaled
    assert found.chosen < 1
    none, done = found.judged["none"], found.judged["suppressors"]
    assert done.probability.value > none.probability.value
    assert done.divergence.value > 0


def _said(logits: torch.Tensor, answers: Tokens) -> torch.Tensor:
    said = logits.log_softmax(-1)
    return torch.stack([said[..., n, ids[0]] for n, ids in enumerate(answers)], -1)
