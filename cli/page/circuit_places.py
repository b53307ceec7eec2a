"""Where a page puts the nodes of a circuit, and how its edges run.

The one idea: every node has one place, its head's number across and its layer up, so that circuits of any size, and
of any method, can be told apart by eye.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from circuits.graph import Graph

if TYPE_CHECKING:
    from jaxtyping import Float

NODE_WIDTH, NODE_HEIGHT = 0.78, 0.34
_ENTRIES = {"q": -0.26, "k": 0.0, "v": 0.26}  # shares of the width, from the middle
_T = np.linspace(0.0, 1.0, 14)[:, None]
_BERNSTEIN = np.hstack([(1 - _T) ** 3, 3 * (1 - _T) ** 2 * _T, 3 * (1 - _T) * _T**2, _T**3])


def place(graph: Graph, name: str) -> tuple[float, float]:
    """Across and up; MLPs stand in a lane of their own, half a row above the heads that they read."""
    node = graph.node(name)
    if node.kind == "mlp":
        return graph.n_heads + 0.4, node.layer + (1.0 if graph.parallel else 1.45)
    if node.kind == "head":
        return float(node.index), node.layer + 1.0
    return (graph.n_heads - 1) / 2, 0.0 if node.kind == "input" else graph.n_layers + 1.3


def label(graph: Graph, name: str) -> str:
    """9.6 for a head, m4 for an MLP."""
    node = graph.node(name)
    return {"head": f"{node.layer}.{node.index}", "mlp": f"m{node.layer}"}.get(node.kind, name)


def lines(graph: Graph, edges: Iterable[tuple[str, str, str]]) -> tuple[list[list[float]], list[list[float]]]:
    """x and y of the curve of every (source, target, entry)."""
    curves = [_curve(graph, *edge).round(3) for edge in edges]
    return [c[:, 0].tolist() for c in curves], [c[:, 1].tolist() for c in curves]


def _curve(graph: Graph, source: str, target: str, entry: str) -> Float[np.ndarray, "step xy"]:
    """From the top of the source to the bottom of the target, bowed aside where boxes would stand between."""
    (x0, y0), (x1, y1) = place(graph, source), place(graph, target)
    start = np.array((x0, y0 + NODE_HEIGHT / 2))
    end = np.array((x1 + _ENTRIES.get(entry, 0.0) * NODE_WIDTH, y1 - NODE_HEIGHT / 2))
    rise = max(end[1] - start[1], 0.3)  # into the MLP of the same layer it goes over the heads' shoulders
    aside = 0.5 if rise > 1.2 and abs(x1 - x0) < 1 else 0.0
    lean = np.array((aside, min(0.5 * rise, 1.2)))
    controls = np.array((start, start + lean, end + lean * (1, -1), end))
    return np.asarray(_BERNSTEIN @ controls)
