"""Logit attribution as a waterfall, on paper; see cli.waterfall for its bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.patches import Rectangle

from cli.report.figure import INK, PALE, paper_style
from cli.report.sheet import COLUMN, sheet
from cli.waterfall import Step, steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW, _LEFT, _RIGHT, _BELOW = 0.125, 0.8, 0.42, 0.32
_SUPPORTS, _OPPOSES = "#2166ac", "#b2182b"


def waterfall(
    components: Mapping[str, float],
    outside: Mapping[str, float],
    title: str,
    unit: str = "logits",
    width: float = COLUMN,
    most: int = 16,
    whole: str = "logit difference",
) -> Figure:
    """components: in the order in which they write. outside: what is no component (input, biases)."""
    bars = steps(components, outside, most)
    total = sum(bar.value for bar in bars)
    height = _ROW * (len(bars) + 1)
    notes = (
        "blue raises the answers above the distractors, red lowers them; bars follow the order of writing",
    )
    page = sheet(width, height + _BELOW, title, notes)
    with paper_style():
        axes = page.axes(_LEFT, _BELOW, width - _LEFT - _RIGHT, height)
        _draw(axes, bars, total)
        rows = [*bars, Step(whole, 0.0, total)]
        axes.set_yticks(range(len(rows)), [row.name for row in rows], size=5.5)
        for y, row in enumerate(rows):
            weight = "bold" if y == len(bars) else "normal"
            words = f"{row.value:+.2f}".replace("-", "−")
            axes.annotate(
                words, (1, y), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                size=5.5, va="center", weight=weight,
            )  # fmt: skip
        axes.set_xlabel(f"sum so far ({unit})", labelpad=2, size=6.5)
        axes.tick_params(width=0.4, length=2, labelsize=5.5)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    return page.figure


def _draw(axes: Axes, bars: Sequence[Step], total: float) -> None:
    for y, bar in enumerate(bars):
        colour = _SUPPORTS if bar.value >= 0 else _OPPOSES
        axes.add_patch(
            Rectangle(
                (bar.start, y - 0.36), bar.value, 0.72, facecolor=colour, edgecolor=colour, linewidth=0.3
            )
        )
        axes.plot([bar.end, bar.end], [y - 0.36, y + 1.36], color=PALE, linewidth=0.4, zorder=0)
    axes.add_patch(Rectangle((0, len(bars) - 0.36), total, 0.72, facecolor=INK, edgecolor=INK, linewidth=0.3))
    axes.axvline(0, color=INK, linewidth=0.4)
    reached = [0.0, *(bar.end for bar in bars)]
    spare = 0.03 * (max(reached) - min(reached) or 1.0)
    axes.set_xlim(min(reached) - spare, max(reached) + spare)
    axes.set_ylim(len(bars) + 0.5, -0.6)
