"""From matrices to named scores."""

from __future__ import annotations

import numpy as np

from circuits.edge_scores import edge_scores
from circuits.graph import Graph


def test_every_edge_gets_its_entry_and_every_node_the_sum_of_what_leaves_it() -> None:
    graph = Graph(2, 4, 2)
    samples = np.random.default_rng(0).normal(size=(3, len(graph.sources), len(graph.readers)))
    scores = edge_scores("made-up", graph, samples)
    assert scores.edges is not None
    assert scores.edges.components == tuple(graph.edges())
    row, column = graph.places["a0.h1->m1"]
    np.testing.assert_array_equal(
        scores.edges.samples[:, scores.edges.components.index("a0.h1->m1")], samples[:, row, column]
    )
    assert scores.components == graph.components
    for i, node in enumerate(graph.components):
        leaving = [at for edge, at in graph.places.items() if edge.startswith(f"{node}->")]
        expected = sum((samples[:, a, b] for a, b in leaving), np.zeros(3))
        np.testing.assert_allclose(scores.samples[:, i], expected)
