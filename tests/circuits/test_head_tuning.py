"""Trainings in a frozen model: what must be found on planted heads; offsets are the bias that they merge into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from role_network import RoleModel, letter_prompts
from tiny_models import prompt_pairs
from torch import Tensor

from circuits.batches import make_batches
from circuits.engine.forward import trace
from circuits.engine.weights import Affine, Weights
from circuits.errors import CircuitError, ModelError
from circuits.interventions.intervention import Offset, edits
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.methods.soft_head_selection import few_shot
from circuits.metrics import logit_difference
from circuits.model import Site
from circuits.models.bridge import BridgeModel, load_model
from circuits.scores import Scores
from circuits.tuning.scales import adding, learned_offsets, merged
from circuits.tuning.shares import Injected, last_outputs
from circuits.tuning.training import Schedule, examples, final_state, in_turn, shuffled, surprise
from tasks import TASKS

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]
HEADS = ("a0.h1", "a1.h3", "a1.h0", "a2.h2")


def _score(method: str, model: Any, problem: Problem, **options: object) -> Scores:
    entry = METHODS.load(method)
    scores = entry.score(model, problem, entry.configure(options))
    assert isinstance(scores, Scores)
    return scores


@pytest.fixture(scope="module")
def planted() -> tuple[BridgeModel, Problem]:
    from cli.prompt_source import sample_task

    model = load_model("planted-ioi")
    drawn = sample_task(model, TASKS.load("ioi"), form=None, corruption=None, n=24, seed=0)
    return model, Problem(make_batches(model, drawn.pairs), logit_difference)


def _weights(model: BridgeModel) -> Weights:
    assert model.weights is not None
    return model.weights


# What is trained


def test_the_surprise_is_what_torch_calls_cross_entropy_and_answers_add_up() -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    one = surprise(logits, ((2,), (0,), (6,)))
    torch.testing.assert_close(
        one, torch.nn.functional.cross_entropy(logits, torch.tensor([2, 0, 6]), reduction="none")
    )
    both = surprise(logits, ((2, 3), (0,), (6,)))
    assert both[0].item() == pytest.approx(-logits[0].softmax(-1)[[2, 3]].sum().log().item(), abs=1e-6)


def test_every_prompt_is_seen_once_an_epoch_and_shuffled_answers_are_the_same_ones(
    gpt2: BridgeModel, problem: MakeProblem
) -> None:
    taught = examples(problem(gpt2, 8).batches)
    parts = list(in_turn(taught, 3, np.random.default_rng(0)))
    assert sorted(index for part in parts for index in part.prompts.index) == list(range(8))
    assert max(len(part.answers) for part in parts) == 3
    answers = [answer for e in taught for answer in e.answers]
    others = [answer for e in shuffled(taught, 1) for answer in e.answers]
    assert others != answers
    assert sorted(others) == sorted(answers)


def test_the_trained_pass_is_the_models_own(covered: str, tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny(covered)
    for example in examples(problem(model, 4).batches):
        state = final_state(_weights(model), example)
        own = model.run(example.prompts.clean, capture=[Site("final")]).captured[Site("final")]
        torch.testing.assert_close(state, own[:, -1], atol=1e-4, rtol=0)


# LoFiT


def test_a_training_that_may_only_scale_heads_scales_the_planted_movers(
    planted: tuple[BridgeModel, Problem],
) -> None:
    scores = _score("lofit", *planted, trials=1)
    assert set(scores.ranking()[:2]) == {"a2.h1", "a2.h3"}
    rest = set(scores.components) - {"a2.h1", "a2.h3"}
    assert scores.of("a2.h3") > 10 * max(map(scores.of, rest))
    scales = scores.artifacts["lofit"]["scales"]
    np.testing.assert_allclose(np.linalg.norm(scales, axis=-1).ravel(), scores.values, rtol=1e-5)
    assert scores.details["signed"] is False
    assert len(scores.details["chance"]) == 18  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_scores_and_another_trial_others(
    gpt2: BridgeModel, problem: MakeProblem
) -> None:
    one, two = (_score("lofit", gpt2, problem(gpt2, 6), trials=2, epochs=1) for _ in range(2))
    np.testing.assert_array_equal(one.samples, two.samples)
    assert not np.array_equal(one.samples[0], one.samples[1])


# Offsets


def test_offsets_by_hooks_by_the_engine_and_merged_into_the_bias_are_one_model(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model, asked = tiny(covered), problem(tiny(covered), 4)
    weights, nodes = _weights(model), [model.graph.node(head) for head in HEADS]
    offsets = torch.randn(len(HEADS), weights.d_head, generator=torch.Generator().manual_seed(0))
    layers = list(weights.layers)
    for layer, bias in merged(weights, nodes, offsets).items():
        out = layers[layer].out
        own = torch.zeros_like(bias) if out.bias is None else out.bias
        layers[layer] = replace(layers[layer], out=Affine(out.weight, own + bias))
    biased = replace(weights, layers=tuple(layers))
    for example in examples(asked.batches):
        batch = example.prompts
        hooked = model.run(
            batch.clean, edit=edits(model, batch, [Offset(HEADS, lambda heads: offsets)])
        ).logits
        engine = weights.logits(final_state(weights, example, adding(nodes, offsets, weights.n_heads)))
        whole = biased.logits(trace(biased, biased.embed(batch.clean)).after[:, -1])
        scale = hooked.abs().max()
        assert (hooked - engine).abs().max() < 1e-5 * scale
        assert (hooked - whole).abs().max() < 1e-5 * scale
        assert (hooked - model.run(batch.clean).logits).abs().max() > 1e-2


def test_offsets_change_their_heads_alone_and_teach_what_scales_cannot(
    gpt2: BridgeModel, problem: MakeProblem
) -> None:
    weights, taught = _weights(gpt2), examples(problem(gpt2, 8).batches)
    nodes = [gpt2.graph.node("a1.h2")]
    offsets = learned_offsets(weights, nodes, taught, Schedule(5e-2, 10), 0)
    seen: dict[int, Tensor] = {}

    def change(layer: int, z: Tensor) -> Tensor:
        seen[layer] = adding(nodes, offsets, weights.n_heads)(layer, z) - z
        return z + seen[layer]

    losses = [
        float(sum(surprise(weights.logits(final_state(weights, e, c)), e.answers).sum() for e in taught))
        for c in (lambda layer, z: z, change)
    ]
    assert losses[1] < losses[0] - 0.1
    assert seen[0].abs().max() == seen[2].abs().max() == 0
    torch.testing.assert_close(seen[1][0, 0, 2], offsets[0], atol=1e-5, rtol=0)
    assert seen[1][:, :, [0, 1, 3]].abs().max() == 0


def test_other_heads_learn_offsets_of_their_own() -> None:
    offset = Offset(("a0.h1",), lambda heads: torch.full((len(heads), 2), float(heads[0][-1])))
    assert offset.vectors[0, 0] == 1
    assert replace(offset, heads=("a0.h3",)).vectors[0, 0] == 3


# Soft head selection


def test_what_is_injected_by_hooks_is_what_the_engine_mixes(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(covered)
    weights = _weights(model)
    shares = torch.rand(len(weights.layers), weights.n_heads, generator=torch.Generator().manual_seed(0))
    for batch in problem(model, 4).batches:
        vectors = last_outputs(weights, batch.clean)
        sites = [Site("z", layer) for layer in range(len(weights.layers))]
        own = model.run(batch.clean, capture=sites).captured
        torch.testing.assert_close(
            vectors, torch.stack([own[site][:, -1] for site in sites], 1), atol=1e-4, rtol=0
        )

        def mixed(z: Tensor, layer: int, given: Tensor = vectors) -> Tensor:
            z = z.clone()
            share = shares[layer][None, :, None]
            z[:, -1] = (1 - share) * z[:, -1] + share * given[:, layer]
            return z

        edit = {site: partial(mixed, layer=site.layer) for site in sites}
        hooked = model.run(batch.corrupt, edit=edit).logits
        injected = Injected.of(weights, batch.corrupt, vectors)
        torch.testing.assert_close(injected.logits(shares), hooked, atol=1e-4, rtol=0)
        nothing = injected.logits(torch.zeros_like(shares))
        torch.testing.assert_close(nothing, model.run(batch.corrupt).logits, atol=1e-4, rtol=0)


def test_heads_that_carry_the_answer_to_the_last_token_are_injected_and_no_others(
    planted: tuple[BridgeModel, Problem],
) -> None:
    scores = _score("soft-head-selection", *planted, steps=80)
    carriers = {"a1.h4", "a2.h1", "a2.h3"}
    assert set(scores.ranking()[:3]) == carriers
    assert min(map(scores.of, carriers)) > 0.4
    assert max(abs(scores.of(head)) for head in set(scores.components) - carriers) < 0.1
    assert scores.details.get("signed", True)


def test_a_head_that_puts_out_the_same_on_both_runs_stays_where_it_began() -> None:
    model = RoleModel()
    asked = Problem(make_batches(model, letter_prompts()), logit_difference)  # type: ignore[arg-type]
    scores = _score("soft-head-selection", model, asked, steps=20)
    assert scores.of("a0.h3") == 0  # it reads no value
    assert scores.of("a1.h3") != 0


def test_vectors_of_a_task_come_from_prompts_with_answered_ones_in_front(
    gpt2: BridgeModel, problem: MakeProblem
) -> None:
    texts = {"clean": "Mary and John went to", "corrupt": "John and Mary went to", "positions": {}}
    short = make_batches(gpt2, [replace(pair, **texts) for pair in prompt_pairs(5)])  # type: ignore[arg-type]
    (bos, *words), answers = short[0].clean[0].tolist(), {a for b in short for (a,) in b.answers}
    for found in few_shot(gpt2, short, 2, 0):
        assert found[0] == bos
        assert [found[1:6], found[7:12], found[13:]] == [words] * 3
        assert {found[6], found[12]} <= answers
    scores = _score("soft-head-selection", gpt2, Problem(short, logit_difference), shots=2, steps=5)
    assert np.abs(scores.values).max() > 0
    for shots, message in ((4, "makes prompts of 30 tokens, and tiny-gpt2 takes 24"), (5, "needs 6 prompts")):
        with pytest.raises(CircuitError, match=message):
            few_shot(gpt2, short, shots, 0)


# Mistakes


@pytest.mark.parametrize("method", ["lofit", "soft-head-selection"])
def test_models_outside_the_engine_are_refused_by_name(method: str, tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gptj")
    with pytest.raises(ModelError, match=f"{method} needs the exact engine"):
        _score(method, model, problem(model, 4))
    with pytest.raises(CircuitError, match="learning_rate"):
        METHODS.load(method).configure({"learning-rate": 0})
