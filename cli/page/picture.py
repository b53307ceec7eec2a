"""What is drawn of a circuit: nodes, edges, the sizes that were measured, and the circuit that was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circuits.graph import INPUT, LOGITS, Graph

MOST_EDGES = 600
_AMONG = 24
"""Nodes of a ranking between which unmeasured links are drawn."""


@dataclass(frozen=True)
class Node:
    """low, high: of the score's 95% interval, None where there is none. rank: 1 for the first; 0 where unranked."""

    name: str
    score: float | None
    low: float | None
    high: float | None
    rank: int
    inside: bool


@dataclass(frozen=True)
class Edge:
    """entry: q, k or v, or empty. rank: among edges, 0 where links are not ranked."""

    source: str
    target: str
    entry: str
    score: float | None
    stderr: float | None
    rank: int
    inside: bool

    @property
    def name(self) -> str:
        return f"{self.source}->{self.target}" + (f"<{self.entry}>" if self.entry else "")


@dataclass(frozen=True)
class Stop:
    """A size of the slider: the first n of the ranking, and how faithful they are where that was measured."""

    n: int
    faithfulness: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chosen:
    """The circuit itself: how much of how much it keeps, and of what; its faithfulness (value, low, high), and the
    band that holds 95% of random circuits of its size."""

    size: int
    of: int
    what: str
    faithfulness: tuple[float, float, float] | None
    random: tuple[float, float] | None


@dataclass(frozen=True)
class Picture:
    """edges_ranked: whether the circuit was chosen among edges. unit, signed: of the scores of nodes.
    measured_on: what is to be said of the stops."""

    graph: Graph
    nodes: Sequence[Node]
    edges: Sequence[Edge]
    edges_ranked: bool
    stops: Sequence[Stop]
    chosen: Chosen
    unit: str
    signed: bool
    measured_on: str

    @property
    def measured(self) -> bool:
        """Whether sizes were measured."""
        return any(stop.faithfulness is not None for stop in self.stops)

    def drawn(self) -> list[Edge]:
        """The circuit's own edges, the largest first, then others, up to what a reader can tell apart."""
        own = sorted((e for e in self.edges if e.inside), key=lambda edge: -abs(edge.score or 0.0))
        if self.edges_ranked:
            others = sorted((e for e in self.edges if not e.inside), key=lambda edge: edge.rank)
        else:
            others = list(self._links())
        return (own + others)[:MOST_EDGES]

    def _links(self) -> Iterator[Edge]:
        """Legal links among the first of the ranking that are not the circuit's own."""
        known = {(edge.source, edge.target): edge for edge in self.edges}
        members = {INPUT, LOGITS, *(node.name for node in self.nodes if node.inside)}
        first = [node.name for node in self.nodes if 0 < node.rank <= _AMONG or node.inside]
        for source, target in self.graph.links(first):
            found = known.get((source, target))
            if found is None:
                yield Edge(source, target, "", None, None, 0, {source, target} <= members)
            elif not found.inside:
                yield found
