"""Curves over sizes with their bands, and how alike redrawn circuits are.

The one idea: chance is in the picture. Every curve stands beside random rankings, every similarity beside noise and
the field's bar. Sizes are drawn on a logarithmic axis, for seven of the ten lie below a tenth; areas are taken on the
linear one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import NullLocator

from circuits.evaluation.curves import SHARES, Curve, Curves
from circuits.evaluation.run_evaluation import Judged
from circuits.evaluation.stability import BAR
from cli.report.figure import INK, PALE, axes_at, blank, paper_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT, _LEFT, _GAP, _BOTTOM, _TOP = 2.5, 1.7, 0.5, 0.3, 0.55, 0.3
_SIGNED, _ABSOLUTE = "#2166ac", "#b2182b"


def curve_picture(judged: Sequence[Judged]) -> Figure:
    """A panel a method and ablation: faithfulness over sizes, by both orders, with bands; random rankings in grey."""
    panels = [
        (f"{entry.recorded.circuit.method}, {found.verdict.ablation}", entry, found.curves)
        for entry in judged
        for found in entry.appraisals
        if found.curves
    ]
    figure = blank(_LEFT + len(panels) * (_WIDTH + _GAP), _BOTTOM + _HEIGHT + _TOP)
    with paper_style():
        for i, (title, entry, curves) in enumerate(panels):
            axes = axes_at(figure, _LEFT + i * (_WIDTH + _GAP), _BOTTOM, _WIDTH, _HEIGHT)
            _draw_curves(axes, curves, "edges" if entry.recorded.edges else "components")
            axes.set_title(title, size=7, weight="bold", loc="left")
            if i == 0:
                axes.set_ylabel("faithfulness")
    return figure


def _draw_curves(axes: Axes, curves: Curves, unit: str) -> None:
    low, mean, high = (
        [getattr(point, side) for point in curves.random.points] for side in ("low", "mean", "high")
    )
    axes.fill_between(SHARES, low, high, color=PALE, alpha=0.3, linewidth=0)
    axes.plot(SHARES, mean, color=PALE, linewidth=1, label=f"random (CPR {curves.random.cpr.mean:.2f})")
    for level in (0, 1):
        axes.axhline(level, color=INK, linewidth=0.4, linestyle=":")
    _draw_curve(axes, curves.signed, _SIGNED, f"largest scores (CPR {curves.cpr.value:.2f})")
    _draw_curve(axes, curves.absolute, _ABSOLUTE, f"largest sizes (CMD {curves.cmd.value:.2f})")
    axes.set_xscale("log")
    n = {point.share: point.n for point in curves.signed.points}
    axes.set_xticks(SHARES, [f"{100 * share:g}%\n{n[share]}" for share in SHARES], size=5)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"share of {unit} kept, and how many", labelpad=2)
    axes.legend(fontsize=5, frameon=False, loc="upper left", bbox_to_anchor=(0, 0.93), handlelength=1.2)
    axes.tick_params(width=0.4, length=2, labelsize=5.5)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curve(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    values = np.array([(p.faithfulness.low, p.faithfulness.value, p.faithfulness.high) for p in curve.points])
    bounded = np.where(np.isfinite(values), values, np.nan)
    axes.fill_between(SHARES, bounded[:, 0], bounded[:, 2], color=colour, alpha=0.2, linewidth=0)
    axes.plot(SHARES, bounded[:, 1], color=colour, linewidth=1, marker="o", markersize=2, label=label)


def stability_picture(judged: Sequence[Judged]) -> Figure:
    """Jaccard of redrawn circuits: mean and 95% of pairs for each method, noise as a cross, the bar as a line."""
    height = 0.28 * len(judged)
    left = 0.3 + 0.055 * max(len(entry.recorded.circuit.method) for entry in judged)
    figure = blank(left + 3.2, _BOTTOM + height + _TOP)
    with paper_style():
        axes = axes_at(figure, left, _BOTTOM, 2.6, height)
        for row, entry in enumerate(judged):
            if found := entry.redrawn.stability:
                axes.plot((found.low, found.high), (row, row), color=_SIGNED, linewidth=1.2)
                axes.plot(found.jaccard, row, marker="o", markersize=4, color=_SIGNED)
                axes.plot(found.chance, row, marker="x", markersize=4, color=PALE)
        axes.axvline(BAR, color=_ABSOLUTE, linewidth=0.8, linestyle="--")
        axes.text(BAR, -0.55, f"bar {BAR:g}", size=5.5, color=_ABSOLUTE, ha="center", va="bottom")
        axes.set_yticks(range(len(judged)), [entry.recorded.circuit.method for entry in judged])
        axes.set_ylim(len(judged) - 0.5, -0.5)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("mean pairwise Jaccard over draws (cross: noise)", labelpad=2)
        axes.tick_params(width=0.4, length=2, labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
