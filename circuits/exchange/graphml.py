"""A circuit as GraphML, the format that Gephi, Cytoscape, yEd and networkx read.

The one idea: every node of the model is there with its score, and every scored edge, so that a viewer may choose its
own threshold. The edges of an edge circuit say which input they enter (q, k or v); where nodes were chosen, links
run between them alone, inputs taken together, and carry a score where one was measured.
Format: http://graphml.graphdrawing.org/primer/graphml-primer.html
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from circuits.errors import CircuitError
from circuits.exchange.fields import flag, listable, mapping, number, number_or_none, shape, text
from circuits.exchange.format import Format
from circuits.graph import INPUT, LOGITS
from circuits.scored_circuit import (
    Link,
    Measured,
    ScoredCircuit,
    chosen,
    edge_name,
    input_of,
    scored_circuit,
)

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["FORMAT", "ScoredCircuit", "from_graphml", "scored_circuit", "to_graphml"]


def to_graphml(scored: ScoredCircuit) -> str:
    """The text of the file; the same circuit gives the same bytes."""
    import networkx as nx

    # Not nx.write_graphml: it writes other bytes where lxml happens to be installed.
    return "\n".join(nx.generate_graphml(_network(scored))) + "\n"


def _network(scored: ScoredCircuit) -> nx.DiGraph[str]:
    import networkx as nx

    by_edges = scored.granularity == "edge" or bool(scored.edges)
    network: nx.DiGraph[str] = (nx.MultiDiGraph if by_edges else nx.DiGraph)(**_about(scored))
    for name in (*scored.graph.sources, LOGITS):
        network.add_node(name, **_attributes(scored, name))
    for (source, target), score in scored.links.items():
        network.add_edge(source, target, **({} if score is None else {"score": float(score)}))
    kept = set(scored.circuit.edges or ())
    for edge in scored.listed:
        source, _, reader = edge.partition("->")
        about = {"in_circuit": edge in kept} | _measured(scored.edges.get(edge))
        entry = {"input": x} if (x := input_of(edge)) else {}
        # The key becomes the id, which tells edges of the same two nodes apart.
        network.add_edge(source, reader.partition("<")[0], edge, **entry, **about)  # type: ignore[call-arg]
    return network


def _about(scored: ScoredCircuit) -> dict[str, Any]:
    graph, circuit = scored.graph, scored.circuit
    about = {
        "method": circuit.method,
        "selection": circuit.selection,
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "n_kv_heads": graph.n_kv_heads,
        "parallel": graph.parallel,
    }
    more = {
        "granularity": "edge" if scored.granularity == "edge" else "",
        "model": scored.model,
        "extras": json.dumps(scored.extras) if scored.extras else "",
    }
    return about | {key: value for key, value in more.items() if value}


def _attributes(scored: ScoredCircuit, name: str) -> dict[str, Any]:
    node = scored.graph.node(name)
    return {
        "kind": node.kind,
        "layer": node.layer,
        "index": node.index,
        "in_circuit": name in (INPUT, LOGITS) or name in scored.circuit,
    } | _measured(scored.scores.get(name))


def _measured(measured: Measured | None) -> dict[str, Any]:
    if measured is None:
        return {}
    score, stderr = measured
    return {"score": float(score)} | ({} if stderr is None else {"stderr": float(stderr)})


def from_graphml(written: str) -> ScoredCircuit:
    """What to_graphml wrote. Raises CircuitError where the text is no GraphML, or not of this kind."""
    import networkx as nx

    try:
        with warnings.catch_warnings():  # networkx warns of what is refused below
            warnings.simplefilter("ignore")
            network = nx.parse_graphml(written, edge_key_type=str, force_multigraph=True)
        return _scored_circuit(network)
    except (nx.NetworkXError, ParseError, KeyError, TypeError, ValueError) as problem:
        what = f"{type(problem).__name__} {problem}"
        raise CircuitError(f"This is no GraphML of a circuit: {what}.") from problem


def _scored_circuit(network: nx.Graph[str]) -> ScoredCircuit:
    about = network.graph
    graph = shape(
        about["n_layers"], about["n_heads"], about["n_kv_heads"], about["parallel"], where="the graph"
    )
    granularity = about.get("granularity", "node")
    edges: dict[str, dict[str, Any]] = {}
    links: dict[Link, float | None] = {}
    for source, target, entry in network.edges(data=True):
        if "in_circuit" in entry:
            edges[edge_name(source, target, entry.get("input"))] = entry
        else:
            links[source, target] = number_or_none(entry.get("score"), f"score of link {source}, {target}")
    if edges:
        listable(graph).require_edges(edges)
    entries = edges if granularity == "edge" else {name: network.nodes[name] for name in graph.components}
    kept = {name for name, entry in entries.items() if flag(entry["in_circuit"], f"in_circuit of {name}")}
    return ScoredCircuit(
        graph=graph,
        circuit=chosen(
            graph, granularity, kept, text(about["method"], "method"), text(about["selection"], "selection")
        ),
        scores=_scores({name: network.nodes[name] for name in network}),
        links=links,
        edges=_scores(edges),
        model=text(about.get("model", ""), "model"),
        extras=mapping(json.loads(about.get("extras", "{}")), "extras"),
    )


def _scores(entries: dict[str, dict[str, Any]]) -> dict[str, Measured]:
    return {
        name: (
            number(entry["score"], f"score of {name}"),
            number_or_none(entry.get("stderr"), f"stderr of {name}"),
        )
        for name, entry in entries.items()
        if "score" in entry
    }


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise CircuitError(f"This is no GraphML of a circuit: it is no UTF-8 text ({problem}).") from problem


FORMAT = Format(
    name="graphml",
    summary="GraphML, for Gephi, Cytoscape, yEd and networkx: all nodes and all scored edges.",
    extension=".graphml",
    write=lambda scored: to_graphml(scored).encode(),
    read=lambda data: from_graphml(_decoded(data)),
    recognises=lambda data: b"<graphml" in data[:2000],
)
