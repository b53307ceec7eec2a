"""Figures of every pair of two lists as panels of coloured cells, side by side, with one scale for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from cli.report.figure import colour_bar, draw_cells, ink_on, legible, paper_style, text_width
from cli.report.sheet import EDGE, PAGE, sheet

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMALL, _APART, _BAR, _HEAD = 5.5, 0.18, 0.62, 0.16
_WIDEST = 0.34
_LABELS = 0.085  # inches that a label needs
_WRITTEN = 0.24  # inches of cell from which on it holds its number


@dataclass(frozen=True)
class Cells:
    """rows, columns: labels. panels: title -> values, NaN where there is none. marked: cells with a dot, by panel."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    panels: Mapping[str, Float[np.ndarray, "row column"]]
    x: str
    y: str
    marked: Mapping[str, Bool[np.ndarray, "row column"]]


def scale_from(least: float, most: float) -> ScalarMappable:
    """White at `least`: what is no more than that is blank."""
    return ScalarMappable(Normalize(least, max(most, least + 1e-9), clip=True), mpl.colormaps["BuPu"])


def scale_about_zero(most: float) -> ScalarMappable:
    return ScalarMappable(Normalize(-(most or 1.0), most or 1.0, clip=True), mpl.colormaps["RdBu"])


def cells(found: Cells, scale: ScalarMappable, title: str, unit: str, notes: tuple[str, ...] = ()) -> Figure:
    """unit: of the colours."""
    left = EDGE + 0.22 + max(text_width(legible(label), _SMALL) for label in found.rows)
    under = 0.2 + max(text_width(legible(label), _SMALL) for label in found.columns)
    n = len(found.panels)
    room = (PAGE - left - _BAR - _APART * (n - 1)) / n
    cell = min(_WIDEST, room / len(found.columns))
    tall = max(min(cell, _WIDEST) * len(found.rows), 0.5)
    page = sheet(PAGE, under + tall + _HEAD, title, notes)
    wide = cell * len(found.columns)
    with paper_style():
        for i, (name, values) in enumerate(found.panels.items()):
            axes = page.axes(left + i * (wide + _APART), under, wide, tall)
            _draw(axes, found, values, scale, cell)
            if name in found.marked:
                _dots(axes, found.marked[name], values, scale)
            axes.set_title(name, size=6.5, pad=3)
            _label(axes, found, cell, beside=i == 0)
        high = min(tall, 1.6)
        at = left + n * wide + (n - 1) * _APART + 0.12
        bar = page.axes(at, under + (tall - high) / 2, 0.08, high)
        colour_bar(page.figure, bar, scale, unit, upright=True)
    return page.figure


def _draw(
    axes: Axes, found: Cells, values: Float[np.ndarray, "row column"], scale: ScalarMappable, cell: float
) -> None:
    draw_cells(axes, values, scale)
    axes.set_facecolor("#e6e6e6")
    axes.spines[:].set_linewidth(0.4)
    if cell < _WRITTEN:
        return
    for row, column in np.argwhere(~np.isnan(values)).tolist():
        ink = ink_on(tuple(scale.to_rgba(values[row, column])))
        axes.text(column, row, f"{values[row, column]:.2f}", size=5.5, color=ink, ha="center", va="center")


def _dots(
    axes: Axes,
    marked: Bool[np.ndarray, "row column"],
    values: Float[np.ndarray, "row column"],
    scale: ScalarMappable,
) -> None:
    """In the corner of each marked cell."""
    places = np.argwhere(marked)
    inks = [ink_on(tuple(scale.to_rgba(value))) for value in values[marked]]
    axes.scatter(places[:, 1] + 0.34, places[:, 0] - 0.32, s=2.5, color=inks, linewidth=0)


def _label(axes: Axes, found: Cells, cell: float, beside: bool) -> None:
    """As many labels as have room."""
    every = max(1, int(np.ceil(_LABELS / cell)))
    axes.set_xticks(*_every(found.columns, every), size=_SMALL, rotation=90)
    axes.set_yticks(*(_every(found.rows, every) if beside else ([], [])), size=_SMALL)
    axes.set_xlabel(found.x, size=6.5, labelpad=2)
    if beside:
        axes.set_ylabel(found.y, size=6.5, labelpad=2)
    axes.tick_params(length=0, pad=2)


def _every(labels: Sequence[str], n: int) -> tuple[list[int], list[str]]:
    places = list(range(0, len(labels), n))
    return places, [legible(labels[i]) for i in places]
