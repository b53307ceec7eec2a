"""GraphML: what is written reads back, and other programs can read it."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.circuit import Circuit
from circuits.errors import CircuitError
from circuits.exchange.graphml import ScoredCircuit, from_graphml, scored_circuit, to_graphml
from circuits.graph import Graph
from circuits.scores import Scores

finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def scored_circuits(draw: st.DrawFn) -> ScoredCircuit:
    n_heads = draw(st.sampled_from([1, 2, 4]))
    graph = Graph(draw(st.integers(1, 3)), n_heads, draw(st.sampled_from([1, n_heads])), draw(st.booleans()))
    kept = draw(st.sets(st.sampled_from(graph.components)))
    circuit = Circuit(
        tuple(n for n in graph.components if n in kept), "sae", draw(st.sampled_from(["top 3", "a < b"]))
    )
    scores = {name: (draw(finite), draw(finite)) for name in graph.components if draw(st.booleans())}
    links = {link: draw(st.none() | finite) for link in graph.links(circuit.nodes)}
    return ScoredCircuit(graph, circuit, scores, links)


@settings(max_examples=50, deadline=None)
@given(scored_circuits())
def test_what_is_written_reads_back(scored: ScoredCircuit) -> None:
    text = to_graphml(scored)
    assert from_graphml(text) == scored
    assert to_graphml(from_graphml(text)) == text


def test_the_file_holds_every_node_and_the_circuits_links() -> None:
    graph = Graph(2, 2, 2)
    samples = np.arange(12.0).reshape(2, 6)
    scores = Scores("activation-patching", graph.components, samples, links={("a0.h1", "m1"): 0.25})
    circuit = Circuit(("a0.h1", "m1"), "activation-patching", "top 2")
    network = nx.parse_graphml(to_graphml(scored_circuit(graph, circuit, scores)))
    assert set(network) == {"input", *graph.components, "logits"}
    assert network.nodes["a0.h1"] == {
        "kind": "head",
        "layer": 0,
        "index": 1,
        "in_circuit": True,
        "score": 4.0,
        "stderr": pytest.approx(3.0),
    }
    assert network.edges["a0.h1", "m1"]["score"] == 0.25
    assert set(network.edges) == set(graph.links(circuit.nodes))


def test_every_key_has_its_own_id() -> None:
    text = to_graphml(
        ScoredCircuit(
            Graph(1, 1, 1), Circuit(("m0",), "sae", "all"), {"m0": (1.0, 0.0)}, {("m0", "logits"): 1.0}
        )
    )
    ids = [line.split('id="')[1].split('"')[0] for line in text.splitlines() if "<key" in line]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("text", ["", "no xml", "<graphml/>", "<a><b></a>"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(CircuitError, match="no GraphML of a circuit"):
        from_graphml(text)


def test_another_graph_is_refused() -> None:
    with pytest.raises(CircuitError, match="no GraphML of a circuit"):
        from_graphml("\n".join(nx.generate_graphml(nx.path_graph(3))))
