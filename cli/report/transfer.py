"""Circuits on each other's tasks: a heatmap of faithfulness, each number above the median of random circuits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from circuits.evaluation.transfer import Journey
from cli.report.figure import INK, axes_at, blank, colour_bar, ink_on, paper_style
from cli.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROOM_FOR_CHANCE = 0.3  # inches of cell width


def transfer_matrix(journeys: Sequence[Journey], title: str) -> Figure:
    """Rows: circuits; columns: whose prompts they are judged on; framed: those of the circuit's own task."""
    rows = tuple(dict.fromkeys(j.circuit for j in journeys))
    columns = tuple(dict.fromkeys(j.place for j in journeys))
    cell = float(np.clip(6.0 / max(len(rows), len(columns)), 0.18, 0.55))
    left, below = (0.3 + 0.055 * max(map(len, names)) for names in (rows, columns))
    wide, tall = cell * len(columns), cell * len(rows)
    figure = blank(max(left + wide + 0.8, left + 0.07 * len(title)), below + tall + 0.4)
    scale = ScalarMappable(Normalize(0, 1, clip=True), mpl.colormaps["BuPu"])
    with paper_style():
        axes = axes_at(figure, left, below, wide, tall)
        _draw(axes, journeys, rows, columns, scale, cell)
        axes.set_xlabel("judged on the prompts of", size=7)
        axes.set_ylabel("circuit of", size=7)
        height = min(tall, 2.4)
        bar = axes_at(figure, left + wide + 0.12, below + (tall - height) / 2, 0.09, height)
        colour_bar(figure, bar, scale, "faithfulness (small: random)", upright=True)
        top = (below + tall + 0.12) / figure.get_figheight()
        figure.text(left / figure.get_figwidth(), top, title, size=8, weight="bold", va="bottom")
    return figure


def _draw(
    axes: Axes,
    journeys: Sequence[Journey],
    rows: Sequence[str],
    columns: Sequence[str],
    scale: ScalarMappable,
    cell: float,
) -> None:
    values = np.full((len(rows), len(columns)), np.nan)
    for j in journeys:
        values[rows.index(j.circuit), columns.index(j.place)] = j.verdict.faithfulness.value
    axes.imshow(values, norm=Normalize(0, 1), cmap=scale.cmap, interpolation="nearest", aspect="auto")
    axes.set_facecolor("#eeeeee")
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, pad=2, labelsize=6 if cell > 0.2 else 5)
    axes.spines[:].set_linewidth(0.4)
    for j in journeys:
        _write(axes, j, rows.index(j.circuit), columns.index(j.place), scale, cell)


def _write(axes: Axes, journey: Journey, y: int, x: int, scale: ScalarMappable, cell: float) -> None:
    value, chance = journey.verdict.faithfulness.value, journey.verdict.random.median
    ink = ink_on(tuple(scale.to_rgba(np.array(value))))
    roomy = cell >= _ROOM_FOR_CHANCE
    axes.text(
        x, y - 0.13 * roomy, number(value), size=min(7.0, 14 * cell), color=ink, ha="center", va="center"
    )
    if roomy:
        axes.text(x, y + 0.25, number(chance), size=4.5, color=ink, ha="center", va="center")
    if journey.at_home:
        axes.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=1.0))
