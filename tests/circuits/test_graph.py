"""The graph: names, and which node may feed which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.errors import CircuitError
from circuits.graph import Graph

GRAPHS = st.builds(
    lambda n_layers, n_kv, group, parallel: Graph(n_layers, n_kv * group, n_kv, parallel),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
)
GPT2_SMALL = Graph(12, 12, 12)


@given(GRAPHS)
def test_names_round_trip(graph: Graph) -> None:
    for name in (*graph.sources, "logits"):
        assert graph.node(name).name == name
    assert len(set(graph.sources)) == 1 + graph.n_layers * (graph.n_heads + 1)


@given(GRAPHS)
def test_edges_are_unique_legal_and_run_forwards(graph: Graph) -> None:
    edges = list(graph.edges())
    assert len(set(edges)) == len(edges)
    order = {name: i for i, name in enumerate((*graph.sources, "logits"))}
    for edge in edges:
        source, entry = edge.split("->")
        target = entry.split("<")[0]
        assert order[source] < order[target]
        assert graph.feeds(source, target)
        assert entry in graph.inputs(target)
    assert {(e.split("->")[0], e.split("->")[1].split("<")[0]) for e in edges} == set(
        graph.links(graph.components)
    )


@given(GRAPHS)
def test_the_number_of_edges_is_the_sum_by_hand(graph: Graph) -> None:
    """Each head has a q input, each group k and v; they see what lower layers wrote, MLPs their own heads too."""
    heads, inputs = graph.n_heads, graph.n_heads + 2 * graph.n_kv_heads
    below = [1 + layer * (heads + 1) for layer in range(graph.n_layers + 1)]
    expected = below[-1] + sum(b * inputs + b + (0 if graph.parallel else heads) for b in below[:-1])
    assert len(list(graph.edges())) == expected


def test_gpt2_small_has_157_sources_and_32491_edges() -> None:
    assert len(GPT2_SMALL.sources) == 157
    assert sum(1 for _ in GPT2_SMALL.edges()) == 32_491
    assert len(GPT2_SMALL.heads) == 144
    assert GPT2_SMALL.components[:2] == ("a0.h0", "a0.h1")
    assert GPT2_SMALL.components[12:14] == ("m0", "a1.h0")


def test_edges_are_spelled_as_the_field_spells_them() -> None:
    edges = set(GPT2_SMALL.edges())
    assert {"a9.h6->a10.h0<q>", "m2->logits", "input->m0", "input->a0.h0<k>", "a0.h3->m0"} <= edges
    assert not {"a9.h6->a9.h7<q>", "m0->a0.h0<q>", "m0->m0", "logits->m11", "input->input"} & edges
    assert "input->logits" in edges


def test_a_group_of_queries_shares_its_keys_and_values() -> None:
    graph = Graph(2, 4, 2)
    assert graph.inputs("a1.h2") == ("a1.h2<q>", "a1.h2<k>", "a1.h2<v>")
    assert graph.inputs("a1.h3") == ("a1.h3<q>",)
    assert graph.inputs("m1") == ("m1",)
    keys = [e for e in graph.edges() if e.startswith("input->a0") and "<k>" in e]
    assert keys == ["input->a0.h0<k>", "input->a0.h2<k>"]


def test_in_parallel_blocks_heads_do_not_feed_their_own_mlp() -> None:
    serial, parallel = Graph(2, 2, 2), Graph(2, 2, 2, parallel=True)
    assert set(serial.edges()) - set(parallel.edges()) == {f"a{i}.h{h}->m{i}" for i in (0, 1) for h in (0, 1)}
    assert parallel.feeds("a0.h0", "m1")
    assert parallel.feeds("m0", "a1.h0")


def test_edges_among_some_nodes_keep_input_and_logits() -> None:
    graph = Graph(2, 2, 2)
    assert list(graph.edges(["a0.h1", "m1"])) == [
        "input->a0.h1<q>", "input->a0.h1<k>", "input->a0.h1<v>",
        "input->m1", "a0.h1->m1", "input->logits", "a0.h1->logits", "m1->logits",
    ]  # fmt: skip
    assert list(graph.links(["a0.h1"])) == [("input", "a0.h1"), ("input", "logits"), ("a0.h1", "logits")]


@pytest.mark.parametrize(
    "name", ["h3", "a1h2", "a1.h2<q>", "m", "Input", "a-1.h0", "", "a1.h2 ", "a01.h2", "m²"]
)
def test_what_is_no_name_is_refused_with_examples(name: str) -> None:
    with pytest.raises(CircuitError, match=r"is no node name\. Nodes are input, a9\.h6"):
        GPT2_SMALL.node(name)


@pytest.mark.parametrize("name", ["a12.h0", "a0.h12", "m12"])
def test_nodes_of_larger_models_are_refused_with_the_shape(name: str) -> None:
    with pytest.raises(CircuitError, match=f"{name} is not in this model: it has 12 layers x 12 heads"):
        GPT2_SMALL.node(name)
