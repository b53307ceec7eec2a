"""Scores of texts as a histogram, with those that chance gives the same texts behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from cli.report.figure import PALE, paper_style
from cli.report.sheet import COLUMN, sheet

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.figure import Figure

_LEFT, _BELOW, _TALL = 0.42, 0.34, 1.5
_SCORES = "#2166ac"


def histogram(
    scores: Float[np.ndarray, " text"],
    chance: Float[np.ndarray, " text"] | None,
    title: str,
    notes: tuple[str, ...],
) -> Figure:
    """Twice as many bins as the root of the number of texts, within 8 and 40."""
    known = scores if chance is None else np.concatenate([scores, chance])
    edges = np.histogram_bin_edges(known, int(np.clip(2 * np.sqrt(len(scores)), 8, 40))).tolist()
    page = sheet(COLUMN, _TALL + _BELOW, title, notes)
    with paper_style():
        axes = page.axes(_LEFT, _BELOW, COLUMN - _LEFT - 0.12, _TALL)
        if chance is not None:
            axes.hist(chance, edges, color=PALE, alpha=0.7, label="chance, mean of draws")
        axes.hist(scores, edges, histtype="step", color=_SCORES, linewidth=1.2, label="score")
        axes.legend(fontsize=5.5, frameon=False, handlelength=1.4)
        axes.set_xlabel("score of a text", size=6.5, labelpad=2)
        axes.set_ylabel("texts", size=6.5, labelpad=2)
        axes.tick_params(width=0.4, length=2, labelsize=5.5)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    return page.figure
