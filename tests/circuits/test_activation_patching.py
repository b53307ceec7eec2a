"""Activation patching on a model so small that every effect is computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from micro_model import Micro, micro_problem
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.errors import CircuitError
from circuits.methods.activation_patching import METHOD
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.model import Model
from circuits.models.bridge import BridgeModel
from circuits.scores import Scores


def _score(model: Model, problem: Problem, **options: object) -> Scores:
    return METHOD.score(model, problem, METHOD.configure(options))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # a0.h0 becomes 3 in place of 2: 1 + (3 - 4 + 12) = 12, so the effect is 7 - 12.
        ({}, [-5, -2, -10]),
        # a0.h0 becomes 2 in place of 3: 1 + (2 - 6 + 12) = 9, so the effect is 9 - 16.
        ({"direction": "denoising"}, [-7, -4, -10]),
        # Without a0.h0 the MLP is silent too: (0 - 2) + (0 - 4) = -6, so the effect is 7 + 6.
        ({"ablation": "zero"}, [13, 4, 10]),
        # The means over clean and corrupt are z0 = 2.5, z1 = 5 and mlp = 13 at the second position.
        ({"ablation": "mean"}, [-2.5, -1, -5]),
    ],
)
def test_effects_computed_by_hand(options: dict[str, object], expected: list[float]) -> None:
    scores = _score(Micro(), micro_problem(), **options)
    assert scores.components == ("a0.h0", "a0.h1", "m0")
    np.testing.assert_allclose(scores.samples, [expected], atol=1e-6)
    assert scores.by_position == {}


def test_effects_by_position_computed_by_hand() -> None:
    scores = _score(Micro(), micro_problem(), ablation="zero", positions="every")
    np.testing.assert_allclose(scores.by_position["0"], [3, 0, 2], atol=1e-6)
    np.testing.assert_allclose(scores.by_position["1"], [10, 4, 8], atol=1e-6)
    named = _score(Micro(), micro_problem(), ablation="zero", positions="named")
    assert list(named.by_position) == ["S"]
    np.testing.assert_array_equal(named.by_position["S"], scores.by_position["1"])
    np.testing.assert_array_equal(named.samples, scores.samples)


def test_micro_is_a_model() -> None:
    assert isinstance(Micro(), Model)
    assert Micro().run(torch.tensor([[1, 2], [1, 3]])).logits[:, 0].tolist() == [7, 16]


def test_a_named_position_is_the_token_index_of_each_prompt(
    gpt2: BridgeModel, problem: Callable[..., Problem]
) -> None:
    """S2 stands at another index in each of the two lengths; by index and by name must say the same."""
    for one_length in problem(gpt2, 8).batches:
        task = Problem((one_length,), logit_difference)
        indices = {pair.positions["S2"] for pair in one_length.pairs}
        assert len(indices) == 1
        every = _score(gpt2, task, positions="every").by_position
        named = _score(gpt2, task, positions="named").by_position
        np.testing.assert_allclose(named["S2"], every[str(indices.pop())], atol=1e-6)


def test_prompts_without_a_position_are_left_out_of_its_mean(gpt2: BridgeModel) -> None:
    """END is named in some prompts of a batch only."""
    pairs = [
        replace(pair, positions={"S2": pair.positions["S2"]}) if i % 3 else pair
        for i, pair in enumerate(prompt_pairs(10, templates=1))
    ]
    with_end = [pair for pair in pairs if "END" in pair.positions]
    assert len(with_end) == 4
    mixed, alone = (
        _score(gpt2, Problem(make_batches(gpt2, part), logit_difference), positions="named")
        for part in (pairs, with_end)
    )
    np.testing.assert_allclose(mixed.by_position["END"], alone.by_position["END"], atol=1e-6)
    assert not np.allclose(mixed.by_position["S2"], alone.by_position["S2"], atol=1e-3)


def test_positions_of_the_same_prompts_behind_the_last_common_one_have_no_effect(
    gpt2: BridgeModel, problem: Callable[..., Problem]
) -> None:
    """Clean and corrupt agree up to S2, so nothing before it can have an effect."""
    for batch in problem(gpt2, 8).batches:
        first = int((batch.clean != batch.corrupt).any(0).nonzero()[0])
        every = _score(gpt2, Problem((batch,), logit_difference), positions="every").by_position
        assert all(np.abs(every[str(i)]).max() < 1e-5 for i in range(first))
        assert np.abs(every[str(first)]).max() > 1e-3


def test_mean_ablation_of_one_prompt_pair_lies_between_its_ends(gpt2: BridgeModel) -> None:
    """The last MLP acts on the logits through the frozen norm only nearly linearly, so its sign is kept."""
    task = Problem(make_batches(gpt2, prompt_pairs(1)), logit_difference)
    resample, mean = (_score(gpt2, task, ablation=a).of("m2") for a in ("resample", "mean"))
    assert 0 < mean / resample < 1


def test_denoising_with_another_ablation_than_resample_is_refused() -> None:
    for ablation in ("mean", "zero"):
        with pytest.raises(CircuitError, match=f"ablation {ablation} has no meaning"):
            METHOD.configure({"direction": "denoising", "ablation": ablation})


def test_an_unknown_option_and_a_bad_value_are_named() -> None:
    with pytest.raises(CircuitError, match=r"option of activation-patching 'directoin'.*'direction'"):
        METHOD.configure({"directoin": "noising"})
    with pytest.raises(CircuitError, match=r"direction.*'sideways'"):
        METHOD.configure({"direction": "sideways"})


def test_progress_ends_where_it_says(gpt2: BridgeModel, problem: Callable[..., Problem]) -> None:
    seen: list[tuple[str, int, int]] = []
    task = problem(gpt2, 8)
    task = Problem(task.batches, task.metric, progress=lambda *step: seen.append(step))
    _score(gpt2, task, positions="named")
    assert seen[-1][1] == seen[-1][2]
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
