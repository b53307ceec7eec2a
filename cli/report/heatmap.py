"""Scores as a heatmap: layers by heads with the MLPs beside them, or components by token positions.

The one idea: a cell has a size in inches, and the picture grows around the cells; numbers stand in cells
that are large enough, and axis labels are thinned in cells that are too small.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Rectangle

from circuits.circuit import Circuit
from circuits.graph import Graph
from circuits.scores import Scores
from cli.report.figure import INK, axes_at, blank, colour_bar, colours, draw_cells, ink_on, paper_style
from cli.report.sheet import Sheet, sheet

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

_BAR, _GAP, _TOP, _BOTTOM = 0.09, 0.1, 0.36, 0.36
_BESIDE, _LARGEST = 0.55, 0.42  # inches for the colour bar's words, and of a cell
_NUMBERS_FROM = 0.27  # inches of cell width that hold a number


@dataclass(frozen=True)
class _Panel:
    """A block of cells: values (NaN where there is no such component), labels, and what to outline.

    outlined: row, first column and number of columns of each rectangle.
    """

    values: Float[np.ndarray, "row column"]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    outlined: tuple[tuple[int, int, int], ...]
    x_label: str = ""
    y_label: str = ""


def heatmap(
    graph: Graph,
    scores: Scores,
    circuit: Circuit | None = None,
    *,
    title: str = "",
    unit: str = "score",
    signed: bool | None = None,
    notes: tuple[str, ...] = (),
    width: float | None = None,
) -> Figure:
    """Layers by heads, layer 0 on top, and the MLPs, where they are scored, in a column of their own; members of
    `circuit` outlined.

    unit: what the colour bar says; signed: False for counts, None to tell by the values.
    width: of the whole figure in inches, with `notes` below; None: as the cells ask for.
    """
    kept = set(circuit.nodes) if circuit else set()
    layers = tuple(str(layer) for layer in range(graph.n_layers))
    heads = tuple(str(head) for head in range(graph.n_heads))
    grid = [[f"a{layer}.h{head}" for head in heads] for layer in layers]
    attention = _panel(grid, scores, kept, layers, heads, "head", "layer")
    mlps = _panel([[f"m{layer}"] for layer in layers], scores, kept, layers, ("MLP",))
    cell = float(np.clip(6.4 / (graph.n_heads + 2), 0.085, 0.36))
    panels = (attention, mlps) if set(scores.components) & {f"m{layer}" for layer in layers} else (attention,)
    if width is None:
        return _drawn(panels, cell, title or scores.method, unit, signed)
    room = width - _left(panels) - len(panels) * _GAP - _BAR - _BESIDE
    cell = min(room / sum(len(panel.columns) for panel in panels), _LARGEST)
    page = sheet(
        width, _BOTTOM + cell * graph.n_layers + 0.06, title or scores.method, (*notes, f"score: {unit}")
    )
    return _drawn(panels, cell, "", "score", signed, page=page)


def position_heatmap(
    scores: Scores,
    components: Iterable[str] | None = None,
    circuit: Circuit | None = None,
    *,
    title: str = "",
    unit: str = "score",
    signed: bool | None = None,
) -> Figure:
    """Components by token positions, for scores that were measured position by position.

    components: the rows, all scored ones by default; give the circuit's for a large model.
    """
    if not scores.by_position:
        raise ValueError(f"{scores.method} has no scores by position")
    rows = tuple(components) if components is not None else scores.components
    columns = tuple(scores.by_position)
    place = {name: i for i, name in enumerate(scores.components)}
    values = np.array([[scores.by_position[p][place[name]] for p in columns] for name in rows])
    kept = set(circuit.nodes) if circuit else set()
    outlined = tuple((row, 0, len(columns)) for row, name in enumerate(rows) if name in kept)
    panel = _Panel(values.reshape(len(rows), len(columns)), rows, columns, outlined, "position")
    cell = float(np.clip(6.4 / max(len(columns), 1), 0.2, 0.42))
    return _drawn((panel,), cell, title or scores.method, unit, signed, cell_height=0.17)


def _panel(
    grid: list[list[str]],
    scores: Scores,
    kept: set[str],
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    x_label: str = "",
    y_label: str = "",
) -> _Panel:
    value = dict(zip(scores.components, scores.values.tolist(), strict=True))
    values = np.array([[value.get(name, np.nan) for name in line] for line in grid])
    outlined = tuple((r, c, 1) for r, line in enumerate(grid) for c, name in enumerate(line) if name in kept)
    return _Panel(values, rows, columns, outlined, x_label, y_label)


def _drawn(
    panels: tuple[_Panel, ...],
    cell: float,
    title: str,
    unit: str,
    signed: bool | None,
    cell_height: float | None = None,
    page: Sheet | None = None,
) -> Figure:
    """page: where to draw; a figure that fits if not given."""
    height = (cell_height or cell) * len(panels[0].rows)
    left = _left(panels)
    long_columns = any(len(c) > 3 for c in panels[0].columns)
    bottom = _BOTTOM + (0.045 * max(map(len, panels[0].columns)) if long_columns else 0.0)
    widths = [cell * len(panel.columns) for panel in panels]
    right = sum(widths) + _GAP * len(panels)
    total = left + right + _BAR + _BESIDE
    figure = page.figure if page else blank(max(total, left + 0.07 * len(title)), bottom + height + _TOP)
    bottom += page.bottom if page else 0.0
    with paper_style():
        known = np.concatenate([panel.values[~np.isnan(panel.values)] for panel in panels])
        scale = colours(known, signed)
        x = left
        for panel, width in zip(panels, widths, strict=True):
            axes = axes_at(figure, x, bottom, width, height)
            _draw_cells(axes, panel, scale, width / max(len(panel.columns), 1), height / len(panel.rows))
            x += width + _GAP
        tall = min(height, 2.4)
        bar = axes_at(figure, x + 0.02, bottom + (height - tall) / 2, _BAR, tall)
        colour_bar(figure, bar, scale, unit, upright=True)
        top = (bottom + height + 0.12) / figure.get_figheight()
        figure.text(left / figure.get_figwidth(), top, title, size=8, weight="bold", ha="left", va="bottom")
    return figure


def _left(panels: tuple[_Panel, ...]) -> float:
    """Inches that the labels of rows take."""
    return 0.3 + 0.052 * max(len(row) for row in (*panels[0].rows, ""))


def _draw_cells(axes: Axes, panel: _Panel, scale: ScalarMappable, width: float, height: float) -> None:
    draw_cells(axes, panel.values, scale)
    axes.set_facecolor("#eeeeee")
    _label_axis(axes, panel, width, height)
    line = float(np.clip(5 * min(width, height), 0.5, 1.3))
    for row, column, span in panel.outlined:
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, span, 1, fill=False, edgecolor=INK, linewidth=line, clip_on=False))
    if width >= _NUMBERS_FROM:
        _write_numbers(axes, panel, scale)


def _label_axis(axes: Axes, panel: _Panel, width: float, height: float) -> None:
    every_column, every_row = _step(len(panel.columns), width), _step(len(panel.rows), height)
    tilted = any(len(label) > 3 for label in panel.columns)
    axes.set_xticks(range(0, len(panel.columns), every_column), panel.columns[::every_column])
    axes.set_yticks(range(0, len(panel.rows), every_row), panel.rows[::every_row])
    axes.tick_params(length=0, pad=2, labelsize=6)
    if tilted:
        axes.tick_params(axis="x", labelrotation=90)
    if not panel.y_label and len(panel.columns) == 1:
        axes.set_yticks([])
    axes.set_xlabel(panel.x_label, labelpad=2)
    axes.set_ylabel(panel.y_label, labelpad=2)
    axes.spines[:].set_linewidth(0.4)


def _step(n: int, size: float) -> int:
    """Labels every 1, 2, 4 or 8 cells, as their size in inches allows."""
    return next((step for step in (1, 2, 4, 8) if step * size >= 0.13), 16) if n > 1 else 1


def _write_numbers(axes: Axes, panel: _Panel, scale: ScalarMappable) -> None:
    for row, column in np.argwhere(~np.isnan(panel.values)):
        value = float(panel.values[row, column])
        ink = ink_on(tuple(scale.to_rgba(value)))  # type: ignore[arg-type]
        axes.text(column, row, brief(value), size=5, color=ink, ha="center", va="center")


def brief(value: float) -> str:
    """A number in at most five characters or so: -0.12, 3.4, 120."""
    size = abs(value)
    if size < 0.005:
        return "0"
    if size >= 1000:
        return f"{value:.0e}".replace("e+0", "e").replace("-", "−")
    return f"{value:.{2 if size < 10 else 1 if size < 100 else 0}f}".replace("-", "−")
