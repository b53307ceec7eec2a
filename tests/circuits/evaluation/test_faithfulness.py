"""Evaluation: the scale from nothing to everything, chance beside it, and what stays outside the game."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_models import prompt_pairs

from circuits.batches import Batch, make_batches
from circuits.circuit import Circuit
from circuits.donors import Donor, keep_masks, mean_donor, resample_donor, zero_donor
from circuits.errors import CircuitError
from circuits.evaluation.faithfulness import (
    Bench,
    baseline,
    bench,
    judge,
    mean_estimate,
    random_circuits,
    ratio_estimate,
    six_things,
)
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel
from circuits.patching import measure

ABLATIONS = ("resample", "mean", "zero")


@pytest.fixture(scope="module")
def halves(gpt2: BridgeModel) -> tuple[tuple[Batch, ...], tuple[Batch, ...]]:
    """Discovery and judged prompts."""
    pairs = prompt_pairs(20)
    return make_batches(gpt2, pairs[:10], batch_size=4), make_batches(gpt2, pairs[10:], batch_size=4)


@pytest.fixture(scope="module", params=ABLATIONS)
def at(request: pytest.FixtureRequest, gpt2: BridgeModel, halves: tuple) -> Bench:
    found_on, judged_on = halves
    return bench(
        gpt2, judged_on, logit_difference, request.param, played=gpt2.graph.components, means_from=found_on
    )


SOME = Circuit(("a0.h1", "a0.h2", "m0", "a1.h3", "m1", "a2.h0"), "test", "by hand")


def test_everything_is_one_and_nothing_is_zero(at: Bench, gpt2: BridgeModel) -> None:
    full, empty = at.faithfulness([gpt2.graph.components, ()])
    assert full == pytest.approx(1, abs=1e-5)
    assert empty == pytest.approx(0, abs=1e-5)


def test_faithfulness_is_the_ratio_of_means_by_hand(
    at: Bench, gpt2: BridgeModel, halves: tuple[tuple[Batch, ...], tuple[Batch, ...]]
) -> None:
    """Prompt by prompt, without Bench; the means of mean ablation come from the discovery prompts."""
    found_on, judged_on = halves
    values = []
    for batch in judged_on:
        donor = {
            "resample": resample_donor(batch.corrupt),
            "mean": mean_donor(gpt2, found_on),
            "zero": zero_donor(),
        }[at.ablation]
        keep = keep_masks(gpt2.graph, [SOME.nodes, (), gpt2.graph.components])
        values.append(measure(gpt2, batch, logit_difference, keep=keep, donor=donor).metric.numpy())
    inside, nothing, everything = np.concatenate(values, axis=1).mean(1)
    expected = (inside - nothing) / (everything - nothing)
    verdict = judge(at, SOME, seed=0, n_random=3)
    assert at.faithfulness([SOME.nodes])[0] == pytest.approx(expected, rel=1e-4)
    assert verdict.faithfulness.value == pytest.approx(expected, rel=1e-4)
    assert (verdict.circuit, verdict.nothing, verdict.everything) == pytest.approx(
        (inside, nothing, everything), rel=1e-4
    )
    assert verdict.n_prompts == 10


def test_a_verdict_on_everything_is_faithful_whatever_is_drawn(at: Bench, gpt2: BridgeModel) -> None:
    verdict = judge(at, Circuit(gpt2.graph.components, "test", "all"), seed=0, n_random=3)
    assert verdict.faithfulness.value == pytest.approx(1, abs=1e-5)
    assert verdict.faithfulness.low == pytest.approx(1, abs=1e-4)
    assert verdict.faithfulness.high == pytest.approx(1, abs=1e-4)
    # Random circuits with as many heads and MLPs are all the same circuit, so it stands out in nothing.
    assert verdict.random.median == pytest.approx(1, abs=1e-5)
    assert verdict.random.p_value > 0.2


def test_intervals_contain_their_value_and_chance_is_ordered(at: Bench) -> None:
    verdict = judge(at, SOME, seed=0, n_random=9)
    for estimate in (verdict.faithfulness, verdict.preferred, verdict.correct):
        assert estimate.low <= estimate.value <= estimate.high
    band = verdict.random
    assert band.low <= band.median <= band.high
    assert band.n == 9
    assert 0.1 <= band.p_value <= 1
    assert judge(at, SOME, seed=0, n_random=9) == verdict


def test_the_p_value_counts_random_circuits_that_do_as_well(at: Bench, gpt2: BridgeModel) -> None:
    chance = random_circuits(gpt2.graph, gpt2.graph.components, SOME, 9, seed=4)
    spans = at.faithfulness([SOME.nodes, *chance])
    verdict = judge(at, SOME, seed=4, n_random=9)
    assert verdict.random.p_value == pytest.approx((1 + (spans[1:] >= spans[0]).sum()) / 10)
    assert verdict.random.median == pytest.approx(np.median(spans[1:]), rel=1e-5)


@pytest.mark.parametrize("played", ["components", "heads"])
def test_random_circuits_match_in_heads_and_mlps(gpt2: BridgeModel, played: str) -> None:
    among = getattr(gpt2.graph, played)
    circuit = Circuit(tuple(c for c in SOME.nodes if c in among), "test", "by hand")
    drawn = random_circuits(gpt2.graph, among, circuit, 40, seed=0)
    for nodes in drawn:
        assert len(set(nodes)) == len(nodes)
        assert set(nodes) <= set(among)
        assert sum(n[0] == "a" for n in nodes) == len(circuit.heads) == 4
        assert sum(n[0] == "m" for n in nodes) == len(circuit.mlps)
    assert set().union(*map(set, drawn)) == (set(among) if circuit.mlps else set(gpt2.graph.heads))
    assert drawn == random_circuits(gpt2.graph, among, circuit, 40, seed=0)
    assert drawn != random_circuits(gpt2.graph, among, circuit, 40, seed=1)


def test_components_that_are_not_played_stay(gpt2: BridgeModel, halves: tuple) -> None:
    """A method of heads alone leaves the MLPs be: nothing kept still keeps them, and naming them adds nothing."""
    found_on, judged_on = halves
    # Mean ablation: under resample, MLPs behind corrupt heads put out what they do in the corrupt run anyway.
    heads_only, free = (
        bench(gpt2, judged_on, logit_difference, "mean", played=played, means_from=found_on)
        for played in (gpt2.graph.heads, gpt2.graph.components)
    )
    mlps = tuple(c for c in gpt2.graph.components if c[0] == "m")
    nothing, with_mlps, everything = heads_only.outcome([(), mlps, gpt2.graph.heads]).metric.numpy()
    bare, only_mlps, complete = free.outcome([(), mlps, gpt2.graph.components]).metric.numpy()
    assert np.array_equal(nothing, with_mlps)
    np.testing.assert_allclose(nothing, only_mlps, atol=1e-5)
    np.testing.assert_allclose(everything, complete, atol=1e-5)
    assert np.abs(nothing - bare).max() > 1e-2
    words = six_things(judge(heads_only, SOME, seed=0, n_random=2), gpt2.graph.heads, gpt2.graph, "x")
    assert words["component set"] == "attention heads (all MLPs kept)"


def test_a_scale_without_length_is_refused(gpt2: BridgeModel) -> None:
    """The corrupt run is the clean one, so there is nothing between nothing and everything."""
    (batch,) = make_batches(gpt2, prompt_pairs(4, templates=1))
    same = replace(batch, corrupt=batch.clean)
    flat = bench(
        gpt2, (same,), logit_difference, "resample", played=gpt2.graph.components, means_from=(same,)
    )
    for ask in (lambda: flat.faithfulness([()]), lambda: judge(flat, SOME, seed=0, n_random=2)):
        with pytest.raises(CircuitError, match=r"nothing to explain.*--corruption"):
            ask()


def test_chance_runs_on_the_first_prompts_whatever_the_batches(gpt2: BridgeModel) -> None:
    pairs = prompt_pairs(9)
    firsts = []
    for batch_size in (2, 64):
        batches = make_batches(gpt2, pairs, batch_size=batch_size)
        at = bench(
            gpt2, batches, logit_difference, "resample", played=gpt2.graph.components, means_from=batches
        )
        firsts.append(at.first(4))
        assert sorted(i for batch in firsts[-1].batches for i in batch.index) == [0, 1, 2, 3]
        whole = at.outcome([SOME.nodes]).metric[0, :4]
        np.testing.assert_allclose(firsts[-1].outcome([SOME.nodes]).metric[0], whole, atol=1e-5)
    alone = judge(firsts[0], SOME, seed=0, n_random=4)
    assert alone.random.n_prompts == alone.n_prompts == 4
    assert alone.random.median == pytest.approx(judge(firsts[1], SOME, seed=0, n_random=4).random.median)


def test_a_bench_that_remembers_makes_each_donor_once(
    gpt2: BridgeModel, halves: tuple[tuple[Batch, ...], tuple[Batch, ...]]
) -> None:
    made: list[tuple[int, ...]] = []

    def donors(batch: Batch) -> Donor:
        made.append(batch.index)
        return resample_donor(batch.corrupt)

    plain = Bench(gpt2, halves[1], logit_difference, "resample", gpt2.graph.components, donors)
    expected = plain.faithfulness([SOME.nodes, ()])
    made.clear()
    remembering = plain.remembering()
    one_by_one = [remembering.faithfulness([circuit])[0] for circuit in (SOME.nodes, ())]
    np.testing.assert_allclose(one_by_one, expected, atol=1e-5)
    assert sorted(made) == sorted(batch.index for batch in halves[1])


def test_the_baseline_is_the_model_by_itself(gpt2: BridgeModel, halves: tuple) -> None:
    before = baseline(gpt2, halves[1], logit_difference, seed=0)
    for side, estimate in (("clean", before.metric_clean), ("corrupt", before.metric_corrupt)):
        values = []
        for batch in halves[1]:
            logits = gpt2.run(getattr(batch, side)).logits
            values += logit_difference(logits, batch.answers, batch.distractors).tolist()
        assert estimate.value == pytest.approx(np.mean(values), abs=1e-5)
        assert estimate.low < estimate.value < estimate.high
    assert before.n_prompts == 10
    assert before.solves == (before.preferred.low > 0.5)


@pytest.mark.parametrize("n", [2, 5, 50])
def test_estimates_of_a_constant_have_no_width(n: int) -> None:
    constant = mean_estimate(np.full(n, 3.0), seed=0)
    assert (constant.value, constant.low, constant.high) == pytest.approx((3, 3, 3))
    ratio = ratio_estimate(np.arange(1.0, n + 1), 2 * np.arange(1.0, n + 1), seed=0)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))


def test_a_ratio_whose_denominator_may_vanish_has_no_bounds() -> None:
    estimate = ratio_estimate(np.array([1.0, 1.0]), np.array([1.0, 0.0]), seed=0)
    assert (estimate.value, estimate.low, estimate.high) == (2, -np.inf, np.inf)


def test_progress_names_the_ablation(at: Bench) -> None:
    seen: list[tuple[str, int, int]] = []
    at.faithfulness([SOME.nodes], lambda *step: seen.append(step))
    assert seen == [
        (f"judging, {at.ablation} ablation", i + 1, len(at.batches)) for i in range(len(at.batches))
    ]
