"""Faithfulness by size: what is judged by itself, the stops, and the verdict at a circuit's own."""

from __future__ import annotations

import numpy as np
import pytest
from made_bench import made_bench
from test_curves import _bench, _random_scores
from test_edges import MakeProblem, Tiny
from tiny_models import prompt_pairs

from circuits.discovery import Plan, discover
from circuits.edge_selection import connected
from circuits.evaluation.by_size import STOPS, by_size, stops
from circuits.evaluation.faithfulness import edge_bench
from circuits.graph import Graph
from circuits.methods import METHODS
from circuits.models.bridge import BridgeModel
from circuits.selection import Selection


def test_stops_are_few_and_hold_their_own() -> None:
    assert stops(5) == (1, 2, 3, 4, 5)
    assert stops(157) == (1, 2, 3, 4, 5, 8, 11, 15, 21, 29, 41, 57, 80, 112, 157)
    for total in (16, 17, 36, 157, 32491):
        plain = stops(total)
        assert len(plain) <= STOPS
        assert (plain[0], plain[-1]) == (1, total)
        for own in ({total}, {1, total // 2}, {total // 3, total // 3 + 1}, {total - 1}):
            assert own <= set(stops(total, own))
            assert len(stops(total, own)) == len(plain)


@pytest.mark.parametrize("granularity", ["node", "edge"])
def test_every_stop_is_what_its_circuit_is_judged_alone(
    granularity: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny("tiny-llama")
    at = _bench(model, problem(model).batches)
    at = edge_bench(at) if granularity == "edge" else at
    scores = _random_scores(at.played)
    ranking = sorted(at.played, key=lambda name: -abs(scores.of(name)))
    found = by_size(at, scores, {7}, seed=0)
    assert {1, 7, len(ranking)} <= {prefix.n for prefix in found}
    for prefix in found:
        first = ranking[: prefix.n]
        circuit = connected(model.graph, first) if granularity == "edge" else first
        assert prefix.kept == len(circuit)
        assert prefix.faithfulness.value == pytest.approx(float(at.faithfulness([circuit])[0]), abs=2e-5)


def test_a_scale_that_may_vanish_gives_no_interval() -> None:
    graph = Graph(2, 2, 2)
    at = made_bench(graph, lambda kept: len(kept) * np.array([1.0, -1, 1, 1]))
    found = by_size(at, _random_scores(graph.components), seed=0)
    assert [prefix.faithfulness.value for prefix in found] == pytest.approx([n / 6 for n in range(1, 7)])
    assert found[0].faithfulness.high == float("inf")


def test_a_run_has_its_circuits_own_size(gpt2: BridgeModel) -> None:
    """Of a circuit that is the first n of the ranking it is the verdict, interval and all."""
    method = METHODS.load("activation-patching")
    plan = Plan(((method, method.configure({})),), selection=Selection(rule="top", n=5), n_random=3)
    (finding,) = discover(gpt2, prompt_pairs(12), plan).findings
    (own,) = [prefix.faithfulness for prefix in finding.sizes if prefix.n == 5]
    verdict = finding.verdicts[0].faithfulness
    assert (own.value, own.low, own.high) == pytest.approx(
        (verdict.value, verdict.low, verdict.high), rel=1e-4
    )
