"""The phases of in-context learning as one picture: what is known, which heads look, what edges are worth.

The one idea: what must be there for the story to hold stands in four panels in its order, chance in grey in each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from cli.in_context_output import span_words
from cli.report.figure import (
    PALE,
    PAPER,
    axes_at,
    blank,
    colours,
    draw_cells,
    ink_on,
    paper_style,
    write_lines,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from circuits.evaluation.faithfulness import Estimate
    from circuits.in_context.ablation import Ablation
    from circuits.in_context.study import Study

_WIDTH, _HEIGHT, _LEFT, _GAP, _BOTTOM, _TOP, _KEY = 1.75, 1.5, 0.42, 0.36, 0.5, 0.28, 0.26
_MARGIN, _ROW, _COLUMN = 1.15, 0.14, 0.85
_CONTROLS = ("random", "same queries")
_LEGEND: Any = {
    "fontsize": 5,
    "frameon": False,
    "handlelength": 1.2,
    "labelspacing": 0.2,
    "borderpad": 0,
    "loc": "upper left",
    "bbox_to_anchor": (0, -0.2),
    "borderaxespad": 0,
}
"""Below the panel, where no point can lie."""

_BLUE, _RED = "#2166ac", "#b2182b"


def phases_picture(found: Study) -> Figure:
    panels = (
        ("1 Summarise: s_q", _summary),
        ("2 Merge: s_i to y_i", _merge),
        ("3 Retrieve: y_i to s_q", _retrieve),
    )
    rows = [(edge, name) for edge in _edges(found) for name in ("forbidden", *_CONTROLS)]
    table = _ROW * len(rows)
    height = 2 * (_BOTTOM + _TOP) + _KEY + _HEIGHT + table
    figure = blank(_LEFT + len(panels) * (_WIDTH + _GAP), height)
    with paper_style():
        for i, (title, draw) in enumerate(panels):
            left, bottom = _LEFT + i * (_WIDTH + _GAP), height - _TOP - _HEIGHT
            axes = axes_at(figure, left, bottom, _WIDTH, _HEIGHT)
            draw(axes, found)
            _dress(axes, title)
        _worth(figure, found, rows)
        own = f"the model itself {found.accuracy.value:.0%}, a guess {found.chance:.0%}"
        at = (_LEFT, _BOTTOM + table + 0.17)
        write_lines(figure, at, [f"Accuracy without an edge ({own})"], 0.1, size=7, weight="bold")
    return figure


def _edges(found: Study) -> list[str]:
    return list(dict.fromkeys(each.edge for each in found.ablations))


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, size=7, weight="bold", loc="left")
    axes.set_ylim(-0.03, 1.03)
    axes.tick_params(width=0.4, length=2, labelsize=5.5)
    axes.spines[["top", "right"]].set_visible(False)


def _line(axes: Axes, x: Sequence[int], values: Sequence[Estimate], colour: str, label: str) -> None:
    low, mean, high = ([getattr(each, side) for each in values] for side in ("low", "value", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, mean, color=colour, linewidth=1, marker="o", markersize=2, label=label)


def _chance(axes: Axes, x: Sequence[int], values: Sequence[float], colour: str, label: str = "") -> None:
    axes.plot(x, values, color=colour, linewidth=0.8, linestyle=":", label=label or None)


def _summary(axes: Axes, found: Study) -> None:
    x = [each.layers for each in found.streams]
    _line(axes, x, [each.text.value for each in found.streams], _BLUE, "KA with the text")
    _chance(axes, x, [each.text.shuffled for each in found.streams], _BLUE)
    _line(axes, x, [each.answer.accuracy for each in found.streams], _RED, "answer read")
    _chance(axes, x, [each.answer.shuffled for each in found.streams], _RED)
    axes.set_xticks(x, ["in", *map(str, x[:-1])])
    axes.set_xlabel("behind layer (dotted: shuffled)", labelpad=2)
    axes.legend(**_LEGEND)


def _layer(head: str) -> int:
    return int(head[1:].split(".")[0])


def _merge(axes: Axes, found: Study) -> None:
    x = [each.layer for each in found.merged]
    _line(axes, x, [each.alignment.value for each in found.merged], _BLUE, "KA of y and s")
    _chance(axes, x, [each.label_alone for each in found.merged], _BLUE, "by the label alone")
    points = [(_layer(each.head), each.attention.value, each.passes) for each in found.mergers]
    _heads(axes, found, points, "head: A[y_i, s_i]")


def _retrieve(axes: Axes, found: Study) -> None:
    x = [each.layers for each in found.streams[:-1]]
    _line(axes, x, [each.nearest for each in found.streams[:-1]], _BLUE, "nearest s_i is right")
    _chance(axes, x, [found.level.same] * len(x), _BLUE)
    points = [(_layer(each.head), each.magnitude.value, each.passes_correct) for each in found.retrievers]
    _heads(axes, found, points, "head: A[s_q, labels]")


def _heads(axes: Axes, found: Study, points: Sequence[tuple[int, float, bool]], label: str) -> None:
    """Heads of a layer side by side; filled where they count."""
    for layer in {layer for layer, _, _ in points}:
        here = [(value, counts) for of, value, counts in points if of == layer]
        for place, (value, counts) in zip(np.linspace(-0.25, 0.25, len(here)), here, strict=True):
            face = _RED if counts else "none"
            axes.plot(layer + place, value, "o", markersize=2.5, color=_RED, mfc=face, mew=0.5)
    axes.axhline(found.level.threshold, color=PALE, linewidth=0.6, linestyle="--")
    mark = Line2D([], [], marker="o", markersize=2.5, color=_RED, linestyle="none", label=label)
    handles, _ = axes.get_legend_handles_labels()
    axes.set_xticks(sorted({layer for layer, _, _ in points}))
    axes.set_xlabel("layer (dashed: 5 / n_t)", labelpad=2)
    axes.legend(handles=[*handles, mark], **_LEGEND)


def _worth(figure: Figure, found: Study, rows: Sequence[tuple[str, str]]) -> None:
    """Accuracy by edge and layers, with the controls below each."""
    at = {(each.edge, each.layers): each for each in found.ablations}
    spans = list(dict.fromkeys(each.layers for each in found.ablations))
    axes = axes_at(figure, _MARGIN, _BOTTOM, _COLUMN * len(spans), _ROW * len(rows))
    values = np.array([[_accuracy(at[edge, span], name) for span in spans] for edge, name in rows])
    scale = colours(np.array([0.0, 1.0]), signed=False)
    draw_cells(axes, values, scale)
    for i, j in np.ndindex(*values.shape):
        ink = ink_on(tuple(scale.to_rgba(values[i, j])))
        axes.text(j, i, f"{values[i, j]:.0%}", size=5.5, color=ink, ha="center", va="center")
    axes.set_yticks(range(len(rows)), [edge if name == "forbidden" else name for edge, name in rows])
    axes.set_xticks(range(len(spans)), [span_words(found, span) for span in spans])
    for line in range(3, len(rows), 3):
        axes.axhline(line - 0.5, color=PAPER, linewidth=1.5)
    axes.set_xlabel("layers in which entries are forbidden", labelpad=2)
    axes.tick_params(length=0, labelsize=5.5)
    axes.spines[:].set_visible(False)


def _accuracy(found: Ablation, name: str) -> float:
    return found.accuracy.value if name == "forbidden" else found.controls[name].mean
