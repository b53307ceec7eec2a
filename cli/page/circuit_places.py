"""Where a page puts the nodes of a circuit, how its edges run, and the sheet that holds them.

The one idea: every node has one place, its head's number across and its layer up, so that circuits of any size, and
of any method, can be told apart by eye.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import CDSView, ColumnDataSource, IndexFilter, Range1d

from circuits.graph import INPUT, LOGITS, Graph
from cli.page.plot import labelled, sheet

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812
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


def layers_sheet(graph: Graph) -> Figure:
    """An empty sheet with room for every node, layers upward."""
    row = float(np.clip(640 / (graph.n_layers + 2), 30, 62))
    drawn = sheet(
        int(row * (graph.n_layers + 2) + 70),
        x_range=Range1d(start=-0.9, end=graph.n_heads + 1.1),
        y_range=Range1d(start=-0.4, end=graph.n_layers + 1.7),
    )
    drawn.grid.visible = False
    drawn.xaxis.visible = False
    layers = range(0, graph.n_layers, max(1, round(14 / row)))
    drawn.yaxis.update(**labelled({layer + 1.0: str(layer) for layer in layers}), axis_label="layer")
    return drawn


def least_width(graph: Graph) -> int:
    """Pixels below which the sheet scrolls sideways."""
    return max(300, 22 * (graph.n_heads + 2))


def node_columns(graph: Graph, names: Sequence[str]) -> dict[str, list[Any]]:
    """What node_boxes needs of these nodes beside colours."""
    places = [place(graph, name) for name in names]
    return {
        "name": list(names),
        "label": [label(graph, name) for name in names],
        "x": [x for x, _ in places],
        "y": [y for _, y in places],
        "width": [2.4 if name in (INPUT, LOGITS) else NODE_WIDTH for name in names],
        "alpha": [1.0] * len(names),
        "label_alpha": [1.0] * len(names),
    }


def node_boxes(drawn: Figure, source: ColumnDataSource, fill: Any) -> list[Any]:
    """Heads round, all else square, each with its label; a selection changes nothing by itself."""
    names = list(source.data["name"])
    boxes = [
        _boxes(drawn, source, fill, [i for i, n in enumerate(names) if (n[0] == "a") == r], r)
        for r in (True, False)
    ]
    words = drawn.text(
        "x", "y", text="label", source=source, text_align="center", text_baseline="middle", text_font_size="10px",
        text_alpha="label_alpha", nonselection_text_alpha="label_alpha",
    )  # fmt: skip
    words.glyph.tags = ["on-cell"]
    return boxes


def _boxes(drawn: Figure, source: ColumnDataSource, fill: Any, which: list[int], round_: bool) -> Any:
    look: dict[str, Any] = {"fill_color": fill, "border_radius": 8 if round_ else 0}
    for part in ("fill_alpha", "line_alpha"):
        look |= {part: "alpha", f"nonselection_{part}": "alpha", f"selection_{part}": "alpha"}
    view = CDSView(filter=IndexFilter(indices=which))
    boxes = drawn.rect("x", "y", width="width", height=NODE_HEIGHT, source=source, view=view, **look)
    boxes.glyph.tags = ["outline"]
    return boxes


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
