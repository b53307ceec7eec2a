"""Curves over sizes: ten evaluations by themselves, areas by hand, chance beside."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from made_bench import made_bench
from test_edges import MakeProblem, Tiny

from circuits.batches import Batch
from circuits.edge_selection import connected
from circuits.errors import CircuitError
from circuits.evaluation.curves import SHARES, area, curves, measured, nested, ranked, sizes
from circuits.evaluation.faithfulness import Bench, donor_maker, edge_bench, ratio_estimate
from circuits.graph import Graph
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel
from circuits.scores import Scores


def _bench(model: BridgeModel, batches: tuple[Batch, ...], ablation: str = "resample") -> Bench:
    played = model.graph.components
    return Bench(model, batches, logit_difference, ablation, played, donor_maker(model, ablation, batches))  # type: ignore[arg-type]


def _random_scores(names: tuple[str, ...], seed: int = 0) -> Scores:
    return Scores("made-up", names, np.random.default_rng(seed).normal(size=(1, len(names))))


@pytest.mark.parametrize("granularity", ["node", "edge"])
@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
def test_a_curve_of_ten_sizes_is_ten_separate_evaluations(
    granularity: str, ablation: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny("tiny-llama")
    at = _bench(model, problem(model).batches, ablation)
    at = edge_bench(at) if granularity == "edge" else at
    scores = _random_scores(at.played)
    found = curves(at, scores, seed=0, n_random=1, chance=at)
    for curve, order in ((found.signed, "signed"), (found.absolute, "absolute")):
        ranking = sorted(
            at.played,
            key=lambda c, order=order: -(scores.of(c) if order == "signed" else abs(scores.of(c))),  # type: ignore[misc]
        )
        for point in curve.points:
            prefix = ranking[: max(1, int(point.share * len(at.played)))]
            circuit = connected(model.graph, prefix) if granularity == "edge" else prefix
            alone = float(at.faithfulness([circuit])[0])
            assert point.n == len(prefix)
            assert point.actual == len(circuit) / len(at.played)
            assert point.faithfulness.value == pytest.approx(alone, abs=2e-5)
    assert found.signed.points[-1].faithfulness.value == pytest.approx(1, abs=1e-4)
    assert found.cpr is found.signed.cpr
    assert found.cmd is found.absolute.cmd


def test_areas_by_hand() -> None:
    """All of it, the right half by one jump, and what overshoots."""
    assert area(np.ones(10)) == pytest.approx(0.999)
    jump = np.array([share >= 0.1 for share in SHARES], float)
    assert area(jump) == pytest.approx((0.1 - 0.05) / 2 + 0.9)
    assert area(1 - jump) == pytest.approx(0.999 - (0.025 + 0.9))
    straight = np.array(SHARES)
    assert area(straight) == pytest.approx((1 - 0.001**2) / 2)
    assert area(np.full(10, 1.5)) > 1


def test_the_cpr_of_a_perfect_ranking_by_hand() -> None:
    """Seven of a hundred are needed and come first: nothing up to 5%, all from 10% on, for every draw of prompts."""
    graph, scale = Graph(10, 9, 9), np.arange(1.0, 7)
    needed = set(graph.components[40:47])
    at = made_bench(graph, lambda kept: scale * (needed <= kept) - 1)
    values = np.array([[2.0 if c in needed else -1 / (i + 1) for i, c in enumerate(graph.components)]])
    found = curves(at, Scores("made-up", graph.components, values), seed=0, n_random=4, chance=at)
    by_hand = (0.1 - 0.05) / 2 + 0.9
    assert (found.cpr.value, found.cpr.low, found.cpr.high) == pytest.approx((by_hand,) * 3)
    assert (found.cmd.value, found.cmd.low, found.cmd.high) == pytest.approx((0.999 - by_hand,) * 3)
    assert found.random.cpr.mean < 0.5 < found.cpr.value
    upside_down = curves(at, Scores("made-up", graph.components, -values), seed=0, n_random=4, chance=at)
    # By size of score -2 is as good as 2; by score it comes last.
    assert upside_down.absolute.cpr.value == pytest.approx(by_hand)
    assert upside_down.signed.cpr.value == pytest.approx(0.25)


def test_sizes_are_rounded_down_and_never_empty() -> None:
    assert sizes(32491) == (32, 64, 162, 324, 649, 1624, 3249, 6498, 16245, 32491)
    assert sizes(36) == (1, 1, 1, 1, 1, 1, 3, 7, 18, 36)
    assert sizes(1000) == tuple(round(1000 * share) for share in SHARES)


def test_what_has_no_score_comes_last_and_sizes_are_nested(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    at = edge_bench(_bench(model, problem(model).batches))
    some = at.played[10:60]
    ranking = ranked(_random_scores(some), at.played, "signed")
    assert sorted(ranking) == sorted(at.played)
    assert set(ranking[: len(some)]) == set(some)
    circuits = nested(at, ranking, sizes(len(ranking)))
    assert all(set(a) <= set(b) for a, b in pairwise(circuits))


def test_the_interval_of_a_point_is_that_of_the_ratio(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    at = _bench(model, problem(model, 12).batches)
    scores = _random_scores(at.played)
    point = curves(at, scores, seed=3, n_random=1, chance=at).signed.points[7]
    circuit = ranked(scores, at.played, "signed")[: point.n]
    inside = at.outcome([circuit]).metric[0].double().numpy()
    nothing, everything = at.ends.metric.double().numpy()
    expected = ratio_estimate(inside - nothing, everything - nothing, seed=3)
    assert point.faithfulness.value == pytest.approx(expected.value, abs=1e-4)
    assert (point.faithfulness.low, point.faithfulness.high) == pytest.approx(
        (expected.low, expected.high), abs=1e-3
    )


def test_each_different_circuit_runs_once(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    at, asked = _bench(model, problem(model).batches), []

    def worth(kept: frozenset[str]) -> np.ndarray:
        asked.append(kept)
        return at.outcome([kept]).metric[0].numpy()

    counting = made_bench(model.graph, worth)
    found = measured(counting, [[("m0",), ("m0",), ()], [at.played, ("m0",)]])
    assert len(asked) == 3
    np.testing.assert_array_equal(found.inside[0][0], found.inside[1][1])
    np.testing.assert_array_equal(found.inside[1][0], found.everything)


def test_a_scale_without_length_has_no_curve() -> None:
    at = made_bench(Graph(1, 2, 2), lambda kept: np.ones(4))
    with pytest.raises(CircuitError, match="faithfulness is undefined"):
        curves(at, _random_scores(at.played), seed=0, n_random=1, chance=at)
