"""Direct effects against total ones, and what nodes write for each label when each is the right one.

The one idea: on the diagonal a node does all that it does by itself, on the axis of totals nothing; what lies between
is passed on by others, and what lies below it is undone by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cli.report.cells import Cells, cells, scale_about_zero
from cli.report.figure import INK, PALE, paper_style
from cli.report.sheet import COLUMN, sheet

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from circuits.evaluation.faithfulness import Estimate

_LEFT, _BELOW, _HIGH = 0.42, 0.34, 2.4
_COLOURS = {
    "correct-label": "#2166ac",
    "amplification": "#67a9cf",
    "single-label": "#b35806",
    "uniform": "#f1a340",
    "content-gatherer": "#542788",
    "indirect": "#998ec3",
    "": PALE,
}
_CELLS = 50
"""What fits a page, across all panels."""
_NAMED = 14
_ROOM = 0.13, 0.04
"""What a name takes of the axes, across and up."""


class Dot(NamedTuple):
    """A node. in_set: whether it is of the set that answers."""

    name: str
    kind: str
    in_set: bool
    direct: Estimate
    total: Estimate

    @property
    def place(self) -> tuple[float, float]:
        return self.direct.value, self.total.value

    @property
    def size(self) -> float:
        return max(map(abs, self.place))


def answers_figure(nodes: Sequence[Dot], title: str, width: float = COLUMN) -> Figure:
    notes = (
        "axes: net logit of the right label, 95% intervals over prompts, root scale",
        "ring: in the set; dotted line: all of the effect is direct",
    )
    kinds = [kind for kind in _COLOURS if any(node.kind == kind for node in nodes)]
    key = 0.12 * (-(-len(kinds) // 3))
    page = sheet(width, _HIGH + _BELOW + key, title, notes)
    with paper_style():
        axes = page.axes(_LEFT, _BELOW + key, width - _LEFT - 0.1, _HIGH)
        _dress(axes)
        for kind in kinds:
            _draw(axes, [node for node in nodes if node.kind == kind], kind)
        _line(axes, nodes)
        _name(axes, nodes)
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(-0.14, -0.155),
            ncols=3,
            fontsize=5.5,
            frameon=False,
            handletextpad=0.1,
            columnspacing=0.8,
            borderpad=0,
        )
    return page.figure


def _dress(axes: Axes) -> None:
    axes.axhline(0, color=INK, linewidth=0.4)
    axes.axvline(0, color=INK, linewidth=0.4)
    # Most nodes do next to nothing, a few do all: a root spreads the small without hiding their sign.
    for scale in (axes.set_xscale, axes.set_yscale):
        scale("function", functions=(_root, _square))
    axes.set_xlabel("direct effect", size=6.5, labelpad=2)
    axes.set_ylabel("total effect", size=6.5, labelpad=2)
    axes.tick_params(labelsize=5.5, width=0.4, length=2)
    axes.spines[["top", "right"]].set_visible(False)


def _root(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.sign(x) * np.sqrt(np.abs(x)))


def _square(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.sign(x) * np.square(x))


def _draw(axes: Axes, nodes: Sequence[Dot], kind: str) -> None:
    x, y = zip(*(node.place for node in nodes), strict=True)
    across, up = ([getattr(node, side) for node in nodes] for side in ("direct", "total"))
    axes.errorbar(
        x, y, xerr=_arms(across), yerr=_arms(up), fmt="none", ecolor=_COLOURS[kind], elinewidth=0.5, alpha=0.6
    )
    ringed = [INK if node.in_set else "none" for node in nodes]
    axes.scatter(x, y, s=11, color=_COLOURS[kind], edgecolors=ringed, linewidths=0.6, zorder=3)
    axes.scatter([], [], s=11, color=_COLOURS[kind], label=kind or "none")


def _arms(values: Sequence[Estimate]) -> list[list[float]]:
    return [[e.value - e.low for e in values], [e.high - e.value for e in values]]


def _line(axes: Axes, nodes: Sequence[Dot]) -> None:
    """The diagonal, as far as direct effects go."""
    direct = [node.direct.value for node in nodes]
    line = np.linspace(min(0.0, *direct), 1.1 * max(0.0, *direct), 50)
    axes.plot(line, line, color=INK, linewidth=0.5, linestyle=":", zorder=1)


def _name(axes: Axes, nodes: Sequence[Dot]) -> None:
    """The largest, where no dot and no other name stands; on their own side of the diagonal."""
    into = axes.transData + axes.transAxes.inverted()
    dots = [into.transform(node.place) for node in nodes]
    named: list[tuple[float, float]] = []
    for node in sorted(nodes, key=lambda node: -node.size)[:_NAMED]:
        above = node.total.value > node.direct.value
        x, y = into.transform(node.place) + np.array([0.01, 0.01 if above else -_ROOM[1]])
        hidden = any(0 < a - x < _ROOM[0] and 0 < b - y < _ROOM[1] for a, b in dots)
        if not hidden and all(abs(a - x) > _ROOM[0] or abs(b - y) > _ROOM[1] for a, b in named):
            named.append((x, y))
            aside = (3, 2) if above else (3, -6)
            axes.annotate(node.name, node.place, xytext=aside, textcoords="offset points", size=5.5, zorder=4)


def labels_figure(
    tables: Mapping[str, Float[np.ndarray, "answer label"]], labels: tuple[str, ...], title: str
) -> Figure:
    """tables: net logits by node, the most important first."""
    first = dict(list(tables.items())[: max(1, min(len(tables), _CELLS // len(labels)))])
    reach = max(float(np.nanmax(np.abs(table))) for table in first.values())
    notes = (
        "a node that knows the answer is blue on the diagonal; one with a bias has a blue column",
        "grey: no prompt has both",
    )
    grid = Cells(labels, labels, first, "label", "right one", {})
    return cells(grid, scale_about_zero(reach), title, "net logit", notes)
