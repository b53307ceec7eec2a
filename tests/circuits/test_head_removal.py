"""Ships and Sahara: heads taken out, on models whose heads are known and by plain hooks on transformers itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from role_network import RoleModel, letter_prompts
from scipy.linalg import subspace_angles
from tiny_models import Hooked
from torch import Tensor

from circuits.batches import make_batches
from circuits.errors import CircuitError, ModelError
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.methods.sahara import principal_angles
from circuits.metrics import logit_difference
from circuits.model import Site
from circuits.models.bridge import BridgeModel, load_model
from circuits.scores import Scores
from tasks import TASKS

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]
PLANTED = {"a0.h2", "a1.h4", "a2.h1", "a2.h3"}


def _score(method: str, model: Any, problem: Problem, **options: object) -> Scores:
    entry = METHODS.load(method)
    scores = entry.score(model, problem, entry.configure(options))
    assert isinstance(scores, Scores)
    return scores


def _by_hand() -> tuple[RoleModel, Problem]:
    model = RoleModel()
    return model, Problem(make_batches(model, letter_prompts()), logit_difference)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def planted() -> tuple[BridgeModel, Problem]:
    from cli.prompt_source import sample_task

    model = load_model("planted-ioi")
    drawn = sample_task(model, TASKS.load("ioi"), form=None, corruption=None, n=12, seed=0)
    return model, Problem(make_batches(model, drawn.pairs), logit_difference)


def _divergence(own: Tensor, other: Tensor) -> np.ndarray:
    p, q = own.softmax(-1).double() + 1e-12, other.softmax(-1).double() + 1e-12
    return np.asarray((p * (p.log() - q.log())).sum(-1))


def _last_logits(by_hand: Hooked, tokens: Tensor, module: str, width: slice) -> Tensor:
    """With what `module` puts out at `width` scaled to almost nothing, as the authors do to queries."""

    def scale(module: object, args: object, output: Tensor) -> Tensor:
        output[..., width] *= 1e-4
        return output

    handle = by_hand.model.get_submodule(module).register_forward_hook(scale)
    try:
        return by_hand.logits(tokens)
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("name", "queries"),
    [
        ("tiny-gpt2", "transformer.h.{}.attn.c_attn"),
        ("tiny-llama", "model.layers.{}.self_attn.q_proj"),
    ],
)
def test_even_attention_is_where_scaled_queries_end(
    name: str, queries: str, tiny: Tiny, plain: Callable[[str], Hooked], problem: MakeProblem
) -> None:
    model, asked = tiny(name), problem(tiny(name), 6)
    scores = _score("ships", model, asked, chance=False)
    assert model.weights is not None
    for batch in asked.batches:
        own = plain(name).logits(batch.clean)
        for head in map(model.graph.node, ("a0.h1", "a1.h3", "a2.h0")):
            width = slice(head.index * model.weights.d_head, (head.index + 1) * model.weights.d_head)
            other = _last_logits(plain(name), batch.clean, queries.format(head.layer), width)
            found = scores.samples[list(batch.index), scores.components.index(head.name)]
            np.testing.assert_allclose(found, _divergence(own, other), rtol=2e-2, atol=1e-5)
    assert scores.values.min() > 1e-5


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_what_is_taken_out_is_what_plain_edits_take_out(
    covered: str, ablation: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model, asked = tiny(covered), problem(tiny(covered), 6)
    scores = _score("ships", model, asked, ablation=ablation, chance=False)
    means = _means(asked, model)
    for batch in asked.batches:
        own = model.run(batch.clean).logits
        for column, head in enumerate(map(model.graph.node, model.graph.heads)):

            def edit(z: Tensor, head: Any = head, length: int = batch.clean.shape[1]) -> Tensor:
                given = means[head.layer][:length, head.index] if ablation == "mean" else 0.0
                z = z.clone()
                z[:, :, head.index] = given
                return z

            other = model.run(batch.clean, edit={Site("z", head.layer): edit}).logits
            found = scores.samples[list(batch.index), column]
            np.testing.assert_allclose(found, _divergence(own, other), atol=1e-4, rtol=1e-3)


def _means(asked: Problem, model: BridgeModel) -> list[Tensor]:
    """By layer: mean of z at each position, over clean and corrupt prompts that are long enough."""
    means = []
    for layer in range(model.graph.n_layers):
        site = Site("z", layer)
        runs = [
            model.run(tokens, capture=[site]).captured[site]
            for batch in asked.batches
            for tokens in (batch.clean, batch.corrupt)
        ]
        places = range(max(run.shape[1] for run in runs))
        means.append(
            torch.stack([torch.cat([r[:, p] for r in runs if r.shape[1] > p]).mean(0) for p in places])
        )
    return means


def test_a_head_that_looks_evenly_has_no_choice_to_lose_and_one_that_writes_nothing_is_not_missed() -> None:
    model, asked = _by_hand()
    choice, whole = (_score("ships", model, asked, ablation=a) for a in ("uniform", "zero"))
    for even in ("a0.h1", "a0.h2", "a1.h1", "a1.h2"):  # a0.h1 chooses, but nothing that it reads is written
        assert choice.of(even) < 1e-6
    assert choice.of("a1.h3") > 0.01
    assert whole.of("a0.h2") < 1e-6
    assert whole.of("a1.h1") > 0.01
    turned = _score("sahara", model, asked, ablation="zero", steps=1)
    assert turned.of("a0.h2") < 1e-4
    assert turned.of("a1.h3") > 0.01


@pytest.mark.parametrize(
    "ablation", ["uniform", *(pytest.param(a, marks=pytest.mark.slow) for a in ("zero", "mean"))]
)
def test_planted_heads_come_first_and_far_above_chance(
    ablation: str, planted: tuple[BridgeModel, Problem]
) -> None:
    scores = _score("ships", *planted, ablation=ablation)
    assert set(scores.ranking()[:4]) == PLANTED
    chance = dict(zip(scores.components, scores.details["chance"], strict=True))  # type: ignore[call-overload]
    assert all(scores.of(head) > 20 * chance[head] for head in PLANTED)
    assert sum(map(scores.of, set(scores.components) - PLANTED)) < 0.01
    assert scores.details["verdict"][0].startswith("4 of 18 heads")  # type: ignore[index]


def test_the_shift_is_scipys_and_the_greedy_set_turns_more_with_each_head(
    gpt2: BridgeModel, problem: MakeProblem
) -> None:
    asked = problem(gpt2, 10)
    scores = _score("sahara", gpt2, asked, ablation="zero", rank=2, steps=2)
    states = {None: _states(gpt2, asked, {})}
    for head in gpt2.graph.heads:
        node = gpt2.graph.node(head)

        def silent(z: Tensor, index: int = node.index) -> Tensor:
            z = z.clone()
            z[:, :, index] = 0
            return z

        states[head] = _states(gpt2, asked, {Site("z", node.layer): silent})
    bases = {name: np.linalg.svd(of, full_matrices=False)[0][:, :2] for name, of in states.items()}
    for head in gpt2.graph.heads:
        angles = np.rad2deg(subspace_angles(bases[None], bases[head])).sum()
        assert scores.of(head) == pytest.approx(angles, rel=1e-3)
    greedy = scores.details["greedy_set"]
    assert next(iter(greedy)) == scores.ranking()[0]  # type: ignore[call-overload]
    assert len(scores.details["random_sets"]) == 20  # type: ignore[arg-type]


def _states(model: BridgeModel, asked: Problem, edit: Any) -> np.ndarray:
    runs = [
        model.run(b.clean, capture=[Site("final")], edit=edit).captured[Site("final")] for b in asked.batches
    ]
    return np.concatenate([run[:, -1].double().numpy() for run in runs])


def test_planted_heads_turn_the_prompts_most(planted: tuple[BridgeModel, Problem]) -> None:
    scores = _score("sahara", *planted, ablation="zero", steps=1)
    assert set(scores.ranking()[:2]) == {"a0.h2", "a1.h4"}


def test_an_angle_is_in_degrees_and_exact_where_single_precision_is_not() -> None:
    tiny_turn = np.deg2rad(0.005)
    one = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    other = torch.tensor([[np.cos(tiny_turn)], [np.sin(tiny_turn)]], dtype=torch.float64)
    assert np.rad2deg(principal_angles(one, other).item()) == pytest.approx(0.005, rel=1e-4)
    assert principal_angles(one, -one).item() == 0


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("sahara", {"rank": 9}, "sahara.rank 9 is more than the 6 dimensions that 6 prompts"),
        ("sahara", {"steps": 13}, "sahara.steps 13 is more than the 12 heads"),
    ],
)
def test_what_cannot_be_asked(
    method: str, options: dict[str, Any], message: str, gpt2: BridgeModel, problem: MakeProblem
) -> None:
    with pytest.raises(CircuitError, match=message):
        _score(method, gpt2, problem(gpt2, 6), **options)


def test_models_outside_the_engine_are_refused_by_name(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gptj")
    for method in ("ships", "sahara"):
        with pytest.raises(ModelError, match=f"{method} needs the exact engine"):
            _score(method, model, problem(model, 4))
