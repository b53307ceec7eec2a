"""Many circuits against each other: a heatmap of Jaccards, each number with a star where chance does not give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from circuits.comparison.pairwise import Comparison
from circuits.statistics import adjust_pvalues
from cli.report.figure import axes_at, blank, colour_bar, ink_on, paper_style

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVEL = 0.05
_NUMBERS_FROM = 0.2  # inches of cell width that hold a number


def jaccards(
    names: Sequence[str], comparisons: Sequence[Comparison]
) -> tuple[Float[np.ndarray, "run run"], Bool[np.ndarray, "run run"]]:
    """Jaccard of every two runs (NaN where both are empty), and whether it is more than chance within strata gives:
    Holm-corrected p at or below 0.05."""
    place = {name: i for i, name in enumerate(names)}
    values, marked = np.eye(len(names)), np.zeros((len(names), len(names)), dtype=bool)
    adjusted = adjust_pvalues(np.array([c.within.p_value for c in comparisons]), "holm")
    for found, p in zip(comparisons, adjusted.tolist(), strict=True):
        i, j = place[found.first], place[found.second]
        jaccard = found.overlap.jaccard
        values[i, j] = values[j, i] = np.nan if jaccard is None else jaccard
        marked[i, j] = marked[j, i] = p <= LEVEL
    return values, marked


def matrix(names: Sequence[str], comparisons: Sequence[Comparison], title: str) -> Figure:
    """The heatmap. Comparisons are of one granularity and cover every two of `names`."""
    values, marked = jaccards(names, comparisons)
    cell = float(np.clip(6.4 / len(names), 0.11, 0.5))
    side = cell * len(names)
    margin = 0.2 + 0.052 * max(map(len, names))
    figure = blank(max(margin + side + 0.75, margin + 0.07 * len(title)), margin + side + 0.4)
    norm = Normalize(0, 1)
    scale = ScalarMappable(norm, mpl.colormaps["BuPu"])
    with paper_style():
        axes = axes_at(figure, margin, margin, side, side)
        axes.imshow(values, norm=norm, cmap=scale.cmap, interpolation="nearest", aspect="auto")
        axes.set_facecolor("#eeeeee")
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0, pad=2, labelsize=6 if cell > 0.13 else 5)
        axes.spines[:].set_linewidth(0.4)
        _write_cells(axes, values, marked, scale, cell)
        tall = min(side, 2.4)
        bar = axes_at(figure, margin + side + 0.12, margin + (side - tall) / 2, 0.09, tall)
        colour_bar(figure, bar, scale, f"Jaccard (*: above chance, p ≤ {LEVEL})", upright=True)
        top = (margin + side + 0.12) / figure.get_figheight()
        figure.text(margin / figure.get_figwidth(), top, title, size=8, weight="bold", va="bottom")
    return figure


def _write_cells(
    axes: Axes,
    values: Float[np.ndarray, "run run"],
    marked: Bool[np.ndarray, "run run"],
    scale: ScalarMappable,
    cell: float,
) -> None:
    for i, j in np.argwhere(~np.isnan(values)).tolist():
        number = f"{values[i, j]:.2f}" if cell >= _NUMBERS_FROM else ""
        words = number + ("*" if marked[i, j] else "")
        ink = ink_on(tuple(scale.to_rgba(values[i, j])))
        size = min(6.0, 15 * cell)
        axes.text(j, i, words, size=size, color=ink, ha="center", va="center")
