"""Growing circuits of edges, and what hangs in the air."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_edges import MakeProblem, Tiny

from circuits.circuit import edge_circuit
from circuits.edge_selection import connected, greedy_order
from circuits.evaluation.faithfulness import Bench, donor_maker, edge_bench, judge, random_edge_circuits
from circuits.graph import Graph
from circuits.metrics import logit_difference
from circuits.scores import Scores

GRAPHS = st.builds(
    lambda n_layers, n_kv, group, parallel: Graph(n_layers, n_kv * group, n_kv, parallel),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
    st.booleans(),
)


def _scores(graph: Graph, seed: int) -> Scores:
    values = np.random.default_rng(seed).normal(size=(1, len(graph.places)))
    return Scores("made-up", tuple(graph.places), values)


@given(GRAPHS, st.integers(0, 9))
def test_every_prefix_reaches_the_logits_and_every_edge_comes_once(graph: Graph, seed: int) -> None:
    order = greedy_order(graph, _scores(graph, seed))
    assert sorted(order) == sorted(graph.places)
    there = {"logits"}
    for edge in order:
        source, reader = edge.split("->")
        assert there.intersection(graph.served(reader)), edge
        there.add(source)


def test_growth_takes_the_largest_of_what_is_within_reach() -> None:
    graph = Graph(1, 2, 2)
    sizes = {
        "a0.h0->logits": 3.0,
        "m0->logits": -2.0,
        "input->a0.h0<k>": 9.0,
        "input->m0": 8.0,
        "a0.h1->m0": 7.0,
    }
    values = np.array([[sizes.get(edge, 0.1) for edge in graph.places]])
    order = greedy_order(graph, Scores("made-up", tuple(graph.places), values))
    assert order[:5] == ("a0.h0->logits", "input->a0.h0<k>", "m0->logits", "input->m0", "a0.h1->m0")


@given(GRAPHS, st.integers(0, 9), st.floats(0.05, 0.9))
def test_what_is_connected_lies_on_a_path_from_input_to_logits(graph: Graph, seed: int, share: float) -> None:
    import networkx as nx

    some = [e for e in graph.places if np.random.default_rng([seed, zlib.crc32(e.encode())]).random() < share]
    network: nx.DiGraph[str] = nx.DiGraph([("input", "input")])
    for edge in some:
        source, reader = edge.split("->")
        network.add_edge(source, edge)
        network.add_edges_from((edge, node) for node in graph.served(reader))
    forwards = nx.descendants(network, "input")
    backwards = nx.ancestors(network, "logits") if "logits" in network else set()
    assert set(connected(graph, some)) == set(some) & forwards & backwards


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama", "tiny-neox"])
def test_leaving_out_what_hangs_in_the_air_changes_nothing(
    family: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(family)
    batches = problem(model).batches
    at = edge_bench(
        Bench(model, batches, logit_difference, "resample", (), donor_maker(model, "resample", batches))
    )
    rng = np.random.default_rng(0)
    circuits = [[e for e in at.played if rng.random() < share] for share in (0.03, 0.1, 0.3)]
    joined = [connected(model.graph, circuit) for circuit in circuits]
    assert [len(a) for a in joined] != [len(b) for b in circuits]
    outcome = at.outcome([*circuits, *joined]).metric
    torch.testing.assert_close(outcome[:3], outcome[3:], atol=2e-5, rtol=0)


def test_a_circuit_of_edges_is_judged_beside_random_ones_of_its_size(
    tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny("tiny-llama")
    batches = problem(model).batches
    at = edge_bench(
        Bench(model, batches, logit_difference, "resample", (), donor_maker(model, "resample", batches))
    )
    order = greedy_order(model.graph, _scores(model.graph, 0))
    whole = edge_circuit(model.graph, order, "made-up", "all")
    verdict = judge(at, whole, seed=0, n_random=3)
    assert verdict.faithfulness.value == pytest.approx(1, abs=1e-4)
    assert verdict.random.median == pytest.approx(1, abs=1e-4)
    some = edge_circuit(model.graph, order[:20], "made-up", "top 20")
    chance = random_edge_circuits(model.graph, at.played, some, 3, seed=0)
    assert [len(circuit) for circuit in chance] == [20] * 3
    assert len(set(chance)) == 3
    assert judge(at, some, seed=0, n_random=3).random.n == 3
