"""What a method left out: a planted false negative is pointed at, and bounds hold for exact effects."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping

import numpy as np
import pytest
import torch
from fake_model import Differentiable
from torch import Tensor

from circuits.batches import Batch, TokenPair
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.missed import Missed, bound_missed, effects, memberships, welch_bounds
from circuits.model import Edit, Resume, Run, Site
from circuits.models.bridge import BridgeModel
from circuits.patches import ReplacementOptions
from circuits.scores import Scores
from cli.wording import missed_words

HEADS, SATURATED = 24, 3


class Additive(Differentiable):
    """One layer whose heads put out the token, 1 or 0, and add up with weights; all but one, whose part has no slope
    where the prompt is clean: saturated (1 - (1 - z)^2)."""

    name, graph, d_model = "additive", Graph(1, HEADS, HEADS), 1

    def __init__(self, weights: Tensor, saturated: float = 0.0) -> None:
        self.factors, self.saturated = weights, saturated

    def run(
        self,
        tokens: Tensor,
        *,
        capture: Collection[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        resume: Resume | None = None,
    ) -> Run:
        edits = edit or {}
        z = tokens[..., None, None].expand(-1, -1, HEADS, 1).float().clone()
        z = edits.get(Site("z"), lambda value: value)(z)
        mlp = edits.get(Site("mlp"), lambda value: value)(torch.zeros(*tokens.shape, 1))
        last = z[:, -1, :, 0]
        flat = self.saturated * (1 - (1 - last[:, SATURATED]) ** 2)
        answer = last @ self.factors + flat + 0 * mlp.sum((1, 2))
        logits = torch.stack([answer, torch.zeros_like(answer)], 1)
        return Run(logits, {Site("z"): z, Site("mlp"): mlp})


def _problem(seed: int = 0) -> Problem:
    pair = TokenPair((1,), (0,), (0,), (1,), {}, (0,))
    return Problem((Batch((0,), torch.tensor([[1]]), torch.tensor([[0]]), (pair,)),), logit_difference, seed)


def _scores(model: Additive, problem: Problem) -> Scores:
    method = METHODS.load("attribution-patching")
    return method.score(model, problem, method.configure({"components": "heads"}))


def _missed(model: Additive, kept: Collection[str], n: int = 200, seed: int = 0) -> Missed:
    asked = _problem(seed)
    found = bound_missed(model, asked, _scores(model, asked), tuple(kept), n)
    assert found is not None
    return found


def _weights(seed: int, size: float = 0.05) -> Tensor:
    weights = size * torch.randn(HEADS, generator=torch.Generator().manual_seed(seed))
    weights[0] = 2.0
    weights[SATURATED] = 0.0
    return weights


def test_an_effect_that_the_gradient_does_not_see_is_pointed_at_and_measured() -> None:
    model = Additive(_weights(0), saturated=2.0)
    assert _scores(model, _problem()).of("a0.h3") == pytest.approx(0)
    assert _missed(model, ["a0.h0"]).suspects[0].component == "a0.h3"
    found = _missed(model, ["a0.h0"], 1600)
    (suspect,) = found.suspects
    assert suspect.component == "a0.h3"
    assert suspect.alone == pytest.approx(2)
    assert 2 <= suspect.bound < 2.2
    assert found.whole == pytest.approx(float(_weights(0).sum()) + 2)
    assert "1 may have an effect above" in missed_words(found)
    assert "a0.h3 (at most" in missed_words(found)


def test_with_nothing_missed_nobody_is_suspected() -> None:
    found = _missed(Additive(_weights(0)), ["a0.h0"])
    assert not found.suspects
    assert len(found.bounds) == HEADS - 1
    assert "none has an effect above" in missed_words(found)
    assert json.loads(json.dumps(found.record()))["suspects"] == []


def test_bounds_hold_for_exact_effects_over_seeds_and_no_more_often_than_they_say_by_much() -> None:
    holds, reach = [], []
    for seed in range(30):
        weights = _weights(seed)
        found = _missed(Additive(weights), ["a0.h0"], seed=seed)
        exact = np.abs(weights[1:].numpy())
        holds += (exact <= np.array(list(found.bounds.values())) + 1e-6).tolist()
        reach.append(found.idle)
    assert 0.93 <= np.mean(holds) < 0.995
    assert np.mean(reach) < 0.05


def test_more_subsets_bound_more_tightly() -> None:
    model = Additive(_weights(1))
    few, many = (_missed(model, ["a0.h0"], n).idle for n in (160, 640))
    assert many == pytest.approx(few / 2, rel=0.2)


def test_welch_is_that_of_scipy() -> None:
    from scipy.stats import ttest_ind

    draw = np.random.default_rng(0)
    values, inside = draw.normal(size=40), memberships(40, 3, 0)
    assert inside.sum(0).tolist() == [4, 4, 4]
    bounds, _ = welch_bounds(values, inside)
    for column in range(3):
        where = inside[:, column]
        interval = ttest_ind(values[where], values[~where], equal_var=False).confidence_interval(0.9)
        assert bounds[column] == pytest.approx(max(-interval.low, interval.high))


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_effects_of_single_components_are_those_of_activation_patching(
    gpt2: BridgeModel, problem: Callable[..., Problem], direction: str
) -> None:
    from circuits.donors import all_but_one

    method, asked = METHODS.load("activation-patching"), problem(gpt2)
    exact = method.score(gpt2, asked, method.configure({"direction": direction}))
    keep = all_but_one(gpt2.graph, exact.components)
    options = ReplacementOptions.model_validate({"direction": direction})
    np.testing.assert_allclose(effects(gpt2, asked, options, keep), exact.samples, atol=1e-5)


def test_what_cannot_be_bounded_is_said() -> None:
    model = Additive(_weights(0))
    scores = _scores(model, _problem())
    with pytest.raises(CircuitError, match="39 subsets bound nothing; ask for 40 or more"):
        bound_missed(model, _problem(), scores, (), 39)
    assert bound_missed(model, _problem(), scores, scores.components[1:], 40) is None


def test_suspects_beyond_the_first_ten_are_not_measured() -> None:
    """As many for as against, so that the whole is small beside each."""
    weights = torch.tensor([4.0, -4.0]).repeat(HEADS // 2)
    weights[0] = 6.0
    found = _missed(Additive(weights), ["a0.h0"])
    alone = [one.alone for one in found.suspects]
    assert len(alone) == HEADS - 1
    assert [abs(value or 0) for value in alone[:10]] == pytest.approx([4.0] * 10)
    assert alone[10:] == [None] * (HEADS - 11)
    assert "and 18 more" in missed_words(found)
