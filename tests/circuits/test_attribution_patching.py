"""Attribution patching: the gradient by hand on plain models, and the limit of exact patching for small changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from linear_network import network, one_prompt
from micro_model import Micro, micro_problem
from tiny_models import FAMILIES, Hooked, prompt_pairs
from torch import Tensor

from circuits.attribution import prompt_bytes
from circuits.batches import Batch, make_batches
from circuits.donors import resample_donor
from circuits.engine.linear import engine_linear
from circuits.errors import ModelError
from circuits.graph import Graph
from circuits.methods.attribution_patching import METHOD
from circuits.methods.method import Problem
from circuits.metrics import METRICS, logit_difference
from circuits.model import Model
from circuits.models.bridge import BridgeModel, load_model
from circuits.scores import Scores

Tiny = Callable[[str], BridgeModel]
Plain = Callable[[str], Hooked]
MakeProblem = Callable[..., Problem]


def _score(model: Model, problem: Problem, **options: object) -> Scores:
    return METHOD.score(model, problem, METHOD.configure(options))


@pytest.fixture
def portable(tiny: Tiny) -> Callable[[str], BridgeModel]:
    """A model as if the engine did not know it."""

    def without_engine(name: str) -> BridgeModel:
        model = copy.copy(tiny(name))
        model.weights = None
        return model

    return without_engine


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # At the second position a0.h0 changes from 2 to 3, where the slope is 1 + z1 = 5; and so on.
        ({}, [-5, -2, -10]),
        ({"direction": "denoising"}, [-7, -4, -10]),
        ({"ablation": "zero"}, [13, 4, 10]),
        ({"ablation": "mean"}, [-2.5, -1, -5]),
    ],
)
def test_effects_computed_by_hand(options: dict[str, object], expected: list[float]) -> None:
    """The metric is linear in each output alone, so these are the exact effects."""
    scores = _score(Micro(), micro_problem(), **options)
    np.testing.assert_allclose(scores.samples, [expected], atol=1e-6)
    every = _score(Micro(), micro_problem(), positions="every", **options).by_position
    np.testing.assert_allclose(sum(every.values()), expected, atol=1e-6)


def _by_hand(
    by_hand: Hooked, batch: Batch, base: Tensor, other: Tensor, dropped: int | None = None
) -> Tensor:
    """(other - base) times the gradient at base: [prompt, pos, component]."""
    values, slopes = by_hand.gradients(
        base, lambda logits: logit_difference(logits, batch.answers, batch.distractors), dropped
    )
    given, parts = by_hand.values(other), []
    for layer in range(by_hand.n_layers):
        for kind in ("z", "mlp"):
            effect = ((given[kind, layer] - values[kind, layer]) * slopes[kind, layer]).sum(-1)
            parts.append(effect if kind == "z" else effect[..., None])
    return torch.cat(parts, -1)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_autograd_on_the_plain_model_says_the_same(
    name: str, tiny: Tiny, plain: Plain, problem: MakeProblem, direction: str
) -> None:
    model = tiny(name)
    for batch in problem(model).batches:
        task = replace(problem(model), batches=(replace(batch, index=tuple(range(len(batch)))),))
        scores = _score(model, task, direction=direction, positions="every")
        sides = (batch.clean, batch.corrupt)[:: 1 if direction == "noising" else -1]
        theirs = (-1 if direction == "noising" else 1) * _by_hand(plain(name), batch, *sides)
        np.testing.assert_allclose(scores.samples, theirs.sum(1).numpy(), atol=1e-4)
        for position, values in scores.by_position.items():
            np.testing.assert_allclose(values, theirs[:, int(position)].mean(0).numpy(), atol=1e-4)
        assert theirs.abs().max() > 0.05


def test_it_is_the_limit_of_exact_patching_for_small_changes(
    covered: str, plain: Plain, tiny: Tiny, problem: MakeProblem
) -> None:
    """Exact patches by plain hooks in float64, where outputs go a thousandth of the way to the donor's and back."""
    model, task, step = tiny(covered), problem(tiny(covered), 4), 1e-3
    precise = Hooked(copy.deepcopy(plain(covered).model).double(), FAMILIES[covered])
    scores = _score(model, task)
    for batch in task.batches:
        base, donor = (precise.values(side) for side in (batch.clean, batch.corrupt))
        for column, name in enumerate(scores.components):
            node = model.graph.node(name)
            place, head = ("z" if node.kind == "head" else "mlp", node.layer), node.index
            way = step * (donor[place] - base[place])
            if node.kind == "head":
                way = way * (torch.arange(model.graph.n_heads) == head)[:, None]
            there, back = (
                logit_difference(
                    precise.logits(batch.clean, {place: _moved(way * sign)}), batch.answers, batch.distractors
                )
                for sign in (1, -1)
            )
            slope = (back - there) / (2 * step)
            np.testing.assert_allclose(scores.samples[list(batch.index), column], slope, atol=2e-3, rtol=2e-3)
        assert np.abs(scores.samples).max() > 0.1


def _moved(way: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda value: value + way


@pytest.mark.parametrize(
    "options",
    [{"positions": "named"}, {"direction": "denoising"}, {"ablation": "mean"}, {"ablation": "zero"}],
)
def test_engine_and_hooks_say_the_same(
    covered: str,
    tiny: Tiny,
    portable: Callable[[str], BridgeModel],
    problem: MakeProblem,
    options: dict[str, object],
) -> None:
    task = problem(tiny(covered))
    assert tiny(covered).weights
    engine, hooks = (_score(model, task, **options) for model in (tiny(covered), portable(covered)))
    np.testing.assert_allclose(engine.samples, hooks.samples, atol=2e-5)
    assert list(engine.by_position) == list(hooks.by_position)
    for label, values in engine.by_position.items():
        np.testing.assert_allclose(values, hooks.by_position[label], atol=2e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_a_gradient(
    gpt2: BridgeModel, portable: Callable[[str], BridgeModel], problem: MakeProblem, metric: str
) -> None:
    task = replace(problem(gpt2), metric=METRICS[metric])
    engine, hooks = _score(gpt2, task), _score(portable("tiny-gpt2"), task)
    np.testing.assert_allclose(engine.samples, hooks.samples, atol=1e-5)
    assert np.abs(engine.values).max() > 1e-3


@pytest.mark.parametrize("engine", [True, False])
def test_memory_does_not_change_the_scores(
    gpt2: BridgeModel, portable: Callable[[str], BridgeModel], problem: MakeProblem, engine: bool
) -> None:
    task = problem(gpt2, 12)
    model = copy.copy(gpt2 if engine else portable("tiny-gpt2"))
    whole = _score(model, task, positions="every")
    length = task.batches[0].clean.shape[1]
    for prompts in (0, 1, 4):
        model.memory = prompts * prompt_bytes(model, length)
        again = _score(model, task, positions="every")
        np.testing.assert_allclose(again.samples, whole.samples, atol=1e-5)
        for label, values in whole.by_position.items():
            np.testing.assert_allclose(again.by_position[label], values, atol=1e-5)


def test_columns_that_clean_and_corrupt_share_have_no_effect(gpt2: BridgeModel, problem: MakeProblem) -> None:
    for batch in problem(gpt2).batches:
        first = int((batch.clean != batch.corrupt).any(0).nonzero()[0])
        every = _score(gpt2, Problem((batch,), logit_difference), positions="every").by_position
        assert all(np.abs(every[str(i)]).max() == 0 for i in range(first))
        assert np.abs(every[str(first)]).max() > 1e-3


def test_heads_alone_have_the_scores_that_they_have_beside_mlps(
    gpt2: BridgeModel, problem: MakeProblem
) -> None:
    heads, both = (_score(gpt2, problem(gpt2), components=which) for which in ("heads", "all"))
    assert heads.components == gpt2.graph.heads
    np.testing.assert_array_equal(heads.values, [both.of(head) for head in heads.components])


def test_half_precision_is_near_full_precision(directory: Callable[[str], object]) -> None:
    @cache
    def scored(dtype: str) -> Scores:
        model = load_model(str(directory("tiny-gpt2")), dtype=dtype)
        assert model.weights
        return _score(model, Problem(make_batches(model, prompt_pairs(8)), logit_difference))

    size = np.abs(scored("float32").values).max()
    np.testing.assert_allclose(scored("bfloat16").values, scored("float32").values, atol=0.1 * size)


# GradDrop.


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_grad_drop_is_the_mean_size_without_one_layers_gradient(
    covered: str, tiny: Tiny, plain: Plain, problem: MakeProblem, direction: str
) -> None:
    """By hand: what a layer writes is detached, one layer after the other."""
    model = tiny(covered)
    for batch in problem(model).batches:
        task = Problem((replace(batch, index=tuple(range(len(batch)))),), logit_difference)
        scores = _score(model, task, direction=direction, grad_drop=True, positions="every")
        plain_scores = _score(model, task, direction=direction)
        sides = (batch.clean, batch.corrupt)[:: 1 if direction == "noising" else -1]
        terms = torch.stack([_by_hand(plain(covered), batch, *sides, dropped=layer) for layer in range(3)])
        sign = np.sign(plain_scores.values)
        expected = terms.sum(2).abs().sum(0) / 2
        np.testing.assert_allclose(scores.samples, sign * expected.numpy(), atol=1e-4)
        for position, values in scores.by_position.items():
            size = terms[:, :, int(position)].abs().sum(0).mean(0) / 2
            np.testing.assert_allclose(np.abs(values), size.numpy(), atol=1e-4)
        assert np.abs(np.abs(scores.samples) - np.abs(plain_scores.samples)).max() > 1e-3


def test_what_only_its_own_layer_and_the_logits_read_is_as_without_grad_drop(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    dropped, plain_scores = (
        _score(tiny(covered), problem(tiny(covered)), grad_drop=drop) for drop in (True, False)
    )
    last = [i for i, name in enumerate(dropped.components) if name.startswith(("a2", "m2"))]
    np.testing.assert_allclose(
        np.abs(dropped.samples[:, last]), np.abs(plain_scores.samples[:, last]), atol=1e-6
    )


def test_two_paths_that_cancel_are_seen_by_grad_drop_alone() -> None:
    """m0 writes 2t, which the answer reads; m1 takes 2t away again; so m0 does nothing, unless m1 is dropped.

    From token 3 to token 5, m0 changes by 4, and m1 by -4. Dropping layer 2, of no effect, leaves nothing of m0.
    """
    weights = network([[(0, 1, 2.0)], [(1, 2, -1.0)], []], answer=(0, 1, 1, 0))
    readout = one_prompt(3, 5)
    donor = resample_donor(readout.batch.corrupt)
    linear = engine_linear(weights, readout.batch.clean, donor, readout, grad_drop=True)
    found = [linear.effects(slopes, 1).together[:, 0].tolist() for slopes in linear.slopes]
    heads, mlps = [row[::2] for row in found], [row[1::2] for row in found]
    assert all(head == [0, 0, 0] for head in heads)
    #                m0 m1 m2
    assert mlps == [[0, -4, 0], [0, -4, 0], [4, 0, 0], [0, -4, 0]]


def test_grad_drop_gives_a_component_one_sign(gpt2: BridgeModel, problem: MakeProblem) -> None:
    dropped, plain_scores = (_score(gpt2, problem(gpt2), grad_drop=drop) for drop in (True, False))
    assert (np.sign(dropped.samples) == np.sign(plain_scores.values)).all()
    assert (np.sign(plain_scores.samples) != np.sign(plain_scores.values)).any()
    assert "sign of the mean" in str(dropped.details["notes"])


def test_grad_drop_of_parts_drops_the_same_layers(gpt2: BridgeModel, problem: MakeProblem) -> None:
    """Parts of the last layer's heads reach nothing but their own layer and the logits."""
    task = problem(gpt2)
    dropped, plain_scores = (_score(gpt2, task, grad_drop=drop, inputs=True).parts for drop in (True, False))
    assert dropped
    assert plain_scores
    last = [name.startswith("a2") for name in dropped.components]
    ours, theirs = np.abs(dropped.samples), np.abs(plain_scores.samples)
    np.testing.assert_allclose(ours[:, last], theirs[:, last], atol=1e-6)
    assert np.abs(ours - theirs).max() > 1e-3


def test_grad_drop_is_refused_where_it_cannot_be(tiny: Tiny, problem: MakeProblem) -> None:
    with pytest.raises(
        ModelError, match=r"attribution-patching.grad-drop needs the exact engine.*tiny-olmo2"
    ):
        _score(tiny("tiny-olmo2"), problem(tiny("tiny-olmo2")), grad_drop=True)
    shallow = copy.copy(tiny("tiny-gpt2"))
    shallow.graph = Graph(1, 4, 4)
    with pytest.raises(ModelError, match="tiny-gpt2 has one layer"):
        _score(shallow, problem(tiny("tiny-gpt2")), grad_drop=True)
