"""A circuit with its scores, as files of any format say it: the one value that all exchange goes through.

The one idea: every format is read into this value and written from it, so n formats need n readers and n writers,
and what one of them has no field for travels on in `extras` instead of being lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from circuits.circuit import Circuit, edge_circuit, ends
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.scores import Scores

Link = tuple[str, str]
Measured = tuple[float, float | None]
"""A score and its standard error, None where that is not known."""

IMPORTED = "imported"
IN_FILE = "as the file marks it"


@dataclass(frozen=True)
class ScoredCircuit:
    """scores: node -> score. links: the links of a node circuit, q, k and v taken together, None where not measured.

    edges: every scored edge, kept or not; a kept edge that is not among them was not measured.
    model: its name, empty where a file does not say. extras: what a foreign file says beyond all this, as JSON.
    """

    graph: Graph
    circuit: Circuit
    scores: Mapping[str, Measured] = field(default_factory=dict)
    links: Mapping[Link, float | None] = field(default_factory=dict)
    edges: Mapping[str, Measured] = field(default_factory=dict)
    model: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def granularity(self) -> str:
        return "node" if self.circuit.edges is None else "edge"

    @cached_property
    def touched(self) -> frozenset[str]:
        """The nodes of every edge that is kept or scored."""
        return frozenset(node for edge in {*self.edges, *(self.circuit.edges or ())} for node in ends(edge))

    @property
    def listed(self) -> tuple[str, ...]:
        """Every edge that is kept or scored, in the order of the graph."""
        wanted = {*self.edges, *(self.circuit.edges or ())}
        return tuple(edge for edge in self.graph.places if edge in wanted) if wanted else ()


def scored_circuit(graph: Graph, circuit: Circuit, scores: Scores) -> ScoredCircuit:
    """The circuit with all scores of one method; links that the method does not measure carry None."""
    by_nodes = circuit.edges is None
    return ScoredCircuit(
        graph=graph,
        circuit=circuit,
        scores=dict(_measured(scores)),
        links={link: scores.links.get(link) for link in graph.links(circuit.nodes)} if by_nodes else {},
        edges=dict(_measured(scores.edges)) if scores.edges is not None else {},
    )


def _measured(scores: Scores) -> Iterator[tuple[str, Measured]]:
    means_and_errors = zip(scores.values.tolist(), scores.stderr.tolist(), strict=True)
    return zip(scores.components, means_and_errors, strict=True)


def check_names(scored: ScoredCircuit) -> None:
    """Raises CircuitError naming the first node, link or edge that the graph does not have."""
    for name in scored.scores:
        scored.graph.node(name)
    for source, target in scored.links:
        scored.graph.node(source), scored.graph.node(target)
        if not scored.graph.feeds(source, target):
            raise CircuitError(
                f"{source} -> {target} is no link of this model: {source} does not write before."
            )
    scored.graph.require_edges(scored.edges)


def chosen(graph: Graph, granularity: object, kept: set[str], method: str, selection: str) -> Circuit:
    """The circuit of what a file keeps: edges or nodes, whichever its granularity says."""
    if granularity not in ("edge", "node"):
        raise CircuitError(f"granularity is {granularity!r}, where edge or node is meant.")
    if granularity == "edge":
        return edge_circuit(graph, kept, method, selection)
    return Circuit(tuple(name for name in graph.components if name in kept), method, selection)


def top(scored: ScoredCircuit, n: int) -> ScoredCircuit:
    """The same scores with the n largest by size kept: edges where any are scored, else nodes."""
    graph, rule = scored.graph, f"top {n} by size of score"
    if scored.edges:
        kept = _largest(scored.edges, tuple(graph.places), n)
        return replace(scored, circuit=edge_circuit(graph, kept, scored.circuit.method, rule), links={})
    if not any(name in scored.scores for name in graph.components):
        raise CircuitError(
            "There is nothing to take the largest of: the file has no scores. Leave --top out."
        )
    circuit = chosen(graph, "node", _largest(scored.scores, graph.components, n), scored.circuit.method, rule)
    return replace(scored, circuit=circuit, links=dict.fromkeys(graph.links(circuit.nodes)))


def reversed_sign(scored: ScoredCircuit) -> ScoredCircuit:
    """All scores times -1: for files in which a negative score helps."""
    scores, edges = (
        {name: (-score, error) for name, (score, error) in measured.items()}
        for measured in (scored.scores, scored.edges)
    )
    links = {link: None if score is None else -score for link, score in scored.links.items()}
    return replace(scored, scores=scores, edges=edges, links=links, extras=_reversed(scored.extras))


def _reversed(extras: Any) -> Any:
    """The same, with what EAP-IG scores beside nodes and edges turned as well."""
    if not isinstance(extras, Mapping):
        return extras
    return {
        key: [x if x is None else -x for x in value] if key == "neurons_scores" else _reversed(value)
        for key, value in extras.items()
    }


def _largest(scores: Mapping[str, Measured], order: tuple[str, ...], n: int) -> set[str]:
    """Ties in the order of the graph."""
    return set(sorted((x for x in order if x in scores), key=lambda x: -abs(scores[x][0]))[:n])


def input_of(edge: str) -> str | None:
    """The input of a head that an edge enters: q, k or v; None where the target has but one."""
    return edge[-2] if edge.endswith(">") else None


def edge_name(source: str, target: str, entry: str | None) -> str:
    """The edge of these ends; entry: q, k, v or nothing."""
    return f"{source}->{target}<{entry}>" if entry else f"{source}->{target}"
