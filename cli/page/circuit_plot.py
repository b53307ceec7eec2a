"""A circuit that moves: layers upward, a slider for its size, and a click that lights up the paths through a node.

The one idea: of edges the circuit's own and the largest others are drawn at once, and page.js shows those that a size
keeps; the curve below says how faithful the first n of the ranking are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import ColumnDataSource, LinearColorMapper, TapTool
from bokeh.transform import transform

from circuits.graph import INPUT, LOGITS, Graph
from cli.page.circuit_places import layers_sheet, least_width, lines, node_boxes, node_columns
from cli.page.picture import Edge, Node, Picture, Stop
from cli.page.plot import LIGHT, Control, Plot, colour_bar, ground, hover, inks, reach_of
from cli.page.size_curve import size_curve

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

DASHES = {"q": "solid", "k": "dashed", "v": "dotted"}
_OFFERED = 200
"""Nodes that the list of paths offers."""


def circuit_plot(name: str, title: str, picture: Picture) -> Plot:
    """The graph, and below it the curve where sizes were measured."""
    edges, chosen = picture.drawn(), picture.chosen
    ranked = sorted((node for node in picture.nodes if node.rank), key=lambda node: node.rank)
    words = f"The circuit: {chosen.size:,} of {chosen.of:,} {chosen.what}{_faithful(chosen.faithfulness)}"
    own = {"n": chosen.size, "faithfulness": chosen.faithfulness and chosen.faithfulness[0]}
    return Plot(
        name,
        (_graph(picture, edges), *([size_curve(picture)] if picture.measured else [])),
        title,
        caption(picture),
        f"{words}. Its members stand in the table of scores.",
        behaviour="circuit",
        data={
            "of": "edges" if picture.edges_ranked else "nodes",
            "ends": [INPUT, LOGITS],
            "stops": [_stop(stop, chosen.of, chosen.what) for stop in picture.stops],
            "own": own,
            "chosen": words,
            "drawn": len(edges),
        },
        controls=(
            *(
                [Control("size", "size", steps=len(picture.stops), start=_nearest(picture))]
                if picture.stops
                else []
            ),
            Control(
                "through", "paths through", {"": "any node", **{n.name: n.name for n in ranked[:_OFFERED]}}
            ),
            Control("chosen", "the chosen circuit"),
        ),
        least=least_width(picture.graph),
    )


def _nearest(picture: Picture) -> int:
    """The stop whose size is nearest to the circuit's own."""
    sizes = [abs(stop.n - picture.chosen.size) for stop in picture.stops]
    return sizes.index(min(sizes))


def _stop(stop: Stop, of: int, what: str) -> dict[str, Any]:
    known = None if stop.faithfulness is None else (stop.faithfulness, stop.low, stop.high)
    words = f"The first {stop.n:,} of {of:,} {what} by score{_faithful(known)}"
    return {"n": stop.n, "faithfulness": stop.faithfulness, "words": words}


def _faithful(value: tuple[float, float | None, float | None] | None) -> str:
    if value is None:
        return ""
    interval = "" if value[1] is None or value[2] is None else f" [{value[1]:.2f}, {value[2]:.2f}]"
    return f", faithfulness {value[0]:.2f}{interval}"


def caption(picture: Picture) -> str:
    """What shapes, colours and lines mean, as far as the picture has them."""
    scores = [edge.score for edge in picture.edges]
    words = "Boxes are heads (layer.head) and, square, MLPs, coloured by score; what is left out is faint. "
    if any(score is not None for score in scores):
        words += (
            "Blue lines support the behaviour, red ones oppose it; width"
            if picture.signed
            else "Width of lines"
        )
        words += " by size of score" + ("; grey: not measured. " if None in scores else ". ")
    elif scores:
        words += "Lines: every legal link between members; none was measured. "
    if any(edge.entry for edge in picture.edges):
        words += "A line enters a head at q (left, solid), k (middle, dashed) or v (right, dotted). "
    if picture.stops:
        words += f"The slider keeps the first of the ranking{picture.measured_on}."
    return words


def _graph(picture: Picture, edges: Sequence[Edge]) -> Figure:
    drawn = layers_sheet(picture.graph)
    _draw_edges(drawn, picture, edges)
    _draw_nodes(drawn, picture)
    return drawn


def _draw_edges(drawn: Figure, picture: Picture, edges: Sequence[Edge]) -> None:
    sizes = np.array([abs(edge.score or 0.0) for edge in edges])
    share = sizes / (sizes.max(initial=0.0) or 1.0)
    xs, ys = lines(picture.graph, ((edge.source, edge.target, edge.entry) for edge in edges))
    source = ColumnDataSource(
        name="edges",
        data={
            "xs": xs,
            "ys": ys,
            "source": [edge.source for edge in edges],
            "target": [edge.target for edge in edges],
            "edge": [edge.name for edge in edges],
            "score": [spelled(edge.score) for edge in edges],
            "error": ["" if edge.stderr is None else f" ± {1.96 * edge.stderr:.2g}" for edge in edges],
            "rank": [edge.rank for edge in edges],
            "inside": [edge.inside for edge in edges],
            "sign": [_sign(edge.score, picture.signed) for edge in edges],
            "width": (0.6 + 4.4 * share).round(3).tolist(),
            "strength": np.where(sizes > 0, 0.35 + 0.6 * share, 0.3).round(3).tolist(),
            "alpha": [0.0] * len(edges),
            "dash": [DASHES.get(edge.entry, "solid") for edge in edges],
        },
    )
    mapper = LinearColorMapper(palette=list(LIGHT["sign"]), low=-1.5, high=1.5, tags=["sign"])
    look: dict[str, Any] = {
        "line_color": transform("sign", mapper),
        "line_cap": "round",
        "hover_line_alpha": 1.0,
    }
    found = drawn.multi_line(
        "xs", "ys", source=source, line_width="width", line_alpha="alpha", line_dash="dash", **look
    )
    drawn.add_tools(hover([found], {"edge": "@edge", "score": "@score@error"}, line_policy="interp"))


def spelled(value: float | None) -> str:
    """A score of four digits."""
    return "not measured" if value is None else f"{value:.4g}"


def _sign(score: float | None, signed: bool) -> int:
    if score is None or not signed:
        return 0
    return 1 if score >= 0 else -1


def _draw_nodes(drawn: Figure, picture: Picture) -> None:
    nodes = [*picture.nodes, *(Node(name, None, None, None, 0, True) for name in (INPUT, LOGITS))]
    values = np.array([np.nan if node.score is None else node.score for node in nodes])
    mapper = ground(reach_of(values), picture.signed)
    source = _node_source(picture.graph, nodes, values, mapper)
    boxes = node_boxes(drawn, source, transform("score", mapper))
    rows = {"node": "@name", "score": "@words@interval", "rank": "@rank"}
    drawn.add_tools(hover(boxes, rows), TapTool(renderers=boxes))
    if np.isfinite(values).any():
        drawn.add_layout(
            colour_bar(mapper, picture.unit + (" (positive supports)" if picture.signed else "")), "above"
        )


def _node_source(
    graph: Graph, nodes: Sequence[Node], values: np.ndarray, mapper: LinearColorMapper
) -> ColumnDataSource:
    light, dark = inks(values, mapper)
    return ColumnDataSource(
        name="nodes",
        data={
            **node_columns(graph, [node.name for node in nodes]),
            "score": values,
            "words": [spelled(node.score) for node in nodes],
            "interval": [
                "" if node.low is None or node.high is None else f" [{node.low:.4g}, {node.high:.4g}]"
                for node in nodes
            ],
            "rank": [node.rank or "" for node in nodes],
            "inside": [node.inside for node in nodes],
            "ink_light": light,
            "ink_dark": dark,
        },
    )
