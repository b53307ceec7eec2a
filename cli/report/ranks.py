"""What each head's queries, keys and values recover of the loss, over the rank that they are left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from cli.report.figure import PALE, paper_style
from cli.report.sheet import PAGE, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from circuits.weight_reading.low_rank import Ranks

_LEFT, _APART, _BELOW, _HEAD, _KEY, _TALL = 0.42, 0.22, 0.34, 0.16, 0.62, 1.5
_COLOURS = {"q": "#1b9e77", "k": "#d95f02", "v": "#7570b3", "all": "#222222"}
_ACROSS = 3
"""Panels beside each other."""


def ranks_figure(found: Sequence[Ranks], title: str) -> Figure:
    """A panel a head. What has nothing to recover is left out."""
    heads = list(dict.fromkeys(ranks.head for ranks in found))
    lines = -(-len(heads) // _ACROSS)
    band = _BELOW + _TALL + _HEAD
    notes = (
        "lines: principal directions; dashed: random ones, mean of draws; dots: the smallest rank that recovers 95% "
        "from there on; parts with nothing clear to recover are left out",
    )
    page = sheet(PAGE, band * lines, title, notes)
    across = min(len(heads), _ACROSS)
    wide = min((PAGE - _LEFT - _KEY - _APART * (across - 1)) / across, 2.6)
    with paper_style():
        for i, head in enumerate(heads):
            row, column = divmod(i, _ACROSS)
            bottom = band * (lines - 1 - row) + _BELOW
            axes = page.axes(_LEFT + column * (wide + _APART), bottom, wide, _TALL)
            _draw(axes, [ranks for ranks in found if ranks.head == head])
            _dress(axes, head, column == 0)
        key = [
            axes.plot([], [], color=colour, linewidth=1.2, label=part)[0] for part, colour in _COLOURS.items()
        ]
        at = (_LEFT + across * (wide + _APART) - 0.1) / PAGE
        top = (page.bottom + band * lines - _HEAD) / page.figure.get_figheight()
        page.figure.legend(
            handles=key,
            loc="upper left",
            bbox_to_anchor=(at, top),
            fontsize=6,
            frameon=False,
            borderaxespad=0,
        )
    return page.figure


def _draw(axes: Axes, found: Sequence[Ranks]) -> None:
    axes.axhline(0.95, color=PALE, linewidth=0.5, linestyle=":")
    for ranks in found:
        if ranks.enough is None:
            continue
        colour = _COLOURS[ranks.part]
        shares, chance = (_recovered(ranks, losses) for losses in (ranks.loss, ranks.random_loss))
        axes.plot(chance, color=colour, linewidth=0.7, linestyle=(0, (3, 2)))
        axes.plot(shares, color=colour, linewidth=1.2)
        axes.scatter([ranks.enough], [shares[ranks.enough]], s=12, color=colour, linewidth=0, zorder=3)


def _recovered(ranks: Ranks, losses: Sequence[float]) -> list[float]:
    """Of what full rank takes off the loss of rank 0."""
    first, last = ranks.loss[0], ranks.loss[-1]
    return [(first - loss) / (first - last) for loss in losses]


def _dress(axes: Axes, head: str, beside: bool) -> None:
    axes.set_title(head, size=6.5, pad=3)
    axes.set_ylim(-0.3, 1.3)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("rank", size=6.5, labelpad=2)
    if beside:
        axes.set_ylabel("share of the loss recovered", size=6.5, labelpad=2)
    axes.tick_params(width=0.4, length=2, labelsize=5.5, labelleft=beside)
    axes.spines[["top", "right"]].set_visible(False)
