"""Where the heads of a model stand in a column: relative depth upwards, each layer's heads together."""

from __future__ import annotations

from collections.abc import Mapping

from circuits.graph import Graph

_GAP = 1.5  # steps between layers


def steps_of(graph: Graph) -> float:
    """How many heads' room a column takes, gaps between layers included."""
    return graph.n_layers * (graph.n_heads + _GAP) - _GAP


def head_heights(graph: Graph, step: float, wished: Mapping[str, float]) -> dict[str, float]:
    """The height of every head, between 0 and 1: its layer's band, in it the order of `wished`, then of index.

    step: from one head to the next.
    """
    band = graph.n_heads * step
    found = {}
    for layer in range(graph.n_layers):
        bottom = (1 - band) * layer / max(graph.n_layers - 1, 1)
        heads = [head for head in graph.heads if graph.node(head).layer == layer]
        for place, head in enumerate(sorted(heads, key=lambda head: wished.get(head, 1.0))):
            found[head] = bottom + (place + 0.5) * step
    return found
