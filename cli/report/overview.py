"""A study at a glance: for each model and method, what circuits share, and what each does on the others' tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from cli.report.figure import PALE, axes_at, blank, colour_bar, ink_on, paper_style
from cli.wording import number

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Square = Float[np.ndarray, "circuit prompts"]

_ROOM = 0.3  # inches of cell width that hold a second number
_GAP = 0.22


@dataclass(frozen=True)
class Panel:
    """One model and method: Jaccard of every two circuits and its chance level; where circuits were judged on each
    other's prompts (rows: circuits), faithfulness and the median of random circuits of their size. NaN: unknown."""

    title: str
    names: tuple[str, ...]
    overlap: Square
    chance: Square
    faithfulness: Square | None = None
    random: Square | None = None


def overview(panels: Sequence[Panel]) -> Figure:
    """Two rows of heatmaps, overlap above transfer, a column for each panel; small numbers: chance."""
    n, longest = max(len(p.names) for p in panels), max(len(name) for p in panels for name in p.names)
    cell = float(np.clip(1.7 / n, 0.16, 0.42))
    rows = 1 + any(p.faithfulness is not None for p in panels)
    left, below, side = 0.12 + 0.058 * longest + 0.14, 0.12 + 0.058 * longest, cell * n
    width = left + len(panels) * (side + _GAP) + 0.7
    height = below + rows * (side + _GAP) + 0.35
    figure = blank(width, height)
    scale = ScalarMappable(Normalize(0, 1, clip=True), mpl.colormaps["BuPu"])
    with paper_style():
        for column, panel in enumerate(panels):
            x, lowest = left + column * (side + _GAP), below
            squares = [(panel.faithfulness, panel.random), (panel.overlap, panel.chance)][2 - rows :]
            for row, (values, chance) in enumerate(squares):
                axes = axes_at(figure, x, lowest + row * (side + _GAP), side, side)
                _square(axes, panel, values, chance, scale, cell, ticks=(row == 0, column == 0))
                if column == 0:
                    what = "overlap (Jaccard)" if row == rows - 1 else "transfer (faithfulness)"
                    axes.set_ylabel(what, size=7, weight="bold")
            middle, top = (x + side / 2) / width, (lowest + rows * (side + _GAP) - _GAP + 0.06) / height
            figure.text(middle, top, panel.title, size=7, weight="bold", ha="center", va="bottom")
        if rows == 2:
            words = "transfer: a row for each circuit,\na column for each task it is judged on"
            figure.text((width - 0.08) / width, 0.08 / height, words, size=5.5, ha="right", va="bottom")
        bar = axes_at(figure, width - 0.52, below, 0.09, min(2.4, rows * (side + _GAP) - _GAP))
        colour_bar(figure, bar, scale, "value; small: chance", upright=True)
    return figure


def _square(
    axes: Axes,
    panel: Panel,
    values: Square | None,
    chance: Square | None,
    scale: ScalarMappable,
    cell: float,
    ticks: tuple[bool, bool],
) -> None:
    n = len(panel.names)
    shown = np.full((n, n), np.nan) if values is None else values
    axes.imshow(shown, norm=Normalize(0, 1), cmap=scale.cmap, interpolation="nearest", aspect="auto")
    axes.set_facecolor("#eeeeee")
    names, nothing = list(panel.names), [""] * n
    axes.set_xticks(range(n), names if ticks[0] else nothing, rotation=90)
    axes.set_yticks(range(n), names if ticks[1] else nothing)
    axes.tick_params(length=0, pad=2, labelsize=6)
    axes.spines[:].set_linewidth(0.4)
    axes.spines[:].set_color(PALE)
    for y, x in np.argwhere(~np.isnan(shown)).tolist():
        ink = ink_on(tuple(scale.to_rgba(np.array(shown[y, x]))))
        small = chance is not None and cell >= _ROOM and not np.isnan(chance[y, x])
        axes.text(x, y - 0.14 * small, number(shown[y, x]), size=6, color=ink, ha="center", va="center")
        if small and chance is not None:
            axes.text(x, y + 0.27, number(chance[y, x]), size=4.2, color=ink, ha="center", va="center")
