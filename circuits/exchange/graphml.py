"""A circuit as GraphML, the format that Gephi, Cytoscape, yEd and networkx read.

The one idea: every node of the model is there with its score, so that a viewer may choose its own threshold;
links run between the nodes of the circuit alone, and carry a score where one was measured.
Format: http://graphml.graphdrawing.org/primer/graphml-primer.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from circuits.circuit import Circuit
from circuits.errors import CircuitError
from circuits.graph import INPUT, LOGITS, Graph
from circuits.scores import Scores

if TYPE_CHECKING:
    import networkx as nx

Link = tuple[str, str]


@dataclass(frozen=True)
class ScoredCircuit:
    """What the file says: model, circuit, component -> (score, standard error), link -> score or None."""

    graph: Graph
    circuit: Circuit
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    links: Mapping[Link, float | None] = field(default_factory=dict)


def scored_circuit(graph: Graph, circuit: Circuit, scores: Scores) -> ScoredCircuit:
    """The circuit with all scores of one method; links that the method does not measure carry None."""
    means_and_errors = zip(scores.values.tolist(), scores.stderr.tolist(), strict=True)
    return ScoredCircuit(
        graph=graph,
        circuit=circuit,
        scores=dict(zip(scores.components, means_and_errors, strict=True)),
        links={link: scores.links.get(link) for link in graph.links(circuit.nodes)},
    )


def to_graphml(scored: ScoredCircuit) -> str:
    """The text of the file; the same circuit gives the same bytes."""
    import networkx as nx

    # Not nx.write_graphml: it writes other bytes where lxml happens to be installed.
    return "\n".join(nx.generate_graphml(_network(scored))) + "\n"


def _network(scored: ScoredCircuit) -> nx.DiGraph[str]:
    import networkx as nx

    graph, circuit = scored.graph, scored.circuit
    network: nx.DiGraph[str] = nx.DiGraph(
        method=circuit.method,
        selection=circuit.selection,
        n_layers=graph.n_layers,
        n_heads=graph.n_heads,
        n_kv_heads=graph.n_kv_heads,
        parallel=graph.parallel,
    )
    for name in (*graph.sources, LOGITS):
        network.add_node(name, **_attributes(scored, name))
    for (source, target), score in scored.links.items():
        network.add_edge(source, target, **({} if score is None else {"score": float(score)}))
    return network


def _attributes(scored: ScoredCircuit, name: str) -> dict[str, Any]:
    node = scored.graph.node(name)
    attributes: dict[str, Any] = {
        "kind": node.kind,
        "layer": node.layer,
        "index": node.index,
        "in_circuit": name in (INPUT, LOGITS) or name in scored.circuit,
    }
    if name in scored.scores:
        score, stderr = scored.scores[name]
        attributes |= {"score": float(score), "stderr": float(stderr)}
    return attributes


def from_graphml(text: str) -> ScoredCircuit:
    """What to_graphml wrote. Raises CircuitError where the text is no GraphML, or not of this kind."""
    import networkx as nx

    try:
        network = nx.parse_graphml(text)
        return _scored_circuit(network)
    except (nx.NetworkXError, ParseError, KeyError, TypeError, ValueError) as problem:
        what = f"{type(problem).__name__} {problem}"
        raise CircuitError(f"This is no GraphML of a circuit: {what}.") from problem


def _scored_circuit(network: nx.Graph[str]) -> ScoredCircuit:
    about = network.graph
    graph = Graph(about["n_layers"], about["n_heads"], about["n_kv_heads"], about["parallel"])
    kept = tuple(name for name in graph.components if network.nodes[name]["in_circuit"])
    return ScoredCircuit(
        graph=graph,
        circuit=Circuit(kept, about["method"], about["selection"]),
        scores={
            name: (entry["score"], entry["stderr"])
            for name, entry in network.nodes(data=True)
            if "score" in entry
        },
        links={(source, target): entry.get("score") for source, target, entry in network.edges(data=True)},
    )
