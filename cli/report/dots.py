"""Figures in rows: a dot with its interval for each, and what chance gives in the same row.

The one idea: what is claimed and what it is held against stand on one line, so that a look tells whether they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from cli.report.figure import INK, PALE, legible, paper_style, text_width
from cli.report.sheet import EDGE, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, ROW, _BELOW, _LEGEND, _SMALL = 4.6, 0.15, 0.34, 0.16, 6.0
_GAP = 0.6
"""Rows between groups."""

COLOURS = ("#2166ac", "#b35806", INK, PALE)
"""What is claimed, what it is beside, what it is measured by, chance."""

CLAIM, OTHER, REFERENCE, CHANCE = range(4)


@dataclass(frozen=True)
class Dot:
    """kind: whose colour; many dots of one kind may stand in a row."""

    value: float
    kind: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """A line. first: whether a group begins with it."""

    label: str
    dots: tuple[Dot, ...]
    first: bool = False


def dots(
    rows: Sequence[Row],
    legend: Mapping[int, str],
    title: str,
    axis: str,
    notes: tuple[str, ...] = (),
    lines: Sequence[float] = (),
) -> Figure:
    """legend: kind -> what it is. axis: what the figures are. lines: values at which the eye shall compare."""
    heights = _heights(rows)
    left = EDGE + 0.1 + max(text_width(legible(row.label), _SMALL) for row in rows)
    height = ROW * (heights[-1] + 1)
    page = sheet(WIDTH, height + _BELOW + _LEGEND, title, notes)
    with paper_style():
        axes = page.axes(left, _BELOW, WIDTH - left - 0.12, height)
        for value in lines:
            axes.axvline(value, color=PALE, linewidth=0.5, linestyle="--", zorder=0)
        for height_of, row in zip(heights, rows, strict=True):
            _draw(axes, height_of, row)
        _dress(axes, heights, rows, axis)
        named = [
            axes.scatter([], [], s=11, color=COLOURS[kind], label=words) for kind, words in legend.items()
        ]
        page.figure.legend(
            handles=named,
            loc="upper left",
            bbox_to_anchor=(
                left / WIDTH,
                (page.bottom + height + _BELOW + _LEGEND) / page.figure.get_figheight(),
            ),
            ncols=len(legend),
            fontsize=_SMALL,
            frameon=False,
            handletextpad=0.2,
            columnspacing=1.0,
            borderpad=0,
            borderaxespad=0,
        )
    return page.figure


def _heights(rows: Sequence[Row]) -> list[float]:
    """Of each row, from the top, in rows."""
    heights, at = [], -1.0
    for i, row in enumerate(rows):
        at += 1 + _GAP * (row.first and i > 0)
        heights.append(at)
    return heights


def _draw(axes: Axes, height: float, row: Row) -> None:
    """Chance below what is held against it."""
    for dot in sorted(row.dots, key=lambda dot: -dot.kind):
        colour, few = COLOURS[dot.kind], dot.kind != CHANCE
        if dot.low is not None and dot.high is not None:
            axes.plot([dot.low, dot.high], [height, height], color=colour, linewidth=1.2)
        axes.scatter([dot.value], [height], s=14 if few else 9, color=colour, linewidth=0, zorder=2 + few)


def _dress(axes: Axes, heights: Sequence[float], rows: Sequence[Row], axis: str) -> None:
    axes.set_yticks(heights, [legible(row.label) for row in rows], size=_SMALL)
    axes.set_ylim(heights[-1] + 0.6, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel(axis, labelpad=2, size=6.5)
    axes.tick_params(width=0.4, length=2, labelsize=_SMALL)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="#eeeeee", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
