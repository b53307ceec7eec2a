"""Two models head by head: a column each, depth upwards, and a line between heads that were matched.

The one idea: relative depth is the height in both columns, so a line that is not nearly level joins heads that sit
elsewhere; colour says whose circuit a head is in, width whether both ends are, and paleness how seldom the pair
returns when prompts are drawn anew. Within a layer heads stand in the order of their partners, so that few lines
cross.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from circuits.comparison.alignment import Alignment, Pair
from circuits.graph import Graph
from cli.head_columns import head_heights, steps_of
from cli.report.figure import INK, PALE, axes_at, blank, paper_style
from cli.report.overlay import ONLY_FIRST, ONLY_SECOND, SHARED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _MARGIN, _TALLEST = 2.6, 0.75, 12.0
_STEP = 0.105  # inches from one head to the next, where the page allows
_LEGIBLE = 0.07


class Column(NamedTuple):
    """One model: what to call it, its shape, and the heads of its circuit."""

    name: str
    graph: Graph
    kept: frozenset[str]


def alignment_picture(first: Column, second: Column, found: Alignment) -> Figure:
    """Both columns, and every matched pair."""
    partner = {pair.second: pair.first for pair in found.pairs}
    steps = max(steps_of(first.graph), steps_of(second.graph))
    left = head_heights(first.graph, 1 / steps, {})
    right = head_heights(second.graph, 1 / steps, {head: left[other] for head, other in partner.items()})
    height = min(steps * _STEP, _TALLEST)
    figure = blank(_WIDTH + 2 * _MARGIN, height + 1.1)
    with paper_style():
        axes = axes_at(figure, _MARGIN, 0.65, _WIDTH, height)
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.01, 1.01)
        axes.set_axis_off()
        for pair in sorted(found.pairs, key=lambda pair: _both(pair, first, second)):
            _draw_pair(axes, pair, (left[pair.first], right[pair.second]), (first, second))
        for column, heights, x in ((first, left, 0.0), (second, right, 1.0)):
            colour = ONLY_SECOND if x else ONLY_FIRST
            _draw_column(axes, column, heights, x, colour, height / steps >= _LEGIBLE)
        _key(axes, first.name, second.name)
    return figure


def _both(pair: Pair, first: Column, second: Column) -> int:
    return (pair.first in first.kept) + (pair.second in second.kept)


def _draw_pair(axes: Axes, pair: Pair, ends: tuple[float, float], columns: tuple[Column, Column]) -> None:
    kept = (pair.first in columns[0].kept, pair.second in columns[1].kept)
    colour = {(True, True): SHARED, (True, False): ONLY_FIRST, (False, True): ONLY_SECOND}.get(kept, PALE)
    width = 2.0 if all(kept) else 0.9 if any(kept) else 0.5
    axes.plot(
        (0.03, 0.97), ends, color=colour, lw=width, alpha=0.25 + 0.75 * pair.stability, solid_capstyle="round"
    )


def _draw_column(
    axes: Axes, column: Column, heights: Mapping[str, float], x: float, colour: str, legible: bool
) -> None:
    outwards, side = (1, "left") if x else (-1, "right")
    for head, y in heights.items():
        kept = head in column.kept
        axes.plot([x + 0.015 * outwards], [y], "o", ms=2.4, color=colour if kept else PALE, clip_on=False)
        if legible:
            weight, ink = ("bold", colour) if kept else ("normal", PALE)
            axes.text(x + 0.04 * outwards, y, head, size=4.8, color=ink, weight=weight, ha=side, va="center")
    axes.text(x, 1.03, column.name, size=7, weight="bold", color=INK, ha="center", va="bottom")


def _key(axes: Axes, first: str, second: str) -> None:
    lines = (
        ("matched, and in both circuits", SHARED),
        (f"in that of {first} alone", ONLY_FIRST),
        (f"in that of {second} alone", ONLY_SECOND),
        ("pale: seldom matched when prompts are drawn anew; height: relative depth", "#666666"),
    )
    for i, (words, colour) in enumerate(lines):
        where: dict[str, Any] = {"xytext": (-40, -8 - 8.5 * i), "textcoords": "offset points"}
        axes.annotate(words, (0, 0), **where, size=5.5, color=colour, va="center", annotation_clip=False)
