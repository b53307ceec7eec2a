"""Every format: what is written reads back, and what is no such file is said so."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from circuits.circuit import Circuit, edge_circuit
from circuits.errors import CircuitError
from circuits.exchange import FORMATS
from circuits.exchange.format import Format
from circuits.graph import Graph
from circuits.scored_circuit import IMPORTED, IN_FILE, ScoredCircuit, top

finite = st.floats(allow_nan=False, allow_infinity=False)
measured = st.tuples(finite, st.none() | finite)
words = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], include_characters=" "), max_size=9
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module", params=FORMATS.names())
def form(request: pytest.FixtureRequest) -> Format:
    found: Format = FORMATS.load(request.param)
    return found


@st.composite
def scored_circuits(draw: st.DrawFn) -> ScoredCircuit:
    n_kv_heads = draw(st.sampled_from([1, 2]))
    graph = Graph(
        draw(st.integers(1, 2)), n_kv_heads * draw(st.sampled_from([1, 3])), n_kv_heads, draw(st.booleans())
    )
    method, selection = draw(words.map("eap".__add__)), draw(words.map("top".__add__))
    scores = {name: draw(measured) for name in graph.sources if draw(st.booleans())}
    edges: dict[str, Any] = {}
    links: dict[Any, Any] = {}
    if draw(st.booleans()):
        kept = draw(st.sets(st.sampled_from(tuple(graph.places)), max_size=6))
        circuit = edge_circuit(graph, kept, method, selection)
        edges = draw(st.dictionaries(st.sampled_from(tuple(graph.places)), measured, max_size=6))
        if draw(st.booleans()):
            edges = {edge: edges.get(edge, (0.1, None)) for edge in graph.places}
    else:
        names = draw(st.sets(st.sampled_from(graph.components)))
        circuit = Circuit(tuple(n for n in graph.components if n in names), method, selection)
        links = {link: draw(st.none() | finite) for link in graph.links(circuit.nodes)}
    others = words.filter(
        lambda word: word not in FORMATS.names()
    )  # a format's own key has a shape of its own
    extras = draw(st.dictionaries(others, json_values, max_size=2))
    return ScoredCircuit(graph, circuit, scores, links, edges, draw(words), extras)


@settings(max_examples=40, phases=[Phase.generate], deadline=None)
@given(scored=scored_circuits())
def test_what_is_written_reads_back(form: Format, scored: ScoredCircuit) -> None:
    data = form.write(scored)
    assert form.read(data) == scored
    assert form.write(form.read(data)) == data


@settings(max_examples=30, deadline=None)
@given(scored=scored_circuits())
def test_a_circuit_survives_the_whole_chain_of_formats(scored: ScoredCircuit) -> None:
    passed = scored
    for name in FORMATS.names():
        form = FORMATS.load(name)
        passed = form.read(form.write(passed))
    assert passed == scored


@pytest.mark.parametrize("kept", [[1], {"cfg": "x"}, {"nodes": {"m0": [1]}}, {"edges": {"m0->logits": 3}}])
def test_what_a_format_keeps_under_its_own_key_must_be_its_own(kept: Any) -> None:
    graph = Graph(1, 2, 1)
    scored = ScoredCircuit(graph, edge_circuit(graph, [], "eap", "top 0"), extras={"eap-ig": kept})
    with pytest.raises(CircuitError, match=r"EAP-IG file, .* where a JSON object is meant"):
        FORMATS.load("eap-ig").write(scored)


def test_a_file_is_recognised_by_one_format_and_mib_is_eap_ig() -> None:
    graph = Graph(1, 2, 1)
    scored = ScoredCircuit(graph, edge_circuit(graph, ["m0->logits"], "eap", "top 1"))
    for name in FORMATS.names():
        data = FORMATS.load(name).write(scored)
        found = [other for other in FORMATS.names() if FORMATS.load(other).recognises(data)]
        assert found == ["eap-ig" if name == "mib" else name]


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe\x00", b"no", b"[1]", b"{}", b"<a><b></a>", b"PK\x03\x04", b"[" * 99999]
)
def test_other_files_are_refused_in_one_clear_message(form: Format, data: bytes) -> None:
    with pytest.raises(CircuitError) as caught:
        form.read(data)
    assert (
        "This is no" in str(caught.value)
        or "has no field" in str(caught.value)
        or "The file" in str(caught.value)
    )


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.99])
def test_half_a_file_is_refused(form: Format, cut: float) -> None:
    graph = Graph(2, 2, 2)
    edges = {edge: (float(i), None) for i, edge in enumerate(graph.places)}
    data = form.write(ScoredCircuit(graph, edge_circuit(graph, list(edges)[:9], "eap", "top 9"), edges=edges))
    with pytest.raises(CircuitError):
        form.read(data[: int(len(data) * cut)])


VALUES = [None, "x", -1, 10**400, [], {}, [[1, 2]], True, 1.5, float("nan")]


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to everything within a JSON value."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, entry in entries:
        yield (*path, key)
        yield from places_in(entry, (*path, key))


def spoilt(data: bytes, draw: random.Random) -> bytes:
    """A file with one thing changed: a value of JSON, or bytes of any other."""
    if data[:1] != b"{":
        place = draw.randrange(len(data))
        wrong = draw.choice([b"", b'"', b"1e999", b"nan", b"<", b"7", b"q", b"\xff"])
        return data[:place] + wrong + data[place + draw.choice([0, 1, 9]) :]
    tables = json.loads(data)
    *path, last = draw.choice(list(places_in(tables)))
    entry = tables
    for key in path:
        entry = entry[key]
    entry[last] = draw.choice(VALUES)
    return json.dumps(tables).encode()


def test_whatever_is_changed_in_a_file_it_reads_or_is_refused(form: Format) -> None:
    graph = Graph(1, 2, 1)
    by_edges = ScoredCircuit(
        graph,
        edge_circuit(graph, ["m0->logits", "input->a0.h0<k>"], "eap", "top 2"),
        {"m0": (0.5, 0.1)},
        edges={"m0->logits": (0.1, 0.2), "input->m0": (0.3, None)},
        model="mine",
        extras={"a": {"b": [1]}},
    )
    circuit = Circuit(("m0",), "sae", "top 1")
    by_nodes = ScoredCircuit(graph, circuit, {"m0": (0.5, 0.1)}, dict.fromkeys(graph.links(("m0",)), 0.5))
    draw = random.Random(0)
    refused = 0
    for scored in (by_edges, by_nodes):
        data = form.write(scored)
        for _ in range(100):
            try:
                form.read(spoilt(data, draw))
            except CircuitError:
                refused += 1
    assert refused > 40


@pytest.mark.parametrize("n_layers", [10**12, 3000])
def test_a_shape_beyond_all_models_is_refused_before_memory_is_full(n_layers: int) -> None:
    scored = ScoredCircuit(Graph(2, 9, 9), edge_circuit(Graph(2, 9, 9), ["m0->m1"], "eap", "top 1"))
    for name, said in (("dot", 'n_layers="2"'), ("neuronpedia", '"n_layers": 2')):
        form = FORMATS.load(name)
        text = form.write(scored).decode()
        assert said in text
        with pytest.raises(CircuitError, match="more than"):
            form.read(text.replace(said, said.replace("2", str(n_layers)), 1).encode())


def test_top_keeps_the_largest_by_size_and_ties_by_the_order_of_the_graph() -> None:
    graph = Graph(1, 1, 1)
    edges = dict.fromkeys(graph.places, (0.0, None)) | {
        "m0->logits": (-3.0, None),
        "a0.h0->m0": (2.0, None),
    }
    scored = ScoredCircuit(graph, edge_circuit(graph, [], IMPORTED, IN_FILE), edges=edges)
    assert top(scored, 2).circuit.edges == ("a0.h0->m0", "m0->logits")
    assert top(scored, 3).circuit.edges == ("input->a0.h0<q>", "a0.h0->m0", "m0->logits")
    assert top(scored, 2).circuit.nodes == ("a0.h0", "m0")
    by_nodes = top(ScoredCircuit(graph, scored.circuit, {"m0": (-1.0, None), "input": (9.0, None)}), 1)
    assert by_nodes.circuit == Circuit(("m0",), IMPORTED, "top 1 by size of score")
    with pytest.raises(CircuitError, match="no scores"):
        top(ScoredCircuit(graph, scored.circuit), 1)
