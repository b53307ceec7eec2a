"""Which edges belong together: growing a circuit from the logits, and leaving out what hangs in the air.

The one idea: an edge matters only where it lies on a path from the input to the logits. Greedy growth begins at the
logits and always takes the largest score among edges into what is already there, so every prefix of its order is
connected to the answer, and each is part of the next.
Source: Hanna et al. 2024 (EAP-IG, arXiv 2403.17806), section 3 and its pruning of nodes without a parent or a child.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from circuits.circuit import ends
from circuits.graph import INPUT, LOGITS, Graph
from circuits.scores import Scores


def edge_order(graph: Graph, edges: Scores) -> tuple[str, ...]:
    """The greedy order; or where some edges have no score, and so stay in every circuit, that of the sizes."""
    return greedy_order(graph, edges) if len(edges.components) == len(graph.places) else edges.ranking()


def greedy_order(graph: Graph, edges: Scores) -> tuple[str, ...]:
    """Edges in the order in which a circuit grows from the logits, the largest size of score first.

    Edges that nothing on the way to the logits ever reads come nowhere: there are none where all are scored.
    """
    size = dict(zip(edges.components, np.abs(edges.values).tolist(), strict=True))
    place = {edge: i for i, edge in enumerate(edges.components)}
    into = _by_node(graph, edges.components)
    heap: list[tuple[float, int, str]] = []
    order: list[str] = []
    there: set[str] = set()
    seen: set[str] = set()

    def enter(node: str) -> None:
        if node in there:
            return
        there.add(node)
        for edge in into[node]:
            if edge not in seen:
                seen.add(edge)
                heapq.heappush(heap, (-size[edge], place[edge], edge))

    enter(LOGITS)
    while heap:
        edge = heapq.heappop(heap)[2]
        order.append(edge)
        enter(ends(edge)[0])
    return tuple(order)


def connected(graph: Graph, edges: Iterable[str]) -> tuple[str, ...]:
    """Those of `edges` that lie on a path from the input to the logits, in their order.

    Leaving the others out changes nothing under resample ablation: what no path from the input reaches is the
    donor's own output, and what leads nowhere is not read.
    """
    listed = tuple(edges)
    into = _by_node(graph, listed)
    out_of: dict[str, set[str]] = defaultdict(set)
    for edge in listed:
        source, reader = edge.split("->")
        out_of[source] |= set(graph.served(reader))
    forwards = _reached(INPUT, out_of)
    backwards = _reached(LOGITS, {node: {ends(edge)[0] for edge in into[node]} for node in into})
    return tuple(
        edge
        for edge in listed
        for source, reader in [edge.split("->")]
        if source in forwards and backwards.intersection(graph.served(reader))
    )


def _by_node(graph: Graph, edges: Iterable[str]) -> dict[str, list[str]]:
    """Node -> the edges that it reads; those into k and v of a group belong to each of its heads."""
    into: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        for node in graph.served(edge.split("->")[1]):
            into[node].append(edge)
    return into


def _reached(start: str, steps: dict[str, set[str]]) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        new = steps.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
