"""From scores of all edges at once to Scores: the seam of every edge method.

The one idea: a method fills matrices [source, reader], one a prompt; names are put to them here alone. A component's
own score is the sum over its out-edges, which for gradients is what attribution patching gives the node, and for
exact effects counts paths together that may overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from circuits.graph import Graph
from circuits.scores import Scores


def edge_scores(
    method: str,
    graph: Graph,
    samples: Float[np.ndarray, "sample source reader"],
    *,
    unit: str = "prompt",
    details: Mapping[str, object] | None = None,
    measured: Sequence[str] | None = None,
) -> Scores:
    """Scores of every component, with those of every edge. Entries of `samples` that are no edge are not looked at.

    samples: positive where the edge supports the behaviour, in the order of the prompt set.
    measured: the edges that have a score, where they are not all; no other is looked at, or counted.
    """
    names = tuple(graph.places if measured is None else measured)
    rows, columns = (np.array(index) for index in zip(*(graph.places[e] for e in names), strict=True))
    by_edge = samples[:, rows, columns]
    edges = Scores(method, names, by_edge, unit)
    n_sources = len(graph.sources)
    out_of = np.zeros((len(samples), n_sources))
    for source in range(n_sources):
        out_of[:, source] = by_edge[:, rows == source].sum(1)
    return Scores(method, graph.components, out_of[:, 1:], unit, details=details or {}, edges=edges)
