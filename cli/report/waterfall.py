"""Logit attribution as a waterfall: from nothing, write by write, up to the logit difference.

The one idea: the parts sum to the whole, so each bar begins where the one above it ends; the largest stand alone in
the order in which the model writes them, and all others are one bar, so that nothing is missing from the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.patches import Rectangle

from cli.report.figure import INK, PALE, paper_style
from cli.report.sheet import COLUMN, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW, _LEFT, _RIGHT, _BELOW = 0.125, 0.8, 0.42, 0.32
_SUPPORTS, _OPPOSES = "#2166ac", "#b2182b"


class Step(NamedTuple):
    """A bar: what it is, and how far it goes."""

    name: str
    value: float


def steps(components: Mapping[str, float], outside: Mapping[str, float], most: int) -> list[Step]:
    """Input and biases, then the `most` largest components as they are written, then all others as one."""
    largest = set(sorted(components, key=lambda name: -abs(components[name]))[:most])
    alone = [Step(name, value) for name, value in components.items() if name in largest]
    rest = [value for name, value in components.items() if name not in largest]
    pooled = [Step(f"{len(rest)} others", sum(rest))] if rest else []
    return [*(Step(name, value) for name, value in outside.items()), *alone, *pooled]


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
        rows = [*bars, Step(whole, total)]
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
    so_far, reached = 0.0, [0.0]
    for y, bar in enumerate(bars):
        after = so_far + bar.value
        colour = _SUPPORTS if bar.value >= 0 else _OPPOSES
        axes.add_patch(
            Rectangle((so_far, y - 0.36), bar.value, 0.72, facecolor=colour, edgecolor=colour, linewidth=0.3)
        )
        axes.plot([after, after], [y - 0.36, y + 1.36], color=PALE, linewidth=0.4, zorder=0)
        so_far = after
        reached.append(after)
    axes.add_patch(Rectangle((0, len(bars) - 0.36), total, 0.72, facecolor=INK, edgecolor=INK, linewidth=0.3))
    axes.axvline(0, color=INK, linewidth=0.4)
    spare = 0.03 * (max(reached) - min(reached) or 1.0)
    axes.set_xlim(min(reached) - spare, max(reached) + spare)
    axes.set_ylim(len(bars) + 0.5, -0.6)
