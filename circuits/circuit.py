"""A circuit: the components, or the edges, that are kept, and how they were chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from circuits.graph import Graph


def ends(edge: str) -> tuple[str, str]:
    """The nodes that an edge joins: "a9.h6->a10.h0<q>" joins a9.h6 and a10.h0."""
    source, _, reader = edge.partition("->")
    return source, reader.partition("<")[0]


@dataclass(frozen=True)
class Circuit:
    """nodes: kept heads and MLPs, in the order of the graph (input and logits always belong).

    method: whose scores chose them; selection: the rule in words ("top 9 by size of score").
    edges: the kept edges of an edge circuit, in the order of the graph, whose nodes are those that they touch; None
    where nodes were chosen, and every edge between them is kept.
    """

    nodes: tuple[str, ...]
    method: str
    selection: str
    edges: tuple[str, ...] | None = None

    @property
    def kept(self) -> tuple[str, ...]:
        """What was chosen: edges, or nodes."""
        return self.nodes if self.edges is None else self.edges

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(n for n in self.nodes if n[0] == "a")

    @property
    def mlps(self) -> tuple[str, ...]:
        return tuple(n for n in self.nodes if n[0] == "m")

    def without(self, nodes: Iterable[str]) -> Circuit:
        """A new circuit that lacks `nodes`, and all edges that touch them."""
        cut = set(nodes)
        edges = None if self.edges is None else tuple(e for e in self.edges if not cut & set(ends(e)))
        return replace(self, nodes=tuple(n for n in self.nodes if n not in cut), edges=edges)

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, node: object) -> bool:
        """Whether the circuit has this node, or this edge."""
        return node in self.nodes or node in (self.edges or ())


def edge_circuit(graph: Graph, edges: Iterable[str], method: str, selection: str) -> Circuit:
    """The circuit of these edges. Raises CircuitError for an edge that the model does not have."""
    wanted = set(edges)
    graph.require_edges(sorted(wanted))
    touched = {node for edge in wanted for node in ends(edge)}
    nodes = tuple(node for node in graph.components if node in touched)
    return Circuit(nodes, method, selection, tuple(edge for edge in graph.places if edge in wanted))
