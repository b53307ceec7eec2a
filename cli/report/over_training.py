"""A timeline as a picture: one panel a kind of figure, one below the other, over the same steps.

The one idea: what came first is read downwards, so all panels share their steps, and where a stage of the training
ends a line runs through all of them. A dashed line of a figure's colour is its chance level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from cli.report.figure import PALE, paper_style
from cli.report.sheet import PAGE, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from circuits.over_training.series import Series

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
_LEFT, _LEGEND, _HEIGHT, _GAP, _BELOW, _ABOVE = 0.55, 1.75, 0.98, 0.2, 0.34, 0.14
_TITLES = {
    "behaviour": "share of prompts",
    "metric": "metric",
    "circuit": "circuit",
    "size": "kept",
    "role": "role, best head",
    "induction": "induction",
}
_BOUNDS = {"circuit": (-0.5, 1.5)}
"""Faithfulness of what there is little of runs away."""


def timeline_figure(
    series: Sequence[Series], steps: Sequence[int], stages: Mapping[str, int], title: str
) -> Figure:
    """steps: those of the points. stages: stage -> its steps, in their order."""
    panels = [list(some) for _, some in groupby(series, key=lambda one: one.kind)]
    height = _ABOVE + len(panels) * (_HEIGHT + _GAP) - _GAP + _BELOW
    notes = ("bands: 95% intervals", "dashed: chance", "a gap: no meaning there")
    page = sheet(PAGE, height, title, notes)
    ends = np.cumsum(list(stages.values())).tolist()
    with paper_style():
        for n, panel in enumerate(panels):
            bottom = _BELOW + (len(panels) - 1 - n) * (_HEIGHT + _GAP)
            axes = page.axes(_LEFT, bottom, PAGE - _LEFT - _LEGEND, _HEIGHT)
            _draw(axes, panel, steps)
            _dress(axes, panel[0].kind, steps, ends, last=n + 1 == len(panels))
            if n == 0:
                _name_stages(axes, stages, ends)
    return page.figure


def _draw(axes: Axes, panel: Sequence[Series], steps: Sequence[int]) -> None:
    for one, colour in zip(panel, _COLOURS, strict=False):
        value, low, high, chance = (
            np.array([getattr(p, part) if p else None for p in one.points], dtype=float)
            for part in ("value", "low", "high", "chance")
        )
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(steps, value, color=colour, linewidth=1, marker="o", markersize=1.8, label=one.name)
        axes.plot(steps, chance, color=colour, linewidth=0.6, linestyle=(0, (3, 2)))


def _dress(axes: Axes, kind: str, steps: Sequence[int], ends: Sequence[int], *, last: bool) -> None:
    for end in ends[:-1]:
        axes.axvline(end, color=PALE, linewidth=0.4, linestyle=":")
    if kind in _BOUNDS:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, _BOUNDS[kind][0]), min(high, _BOUNDS[kind][1]))
    if kind == "size":
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    edge = 0.01 * (steps[-1] - steps[0])
    axes.set_xlim(steps[0] - edge, steps[-1] + edge)
    axes.set_ylabel(_TITLES[kind], size=6.5, labelpad=2)
    axes.tick_params(width=0.4, length=2, labelsize=5.5, labelbottom=last)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=5.5, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.04), labelspacing=0.3)
    if last:
        axes.set_xlabel("steps of training", size=6.5, labelpad=2)


def _name_stages(axes: Axes, stages: Mapping[str, int], ends: Sequence[int]) -> None:
    """Above the first panel, each over its middle."""
    for (name, length), end in zip(stages.items(), ends, strict=True):
        where = (end - length / 2, 1.02)
        axes.text(
            *where, name, size=5.5, color=PALE, ha="center", va="bottom", transform=axes.get_xaxis_transform()
        )
