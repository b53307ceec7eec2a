"""Faithfulness against the size of a circuit, with the circuit that was chosen and what chance gives at its size.

The one idea: a point of the curve is the first n of a ranking, and the circuit need not be one of those, so it stands
as a mark of its own; sizes are drawn on a logarithmic axis, for the small ones are where the question is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import NullLocator

from cli.report.figure import INK, PALE, paper_style
from cli.report.sheet import COLUMN, EDGE, sheet
from cli.wording import estimate, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cli.shown import Curve, Stop

_LEFT, _RIGHT, _BELOW = 0.42, 0.08, 0.34
_ENTRY = 0.105  # inches that a line of the legend takes
_BLUE, _ORANGE = "#2166ac", "#b35806"
_TICKS = 8


def sizes_figure(
    curve: Curve, title: str, kept: int, what: str, verdict: Any, width: float = COLUMN
) -> Figure:
    """The curve with its interval; where there is a verdict, the circuit of `kept` and the random band as well.

    what: components or edges.
    """
    height = 1.7 if width <= COLUMN else 2.4
    notes: tuple[str, ...] = (f"curve: the first n of the ranking, {curve.told}",)
    if verdict:
        notes += (
            f"the circuit and {verdict.random.n} random ones: judged prompts, {verdict.ablation} ablation",
        )
    columns = 1 if width <= COLUMN else 2
    key = _ENTRY * (4 // columns)
    page = sheet(width, height + _BELOW + key, title, notes)
    with paper_style():
        axes = page.axes(_LEFT, _BELOW + key, width - _LEFT - _RIGHT, height)
        _draw_curve(axes, curve.stops)
        if verdict:
            _draw_circuit(axes, kept, verdict)
        _dress(axes, curve.stops, what)
        _explain(page.axes(EDGE, 0, width - 2 * EDGE, key), axes, columns)
    return page.figure


def _draw_curve(axes: Axes, stops: Sequence[Stop]) -> None:
    known = [stop for stop in stops if stop.kept > 0]
    sizes, values = [stop.kept for stop in known], [stop.faithfulness for stop in known]
    banded = [stop for stop in known if stop.low is not None and stop.high is not None]
    for level in (0, 1):
        axes.axhline(level, color=INK, linewidth=0.4, linestyle=":")
    if banded:
        lows, highs = ([getattr(stop, side) for stop in banded] for side in ("low", "high"))
        axes.fill_between(
            [stop.kept for stop in banded],
            lows,
            highs,
            color=_BLUE,
            alpha=0.2,
            linewidth=0,
            label="95% interval",
        )
    axes.plot(
        sizes, values, color=_BLUE, linewidth=1, marker="o", markersize=2.5, label="first n of the ranking"
    )


def _draw_circuit(axes: Axes, kept: int, verdict: Any) -> None:
    found, band = verdict.faithfulness, verdict.random
    label = f"95% of random circuits, {number(band.low)} to {number(band.high)}"
    axes.plot(
        [kept, kept],
        [band.low, band.high],
        color=PALE,
        linewidth=5,
        alpha=0.6,
        solid_capstyle="butt",
        label=label,
    )
    bounds = [[max(found.value - found.low, 0)], [max(found.high - found.value, 0)]]
    axes.errorbar(
        [kept],
        [found.value],
        yerr=bounds if np.isfinite(bounds).all() else None,
        color=_ORANGE,
        marker="D",
        markersize=4,
        markerfacecolor="white",
        elinewidth=1,
        linestyle="none",
        label=f"the circuit, {kept:,} kept: {estimate(found)}",
        zorder=5,
    )


def _dress(axes: Axes, stops: Sequence[Stop], what: str) -> None:
    axes.set_xscale("log")
    places = _spread([stop.kept for stop in stops if stop.kept > 0])
    axes.set_xticks(places, [f"{n:,}" for n in places], size=5.5)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{what} kept (logarithmic)", labelpad=2, size=6.5)
    axes.set_ylabel("faithfulness", labelpad=2, size=6.5)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1.0), min(high, 2.0))
    axes.tick_params(width=0.4, length=2, labelsize=5.5)
    axes.spines[["top", "right"]].set_visible(False)


def _explain(room: Axes, axes: Axes, columns: int) -> None:
    """The legend of `axes` in `room`."""
    room.set_axis_off()
    room.legend(
        *axes.get_legend_handles_labels(),
        fontsize=5.5,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        handlelength=1.6,
        borderpad=0,
        borderaxespad=0,
        labelspacing=0.3,
    )


def _spread(sizes: Sequence[int]) -> list[int]:
    """The first and the last size, and of those between as many as have room for their numbers."""
    known = sorted(set(sizes))
    least = np.log(known[-1] / known[0]) / _TICKS
    ticks = known[:1]
    for n in known[1:-1]:
        if min(np.log(n / ticks[-1]), np.log(known[-1] / n)) >= least:
            ticks.append(n)
    return sorted({*ticks, known[-1]})
