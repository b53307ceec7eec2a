"""Circuits against each other as a matrix: a figure in each cell, below it what chance gives.

The one idea: colour is what lies beyond chance, for the figure itself stands in the cell, and large circuits overlap
with anything: a Jaccard of 0.58 beside a chance level of 0.57 says nothing, one of 0.22 beside 0.05 does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import ColumnDataSource, Range1d
from bokeh.transform import transform

from cli.page.plot import Plot, colour_bar, ground, hover, inks, labelled, reach_of, sheet, shortened
from cli.wording import number

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

_LONGEST = 26
_FAINTEST = 0.25
"""What lies beyond chance by less than this is never drawn in full colour."""


@dataclass(frozen=True)
class Cell:
    """row, column: counted from the top and from the left. value: None where there is none, and `words` stands there.

    told: what the tool tip says besides. sure: whether chance does not give it. framed: of the circuit's own task.
    """

    row: int
    column: int
    value: float | None
    chance: float | None = None
    words: str = ""
    told: str = ""
    sure: bool = False
    framed: bool = False

    @property
    def beyond(self) -> float:
        """NaN where value or chance is not known."""
        return float("nan") if self.value is None or self.chance is None else self.value - self.chance


@dataclass(frozen=True)
class Matrix:
    """what: the figure in the cells. across, down: what columns and rows are. notes: what is to be said besides."""

    what: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Cell]
    across: str = ""
    down: str = ""
    notes: str = ""


def matrix_plot(name: str, title: str, matrix: Matrix) -> Plot:
    """Numbers stay readable from 2 to 40 rows; on a narrow screen the matrix scrolls sideways."""
    side = float(np.clip(760 / len(matrix.columns), 40, 70))
    margin = 40 + 6.5 * max(len(shortened(row, _LONGEST)) for row in matrix.rows)
    wide = int(margin + side * len(matrix.columns) + 20)
    colour = "Colour: how far the figure lies above (blue) or below (red) chance."
    caption = f"{matrix.what}; in small what chance gives. {colour}"
    return Plot(
        name,
        (_figure(matrix, side),),
        title,
        " ".join(part for part in (caption, matrix.notes) if part),
        _in_words(matrix),
        widest=max(wide, 300),
        least=max(min(wide, int(margin + 42 * len(matrix.columns))), 300),
    )


def _in_words(matrix: Matrix) -> str:
    known = [cell for cell in matrix.cells if np.isfinite(cell.beyond)]
    words = f"{matrix.what}: {len(matrix.rows)} rows, {len(matrix.columns)} columns"
    if not known:
        return f"{words}."
    most = max(known, key=lambda cell: cell.beyond)
    where = f"{matrix.rows[most.row]} and {matrix.columns[most.column]}"
    return f"{words}. Furthest above chance: {where}, {_spelled(most)}. The tables of the report hold every figure."


def _spelled(cell: Cell) -> str:
    value = "none" if cell.value is None else number(cell.value)
    return value if cell.chance is None else f"{value}, chance {number(cell.chance)}"


def _figure(matrix: Matrix, side: float) -> Figure:
    n_rows, n_columns = len(matrix.rows), len(matrix.columns)
    columns = {float(i): shortened(name, _LONGEST) for i, name in enumerate(matrix.columns)}
    longest = 6.2 * max(map(len, columns.values()))
    below = 24 + (0.8 * longest if longest > side else 0)
    drawn = sheet(
        int(min(side, 46) * n_rows + below + 80),
        x_range=Range1d(start=-0.5, end=n_columns - 0.5),
        y_range=Range1d(start=n_rows - 0.5, end=-0.5),
    )
    drawn.grid.visible = False
    drawn.axis.major_tick_line_color = None
    drawn.yaxis.update(
        **labelled({float(i): shortened(name, _LONGEST) for i, name in enumerate(matrix.rows)}),
        axis_label=matrix.down,
    )
    drawn.xaxis.update(**labelled(columns), axis_label=matrix.across)
    if longest > side:
        drawn.xaxis.major_label_orientation = 0.9
    _draw(drawn, matrix)
    return drawn


def _draw(drawn: Figure, matrix: Matrix) -> None:
    beyond = np.array([cell.beyond for cell in matrix.cells])
    mapper = ground(max(reach_of(beyond) if np.isfinite(beyond).any() else 0.0, _FAINTEST), signed=True)
    light, dark = inks(beyond, mapper)
    source = ColumnDataSource({**_columns(matrix), "beyond": beyond, "ink_light": light, "ink_dark": dark})
    look: dict[str, Any] = {"fill_color": transform("beyond", mapper), "line_width": "frame"}
    boxes = drawn.rect("x", "y", width=0.94, height=0.92, source=source, **look)
    boxes.glyph.tags = ["outline"]
    where: dict[str, Any] = {"text_align": "center", "source": source}
    for column, size, down in (("value", 12, -6), ("chance", 10, 8), ("words", 11, 0)):
        if not any(source.data[column]):
            continue
        look = {"y_offset": down, "text_font_size": f"{size}px", "text_baseline": "middle"}
        drawn.text("x", "y", text=column, **look, **where).glyph.tags = ["on-cell"]
    rows = {matrix.down or "first": "@row", matrix.across or "second": "@column", "": "@told"}
    drawn.add_tools(hover([boxes], rows))
    drawn.add_layout(colour_bar(mapper, f"{matrix.what.partition(' (')[0]}, less chance"), "above")


def _columns(matrix: Matrix) -> Mapping[str, list[Any]]:
    cells = matrix.cells
    return {
        "x": [cell.column for cell in cells],
        "y": [cell.row for cell in cells],
        "row": [matrix.rows[cell.row] for cell in cells],
        "column": [matrix.columns[cell.column] for cell in cells],
        "value": ["" if c.value is None else number(c.value) + "*" * c.sure for c in cells],
        "chance": ["" if cell.chance is None else number(cell.chance) for cell in cells],
        "words": [cell.words for cell in cells],
        "told": [cell.told for cell in cells],
        "frame": [2.2 if cell.framed else 0.0 for cell in cells],
    }
