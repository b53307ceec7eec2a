"""Retrieval and attention roles: a copier by hand scores one, patterns by hand give their figures, masking tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from role_network import D_HEAD, TOKEN, N, RoleModel, letter_prompts
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.engine.forward import steps
from circuits.errors import CircuitError
from circuits.head_masking import mask_of, masked_residual
from circuits.models.bridge import BridgeModel
from circuits.roles import ROLES
from circuits.roles.attention import patterns
from circuits.roles.masking import accuracy, masking_test
from circuits.roles.mod_ten import read_all
from circuits.roles.needles import NEEDLE, needles, told
from circuits.roles.repeats import blocks, earlier
from circuits.roles.rhythm import rhythm
from circuits.roles.role import Evidence, RoleScores, score
from circuits.roles.statistics import WINDOW, distance, even, horizon, influence
from circuits.roles.successor import measure as successor
from circuits.roles.task_kv import shares

Tiny = Callable[[str], BridgeModel]


class Copier(RoleModel):
    """The same heads, but a1.h0 (induction) writes what it looks at, loudest of all, and others nothing."""

    name = "copier"

    def __init__(self) -> None:
        super().__init__()
        layer = self.weights.layers[1]
        for matrix in (layer.value.weight, layer.out.weight):
            matrix.zero_()
        for i in range(N):
            layer.value.weight[TOKEN + i, i] = 1
            layer.out.weight[i, TOKEN + i] = 10
        assert D_HEAD >= N


def scored(name: str, evidence: Evidence) -> RoleScores:
    found = score(ROLES.load(name), evidence)
    assert found is not None
    return found


def copier() -> Evidence:
    return Evidence(Copier())


# Retrieval


def test_the_copier_says_every_needle() -> None:
    evidence = copier()
    for one in needles(evidence):
        assert told(evidence.weights, one)[1].all()
    assert accuracy(evidence).mean() == 1


def test_needles_stand_once_behind_their_cue_at_all_depths() -> None:
    for m, one in zip((1, NEEDLE), needles(copier()), strict=True):
        assert len(set(one.starts.tolist())) > 5
        for prompt, needle, start in zip(
            one.prompts.tolist(), one.needle.tolist(), one.starts.tolist(), strict=True
        ):
            assert prompt[start : start + m] == needle
            assert prompt[start - 1] == prompt[-1]
            assert prompt.count(prompt[-1]) == 2
            assert all(prompt.count(token) == 1 for token in needle)


@pytest.mark.parametrize("name", ["retrieval", "semantic-retrieval"])
def test_the_head_that_copies_scores_one_and_no_other_comes_near(name: str) -> None:
    found = scored(name, copier())
    assert found.scores.of("a1.h0") == pytest.approx(1, abs=1e-5)
    others = [v for c, v in zip(found.scores.components, found.scores.values, strict=True) if c != "a1.h0"]
    # The duplicate-token head looks at what was just said where it stood: in the needle, but for its first token.
    assert max(others) < 0.45
    assert found.chance < 0.2


def test_of_a_model_that_copies_nothing_nothing_is_said() -> None:
    assert score(ROLES.load("retrieval"), Evidence(RoleModel())) is None


def test_a_head_that_looks_evenly_scores_the_chance_of_semantic_retrieval() -> None:
    found = scored("semantic-retrieval", copier())
    assert found.scores.of("a0.h2") == pytest.approx(found.chance, abs=1e-6)


def test_prompts_of_a_task_stand_for_needles(tiny: Tiny) -> None:
    """By loops over what the model says and where it looks."""
    model = tiny("tiny-gpt2")
    evidence = Evidence(model, make_batches(model, prompt_pairs(8)), "tiny")
    rows = []
    for batch in evidence.batches:
        looks = torch.cat([seen.pattern[:, :, -1] for seen in patterns(evidence.weights, batch.clean)], 1)
        best = model.run(batch.clean).logits.argmax(-1).tolist()
        for row, (pair, said) in enumerate(zip(batch.pairs, best, strict=True)):
            if said in pair.answers and said in pair.clean:
                rows.append([pair.clean[int(look.argmax())] == said for look in looks[row]])
    found = score(ROLES.load("retrieval"), evidence)
    if rows:
        assert found is not None
        assert found.scores.values == pytest.approx(np.mean(rows, 0))
    else:
        assert found is None


def test_a_length_that_does_not_fit_is_named() -> None:
    with pytest.raises(CircuitError, match=r"A prompt of 4 tokens .* copier .*give a --length from 9 to 20"):
        score(ROLES.load("retrieval"), replace(copier(), length=4))


# Masking


def test_without_a_mask_the_run_is_the_engines(covered: str, tiny: Tiny) -> None:
    weights = tiny(covered).weights
    assert weights is not None
    tokens = torch.arange(2, 14).view(2, 6)
    *_, last = steps(weights, weights.embed(tokens))
    assert torch.allclose(masked_residual(weights, tokens), last.after, atol=1e-5)


def test_masking_one_head_is_taking_the_mean_of_its_values(covered: str, tiny: Tiny) -> None:
    """Through the model's own forward pass, z of that head edited; GQA included."""
    from circuits.interventions.intervention import values
    from circuits.model import Site

    model = tiny(covered)
    weights = model.weights
    assert weights is not None
    tokens = torch.arange(2, 14).view(2, 6)
    before = next(iter(steps(weights, weights.embed(tokens)))).before
    means = values(weights, 0, before).cumsum(1) / torch.arange(1, 7)[:, None, None]

    def edit(z: torch.Tensor) -> torch.Tensor:
        z = z.clone()
        z[:, :, 3] = means[:, :, 3]
        return z

    expected = model.run(tokens, edit={Site("z", 0): edit}).logits
    found = weights.logits(masked_residual(weights, tokens, mask_of(model.graph, ["a0.h3"]))[:, -1])
    assert torch.allclose(found, expected, atol=1e-4)


def test_masking_the_copier_takes_all_and_masking_an_even_head_nothing() -> None:
    evidence = copier()
    found = masking_test(evidence, ["a1.h0"])
    assert (found.whole.value, found.masked.value) == (1, pytest.approx(0, abs=0.1))
    assert found.same_layers
    assert set(found.drawn) == {("a1.h1",), ("a1.h2",), ("a1.h3",)}
    assert min(found.random) == 1
    assert found.p_value == pytest.approx(1 / (1 + len(found.random)))
    tokens = needles(evidence)[0].prompts
    one, other = (
        masked_residual(evidence.weights, tokens, m) for m in (None, mask_of(evidence.model.graph, ["a0.h2"]))
    )
    assert torch.equal(one, other) or torch.allclose(one, other, atol=1e-6)


# RazorAttention


def test_echo_and_induction_on_patterns_by_hand() -> None:
    """Synthetic patterns: one-hot on an echo, one-hot behind it, and even."""
    length, period, opening = 13, 3, 1
    echo, follow = (earlier(length, period, opening, after) for after in (0, 1))
    assert echo[0].nonzero()[:, 0].tolist() == [1]
    assert echo[-1].nonzero()[:, 0].tolist() == [3, 6, 9]
    assert follow[-1].nonzero()[:, 0].tolist() == [4, 7, 10]
    assert echo.sum(1).tolist() == follow.sum(1).tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert not (echo & follow).any()


def test_razor_finds_the_heads_that_were_built() -> None:
    evidence = copier()
    echo, induction = (scored(name, evidence) for name in ("razor-echo", "razor-induction"))
    assert echo.scores.of("a0.h1") == pytest.approx(1, abs=1e-5)
    assert induction.scores.of("a1.h0") == pytest.approx(1, abs=1e-5)
    for found in (echo, induction):
        assert found.scores.of("a0.h2") == pytest.approx(found.chance, abs=1e-6)
    assert echo.scores.of("a1.h0") < 0.1 > induction.scores.of("a0.h1")
    tokens, period = blocks(evidence)
    assert tokens.shape[1] == 1 + 4 * period


# Statistics of attention


def stripe(length: int, at: int) -> torch.Tensor:
    pattern = torch.zeros(1, 1, length, length)
    for query in range(length):
        pattern[0, 0, query, at if query >= at else query] = 1
    return pattern


def shifted(length: int, by: int) -> torch.Tensor:
    pattern = torch.zeros(1, 1, length, length)
    for query in range(length):
        pattern[0, 0, query, max(query - by, 0)] = 1
    return pattern


def test_distance_of_patterns_by_hand() -> None:
    assert (distance(shifted(30, 1)) == 1).all()
    assert (distance(shifted(30, 0)) == 0).all()
    assert (distance(shifted(30, 1), WINDOW) == 1).all()
    far = distance(shifted(60, 25))[..., 25:]
    assert (far >= 24).all()
    assert (distance(shifted(60, 25), WINDOW)[..., 9:] == WINDOW).all()
    assert distance(even(9))[0, 0].tolist() == pytest.approx([query / 2 for query in range(1, 9)])


def test_a_vertical_stripe_has_all_influence_and_others_none() -> None:
    pattern = stripe(40, 7)
    found = influence(pattern)[0, 0]
    assert horizon(40) == WINDOW
    assert found[7] == 1
    assert found.sum() == 1
    assert len(found) == 30


def test_the_previous_token_head_looks_one_back_and_the_duplicate_head_a_period() -> None:
    evidence = Evidence(RoleModel())
    period = evidence.period
    for name in ("distance", "windowed-distance"):
        found = scored(name, evidence)
        assert found.scores.of("a0.h0") == pytest.approx(1, abs=1e-4)
        assert found.scores.of("a0.h2") == pytest.approx(found.chance, abs=1e-5)
    assert scored("windowed-distance", evidence).scores.values.max() <= WINDOW < period + 1


def test_an_even_head_scores_chance_in_sinks_and_influence(tiny: Tiny) -> None:
    model = RoleModel()
    evidence = Evidence(model, make_batches(model, letter_prompts()), "letters")
    for name in ("sink", "future-influence"):
        found = scored(name, evidence)
        assert found.scores.of("a0.h2") == pytest.approx(found.chance, abs=1e-6)


def test_the_rhythm_of_a_prompt_is_that_of_its_local_and_global_heads(tiny: Tiny) -> None:
    evidence = Evidence(tiny("tiny-gpt2"), make_batches(tiny("tiny-gpt2"), prompt_pairs(4)), "tiny")
    found = rhythm(evidence)
    far = scored("distance", evidence).scores
    assert len(found.local) == len(found.global_) == 4  # 30 % of 12
    assert max(far.of(head) for head in found.local) <= min(far.of(head) for head in found.global_)
    batch = evidence.batches[0]
    by_head = torch.cat([seen.pattern for seen in patterns(evidence.weights, batch.clean)], 1)
    local = [far.components.index(head) for head in found.local]
    expected = sum(
        float(by_head[0, local, -1, s].mean()) * min(batch.clean.shape[1] - 1 - s, 10)
        for s in range(batch.clean.shape[1])
    )
    assert found.waad[0][-1] == pytest.approx(expected, abs=1e-5)
    assert np.isnan(found.waad[0][0])
    assert np.isnan(found.fai[0][-1])


# Task-KV


def test_the_head_that_writes_apart_is_far_from_the_centre() -> None:
    z = torch.ones(1, 4, 2)
    z[0, 2] = -3
    writer = torch.eye(2).repeat(4, 1, 1)
    assert shares(z, writer)[0].tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 2, 1 / 6])
    assert shares(torch.ones(1, 4, 2), writer)[0].tolist() == [0.25] * 4


def test_shares_of_a_layer_sum_to_one(tiny: Tiny) -> None:
    model = tiny("tiny-llama")
    pairs = tuple(
        replace(p, positions={**p.positions, "END": (len(p.clean) - 1, len(p.clean))})
        for p in prompt_pairs(4)
    )
    found = scored("task-kv", Evidence(model, make_batches(model, pairs), "tiny"))
    assert found.scores.values.reshape(3, 4).sum(1) == pytest.approx(1)


# Successor, class by class


def test_every_class_has_a_chance_of_its_own() -> None:
    measured = successor(Evidence(RoleModel()))
    assert measured is not None
    ((name, (rows, chance)),) = measured.groups.items()
    assert name == "capital letters"
    assert chance == pytest.approx(1 / 26)
    assert measured.samples[rows].shape == (25, 8)


# Place modulo ten


def test_a_planted_digit_is_read_in_decades_and_classes_that_the_probe_has_not_seen() -> None:
    draw = np.random.default_rng(0)
    directions, other = draw.normal(size=(10, 24)), draw.normal(size=24)
    places = np.arange(1, 101)

    def vectors(where: np.ndarray) -> np.ndarray:
        return directions[where % 10] + np.outer(where / 50, other)

    months = np.arange(1, 13)
    noise = draw.normal(size=(12, 24))
    classes = {
        "numbers": (vectors(places), places),
        "months": (vectors(months), months),
        "noise": (noise, months),
    }
    found = read_all(classes, "numbers", 0)
    assert found["numbers"].accuracy == found["months"].accuracy == 1
    assert found["noise"].accuracy < 0.5
    assert max(one.shuffled for one in found.values()) < 0.25
    assert read_all({"numbers": (vectors(places[:19]), places[:19])}, "numbers", 0) == {}
