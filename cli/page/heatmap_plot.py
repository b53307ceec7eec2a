"""Scores as a heatmap: layers by heads, and the MLPs in a column of their own; or components by token position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import ColumnDataSource, Range1d
from bokeh.transform import transform

from circuits.graph import Graph
from cli.page.picture import Node, Picture
from cli.page.plot import Plot, colour_bar, ground, hover, inks, labelled, reach_of, sheet

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

_NUMBERS_UP_TO = 14
"""Columns up to which cells hold their numbers."""


@dataclass(frozen=True)
class Cell:
    """column, row: counted from the left and from the top. words: what the tool tip says of the score."""

    column: float
    row: float
    name: str
    score: float
    words: str
    outlined: bool


def heatmap_plot(
    name: str, title: str, picture: Picture, outlined: str = "Outlined: in the circuit."
) -> Plot:
    """Layer 0 at the bottom, as in the circuit above it."""
    graph, unit, signed = picture.graph, picture.unit, picture.signed
    cells = [_cell(graph, node, node.score) for node in picture.nodes if node.score is not None]
    columns = {float(head): str(head) for head in range(graph.n_heads)}
    if any(cell.name[0] == "m" for cell in cells):
        columns[graph.n_heads + 0.3] = "MLP"
    rows = {float(layer): str(layer) for layer in range(graph.n_layers)}
    drawn = cells_figure(cells, columns, rows, unit, signed, "head", "layer")
    best = max(cells, key=lambda cell: abs(cell.score))
    text = (
        f"Scores of {len(cells)} components by layer and head; the largest is {best.name} with {best.words}."
    )
    caption = f"{sign_words(unit, signed)} {outlined}"
    return Plot(name, (drawn,), title, caption, text, least=_least(columns), widest=_widest(columns))


def sign_words(unit: str, signed: bool) -> str:
    """What colours say."""
    sides = "blue supports the behaviour, red opposes it" if signed else "the darker the more"
    return f"Colour: {unit}; {sides}."


def _cell(graph: Graph, node: Node, score: float) -> Cell:
    place = graph.node(node.name)
    column = graph.n_heads + 0.3 if place.kind == "mlp" else float(place.index)
    interval = "" if node.low is None or node.high is None else f" [{node.low:.4g}, {node.high:.4g}]"
    return Cell(column, float(place.layer), node.name, score, f"{score:.4g}{interval}", node.inside)


def position_plot(name: str, title: str, scores: Mapping[str, Mapping[str, float]], picture: Picture) -> Plot:
    """scores: component -> position -> score, in the order in which they are shown."""
    unit, signed = picture.unit, picture.signed
    kept = {node.name for node in picture.nodes if node.inside}
    positions = list(next(iter(scores.values())))
    cells = [
        Cell(
            float(c),
            float(r),
            f"{component} at {position}",
            values[position],
            f"{values[position]:.4g}",
            False,
        )
        for r, (component, values) in enumerate(scores.items())
        for c, position in enumerate(positions)
        if position in values
    ]
    columns = {float(i): position for i, position in enumerate(positions)}
    rows = {float(i): component + (" *" if component in kept else "") for i, component in enumerate(scores)}
    drawn = cells_figure(cells, columns, rows, unit, signed, "position", "")
    best = max(cells, key=lambda cell: abs(cell.score))
    text = f"Scores of {len(rows)} components at {len(columns)} positions; the largest is {best.name}: {best.words}."
    caption = f"{sign_words(unit, signed)} Components with * are in the circuit."
    return Plot(name, (drawn,), title, caption, text, least=_least(columns), widest=_widest(columns))


def _least(columns: Mapping[float, str]) -> int:
    return max(300, 24 * len(columns) + 60)


def _widest(columns: Mapping[float, str]) -> int:
    return min(960, 84 * len(columns) + 90)


def cells_figure(
    cells: Sequence[Cell],
    columns: Mapping[float, str],
    rows: Mapping[float, str],
    unit: str,
    signed: bool,
    x_label: str,
    y_label: str,
) -> Figure:
    """Cells as squares of colour, with their numbers where there is room. columns, rows: place -> label."""
    height = float(np.clip(420 / max(len(rows), 1), 16, 40))
    drawn = sheet(
        int(height * len(rows) + 110),
        x_range=Range1d(start=min(columns) - 0.5, end=max(columns) + 0.5),
        y_range=Range1d(start=min(rows) - 0.5, end=max(rows) + 0.5),
    )
    drawn.grid.visible = False
    every = max(1, round(15 / height))
    drawn.yaxis.update(**labelled(dict(list(rows.items())[::every])), axis_label=y_label)
    drawn.xaxis.update(**labelled(columns), axis_label=x_label)
    if any(len(label) > 3 for label in columns.values() if label != "MLP"):
        drawn.xaxis.major_label_orientation = 0.7
    _draw(drawn, cells, unit, signed, len(columns))
    return drawn


def _draw(drawn: Figure, cells: Sequence[Cell], unit: str, signed: bool, n_columns: int) -> None:
    values = np.array([cell.score for cell in cells])
    mapper = ground(reach_of(values), signed)
    light, dark = inks(values, mapper)
    source = ColumnDataSource(
        {
            "x": [cell.column for cell in cells],
            "y": [cell.row for cell in cells],
            "name": [cell.name for cell in cells],
            "score": values,
            "words": [cell.words for cell in cells],
            "short": [_short(cell.score) for cell in cells],
            "outline": [1.6 if cell.outlined else 0.0 for cell in cells],
            "ink_light": light,
            "ink_dark": dark,
        }
    )
    look: dict[str, Any] = {"fill_color": transform("score", mapper), "line_width": "outline"}
    boxes = drawn.rect("x", "y", width=0.96, height=0.92, source=source, **look)
    boxes.glyph.tags = ["outline"]
    if n_columns <= _NUMBERS_UP_TO:
        where: dict[str, Any] = {"text_align": "center", "text_baseline": "middle", "text_font_size": "10px"}
        drawn.text("x", "y", text="short", source=source, **where).glyph.tags = ["on-cell"]
    drawn.add_tools(hover([boxes], {"component": "@name", "score": "@words"}))
    drawn.add_layout(colour_bar(mapper, unit), "above")


def _short(value: float) -> str:
    """At most four signs."""
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}".replace("-0.00", "0.00")
