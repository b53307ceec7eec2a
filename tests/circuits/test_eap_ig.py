"""EAP-IG's files: theirs byte for byte, the layout of the tensors by their formula, and what is wrong by name."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits.circuit import Circuit, edge_circuit
from circuits.errors import CircuitError
from circuits.exchange import FORMATS, eap_ig, eap_ig_pt
from circuits.exchange.files import read_circuit
from circuits.graph import Graph
from circuits.scored_circuit import IMPORTED, IN_FILE, ScoredCircuit


def all_edges(n_layers: int, n_heads: int, parallel: bool) -> Iterator[str]:
    """Every edge in the order in which EAP-IG builds its graph, from its own loops."""
    stream = ["input"]
    for layer in range(n_layers):
        heads = [f"a{layer}.h{head}" for head in range(n_heads)]
        for source in stream:
            yield from (f"{source}->{head}<{x}>" for head in heads for x in "qkv")
            if parallel:
                yield f"{source}->m{layer}"
        if not parallel:
            yield from (f"{source}->m{layer}" for source in stream + heads)
        stream += [*heads, f"m{layer}"]
    yield from (f"{source}->logits" for source in stream)


def a_file(n_layers: int = 2, n_heads: int = 2, parallel: bool = False) -> dict[str, Any]:
    names = ["input", *Graph(n_layers, n_heads, n_heads).components, "logits"]
    edges = list(all_edges(n_layers, n_heads, parallel))
    return {
        "cfg": {"n_layers": n_layers, "n_heads": n_heads, "parallel_attn_mlp": parallel, "d_model": 3},
        "nodes": {name: {"in_graph": name[-1] != "1"} for name in names},
        "edges": {edge: {"score": i / 7 - 1, "in_graph": i % 3 == 0} for i, edge in enumerate(edges)},
    }


def test_their_file_comes_back_byte_for_byte_through_json_and_tensors(shared: Path) -> None:
    path = shared / "data" / "eap_ig" / "example_graph_4L4H.json"
    found = read_circuit(path)
    assert found.format == "eap-ig"
    scored = found.scored
    assert scored.circuit.edges is not None
    assert (len(scored.edges), len(scored.circuit.edges), len(scored.circuit.nodes)) == (479, 48, 15)
    assert eap_ig.write(scored) == path.read_bytes()
    assert eap_ig.write(eap_ig_pt.read(eap_ig_pt.write(scored))) == path.read_bytes()


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("with_node_scores", [False, True])
@pytest.mark.parametrize("with_neurons", [False, True])
def test_whatever_a_file_says_is_said_again(
    parallel: bool, with_node_scores: bool, with_neurons: bool
) -> None:
    written = a_file(2, 3, parallel) | {"notes": ["kept"]}
    written["edges"]["m0->logits"]["rank"] = 4
    for i, (name, node) in enumerate(written["nodes"].items()):
        if name != "logits" and with_node_scores:
            node["score"] = math.nan if i == 2 else i / 3
        if name != "logits" and with_neurons:
            node |= {"neurons": [True, False, True], "neurons_scores": [0.5, math.nan, -1.0]}
    scored = eap_ig.read(json.dumps(written).encode())
    assert len(scored.scores) == (8 if with_node_scores else 0)
    assert json.dumps(eap_ig.to_tables(scored)) == json.dumps(written)
    again = eap_ig_pt.read(eap_ig_pt.write(scored))
    assert again == scored
    for name in FORMATS.names():
        form = FORMATS.load(name)
        assert form.read(form.write(scored)) == scored, name


def test_nodes_that_are_marked_without_edges_stay_marked_until_something_else_is_chosen() -> None:
    scored = eap_ig.from_tables(a_file())
    assert "nodes_in_graph" in scored.extras["eap-ig"]
    chosen = edge_circuit(scored.graph, ["m1->logits"], IMPORTED, "top 1 by size of score")
    again = eap_ig.to_tables(ScoredCircuit(scored.graph, chosen, edges=scored.edges, extras=scored.extras))
    assert {name for name, node in again["nodes"].items() if node["in_graph"]} == {"input", "m1", "logits"}


@pytest.mark.parametrize("parallel", [False, True])
def test_the_tensors_are_laid_out_by_their_formula(parallel: bool) -> None:
    n_layers, n_heads = 2, 3
    tables = a_file(n_layers, n_heads, parallel)
    found = torch.load(io.BytesIO(eap_ig_pt.write(eap_ig.from_tables(tables))), weights_only=True)
    assert set(found) == {
        "cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph"
    }  # fmt: skip

    def forward(name: str) -> int:
        if name == "input":
            return 0
        layer, _, head = name[1:].partition(".h")
        return 1 + int(layer) * (n_heads + 1) + (int(head) if head else n_heads)

    def backward(name: str) -> int:
        if name == "logits":
            return -1
        layer, _, rest = name[1:].partition(".h")
        base = int(layer) * (3 * n_heads + 1)
        return base + 3 * n_heads if not rest else base + "qkv".index(rest[-2]) * n_heads + int(rest[:-3])

    places = set()
    for edge, entry in tables["edges"].items():
        source, target = edge.split("->")
        place = forward(source), backward(target)
        assert found["edges_scores"][place] == entry["score"]
        assert found["edges_in_graph"][place] == entry["in_graph"]
        assert (found["src_nodes"][place[0]], found["dst_nodes"][place[1]]) == (source, target)
        places.add((place[0], place[1] % len(found["dst_nodes"])))
    assert len(places) == len(tables["edges"])
    assert found["edges_in_graph"].sum() == sum(entry["in_graph"] for entry in tables["edges"].values())


def test_a_float32_score_is_written_as_float32() -> None:
    graph = Graph(1, 1, 1)
    for score, dtype in ((0.5, torch.float32), (0.1, torch.float64)):
        edges = dict.fromkeys(graph.places, (score, None))
        data = eap_ig_pt.write(ScoredCircuit(graph, edge_circuit(graph, [], IMPORTED, IN_FILE), edges=edges))
        assert torch.load(io.BytesIO(data), weights_only=True)["edges_scores"].dtype == dtype


def test_a_group_s_edge_becomes_one_a_head_in_equal_shares() -> None:
    graph = Graph(1, 6, 2)
    kept = edge_circuit(graph, ["input->a0.h3<k>"], "eap", "top 1")
    scored = ScoredCircuit(
        graph, kept, edges={"input->a0.h3<k>": (0.1, None), "input->a0.h3<q>": (1.0, None)}
    )
    edges = eap_ig.to_tables(scored)["edges"]
    assert list(edges) == list(all_edges(1, 6, False))
    group = [edges[f"input->a0.h{head}<k>"] for head in (3, 4, 5)]
    assert [entry["score"] for entry in group] == pytest.approx([0.1 / 3] * 3)
    assert math.fsum(entry["score"] for entry in group) == 0.1
    assert [name for name, entry in edges.items() if entry["in_graph"]] == [
        f"input->a0.h{head}<k>" for head in (3, 4, 5)
    ]
    assert "Groups of 3 heads" in eap_ig.caveats(scored)[0]


def test_an_ungrouped_model_of_theirs_keeps_each_head_s_own_scores() -> None:
    scored = eap_ig.from_tables(a_file(1, 2))
    assert scored.graph.n_kv_heads == 2
    assert scored.edges["input->a0.h0<k>"] != scored.edges["input->a0.h1<k>"]


def test_a_node_circuit_keeps_the_edges_between_its_nodes() -> None:
    graph = Graph(1, 2, 2)
    tables = eap_ig.to_tables(ScoredCircuit(graph, Circuit(("a0.h1", "m0"), "sae", "top 2")))
    kept = {edge for edge, entry in tables["edges"].items() if entry["in_graph"]}
    assert kept == set(graph.edges(("a0.h1", "m0")))


def without(tables: dict[str, Any], *path: str) -> None:
    for key in path[:-1]:
        tables = tables[key]
    del tables[path[-1]]


def put(tables: dict[str, Any], value: object, *path: str) -> None:
    for key in path[:-1]:
        tables = tables[key]
    tables[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (("cfg",), "The file has no field 'cfg'"),
        (("edges",), "The file has no field 'edges'"),
        (("cfg", "n_heads"), "cfg has no field 'n_heads'"),
        (("nodes", "a1.h0"), "there must be a node a1.h0"),
        (("nodes", "m1", "in_graph"), "node m1 has no field 'in_graph'"),
        (("edges", "m0->a1.h1<v>"), "1 of them are not listed, the first is m0->a1.h1<v>"),
        (("edges", "m0->a1.h1<v>", "score"), "edge m0->a1.h1<v> has no field 'score'"),
        (("edges", "m0->a1.h1<v>", "in_graph"), "edge m0->a1.h1<v> has no field 'in_graph'"),
    ],
)
def test_a_missing_field_is_named_with_its_entry(path: tuple[str, ...], said: str) -> None:
    tables = a_file()
    without(tables, *path)
    with pytest.raises(CircuitError) as caught:
        eap_ig.read(json.dumps(tables).encode())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "path", "said"),
    [
        (math.nan, ("edges", "m0->m1", "score"), "score of edge m0->m1 is nan"),
        (math.inf, ("nodes", "m0", "score"), "score of node m0 is inf"),
        ("big", ("edges", "m0->m1", "score"), "score of edge m0->m1 is 'big'"),
        (10**400, ("edges", "m0->m1", "score"), "score of edge m0->m1 is 1000"),
        (1, ("edges", "m0->m1", "in_graph"), "in_graph of edge m0->m1 is 1"),
        (3, ("edges", "m0->m1"), "edge m0->m1 is 3"),
        ({}, ("edges", "m1->m0"), "does not fit its cfg: m1->m0 is no edge of this model"),
        ({}, ("edges", "a7.h0->logits"), "does not fit its cfg: a7.h0 is not in this model"),
        ({"in_graph": True}, ("nodes", "m9"), "does not fit its cfg: m9 is not in this model"),
        (1, ("cfg", "n_layers"), "does not fit its cfg: a1.h0 is not in this model"),
        (3, ("cfg", "n_layers"), "there must be a node a2.h0"),
        (10**12, ("cfg", "n_layers"), "more than any model"),
        (3000, ("cfg", "n_heads"), "more than can be listed"),
        (0, ("cfg", "n_heads"), "n_heads of cfg is 0"),
        (True, ("cfg", "n_heads"), "n_heads of cfg is True"),
        (3, ("cfg", "n_kv_heads"), "no whole groups"),
        ("no", ("cfg", "parallel_attn_mlp"), "parallel is 'no'"),
        ([], ("nodes",), "nodes is []"),
    ],
)
def test_a_bad_value_is_named_with_its_entry(value: object, path: tuple[str, ...], said: str) -> None:
    tables = a_file()
    put(tables, value, *path)
    with pytest.raises(CircuitError) as caught:
        eap_ig.read(json.dumps(tables).encode())
    assert said in str(caught.value)


def test_heads_of_a_group_that_disagree_are_named() -> None:
    tables = a_file(1, 2)
    tables["cfg"]["n_kv_heads"] = 1
    tables["edges"]["input->a0.h1<k>"]["in_graph"] = True
    with pytest.raises(CircuitError, match=r"input->a0.h0<k> is one edge for a group of 2 heads"):
        eap_ig.from_tables(tables)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("value", [Path("x"), torch.nn.Linear(1, 1)])
def test_a_pickle_of_anything_else_is_refused(value: object) -> None:
    with pytest.raises(CircuitError, match="no file of plain tensors"):
        eap_ig_pt.read(saved({"cfg": value}))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("nodes_in_graph", None, "The file has no field 'nodes_in_graph'"),
        ("edges_scores", torch.zeros(2, 2), "edges_scores is [2, 2]; cfg has 2 layers x 2 heads"),
        ("edges_in_graph", [True], "edges_in_graph is list"),
        ("edges_scores", torch.full((7, 15), math.nan), "score of edge input->a0.h0<q> is nan"),
        ("nodes_scores", torch.zeros(3), "nodes_scores is [3]"),
        ("dst_nodes", ["logits"], "dst_nodes does not fit cfg: it has logits where a0.h0<q>"),
        ("src_nodes", ["input"], "src_nodes does not fit cfg: it has 1 names where 7"),
        ("cfg", {"n_layers": 10**9, "n_heads": 10**9, "parallel_attn_mlp": False}, "more than any model"),
    ],
)
def test_tensors_that_do_not_fit_are_named(key: str, value: object, said: str) -> None:
    found = torch.load(io.BytesIO(eap_ig_pt.write(eap_ig.from_tables(a_file()))), weights_only=True)
    found[key] = value
    with pytest.raises(CircuitError) as caught:
        eap_ig_pt.read(saved({k: v for k, v in found.items() if v is not None}))
    assert said in str(caught.value)


@pytest.mark.parametrize("value", [-sys.float_info.max, 1e300, 0.1, 0.5])
def test_scores_that_are_too_large_or_too_fine_for_float32_keep_their_digits(value: float) -> None:
    graph = Graph(1, 2, 2)
    edges = dict.fromkeys(graph.places, (value, None))
    scored = ScoredCircuit(graph, Circuit((), "eap", "none", ()), edges=edges)
    form = FORMATS.load("eap-ig-pt")
    assert form.read(form.write(scored)).edges == edges
