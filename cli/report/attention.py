"""What a head attends to on one prompt, clean and corrupt: a row for each token that looks, a column for each seen.

The one idea: tokens are shown as they are, whatever they hold: a space as a dot, what the font lacks by its code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from cli.report.figure import INK, colour_bar, draw_cells, legible, paper_style, text_width
from cli.report.sheet import COLUMN, EDGE, SMALLEST, Sheet, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PITCH = SMALLEST / 72 * 1.08  # inches from one label to the next
_LONGEST = 0.45  # inches of a token
_CELL, _GAP, _BAR, _HEAD = 0.17, 0.1, 0.42, 0.16


class Side(NamedTuple):
    """One prompt of a pair. rows: for each of `queries` per mille of attention to position 0, 1 and so on."""

    name: str
    tokens: Sequence[str]
    queries: Sequence[int]
    rows: Sequence[Sequence[int]]


class _Place(NamedTuple):
    """Where a panel stands in the content, and how large a cell is."""

    left: float
    bottom: float
    cell: float


def attention_figure(
    sides: Sequence[Side], positions: Mapping[str, int], title: str, width: float = COLUMN
) -> Figure:
    """The sides beside each other, or below each other where tokens would not be legible so."""
    names = {place: name for name, place in positions.items()}
    label = EDGE + _widest(text for side in sides for text in _queries(side, names))
    below = EDGE + _widest(token_text(token) for side in sides for token in side.tokens)
    n = max(len(side.tokens) for side in sides)
    beside = (width - len(sides) * (label + _GAP) - _BAR) / (n * len(sides))
    across = beside >= _PITCH
    cell = min(beside if across else (width - label - _GAP - _BAR) / n, _CELL)
    deep = [len(side.queries) * max(cell, _PITCH if len(side.queries) < n else cell) for side in sides]
    tall = [_HEAD + height + below for height in deep]
    page = sheet(width, max(tall) if across else sum(tall), title, _notes(sides, positions))
    scale = ScalarMappable(Normalize(0, 1), mpl.colormaps["BuPu"])
    with paper_style():
        left, top = label, max(tall) if across else sum(tall)
        for side, height in zip(sides, deep, strict=True):
            axes = page.axes(left, top - _HEAD - height, cell * len(side.tokens), height)
            _draw(axes, side, names, scale, cell)
            if across:
                left += cell * len(side.tokens) + _GAP + label
            else:
                top -= _HEAD + height + below
        _bar(page, scale, width, below if across else top + below, min(deep[-1], 1.2))
    return page.figure


def _widest(texts: Iterable[str]) -> float:
    return max(text_width(text, SMALLEST) for text in texts) + 0.03


def token_text(token: str) -> str:
    """A token in little room: a space is a dot, and what is too long ends in three."""
    pieces = [legible("·" if character == " " else character) for character in token]
    kept = len(pieces)
    while kept and text_width("".join(pieces[:kept]), SMALLEST) > _LONGEST:
        kept -= 1
    return "".join(pieces) if kept == len(pieces) else "".join(pieces[:kept]) + "…"


def _queries(side: Side, names: Mapping[int, str]) -> list[str]:
    """Labels of the rows, with the name of the position where it has one."""
    return [
        f"{names[query]}: {token_text(side.tokens[query])}"
        if query in names
        else token_text(side.tokens[query])
        for query in side.queries
    ]


def _notes(sides: Sequence[Side], positions: Mapping[str, int]) -> tuple[str, ...]:
    spaced = any(" " in token for side in sides for token in side.tokens)
    return (
        "rows look, columns are looked at; attention of a row sums to 1",
        *(("a dot stands for a space",) if spaced else ()),
        *(("names of positions stand before a colon",) if positions else ()),
    )


def _draw(axes: Axes, side: Side, names: Mapping[int, str], scale: ScalarMappable, cell: float) -> None:
    values = np.full((len(side.queries), len(side.tokens)), np.nan)
    for i, row in enumerate(side.rows):
        values[i, : len(row)] = np.asarray(row[: values.shape[1]]) / 1000
    draw_cells(axes, values, scale)
    every = max(int(np.ceil(_PITCH / cell)), 1)
    columns = range(0, len(side.tokens), every)
    rows = range(0, len(side.queries), every if len(side.queries) == len(side.tokens) else 1)
    words = _queries(side, names)
    axes.set_xticks(columns, [token_text(side.tokens[i]) for i in columns], rotation=90, size=SMALLEST)
    axes.set_yticks(rows, [words[i] for i in rows], size=SMALLEST)
    axes.tick_params(length=0, pad=1.5)
    axes.spines[:].set_linewidth(0.4)
    axes.set_title(side.name, size=6.5, color=INK, loc="left", pad=2)


def _bar(page: Sheet, scale: ScalarMappable, width: float, bottom: float, height: float) -> None:
    axes = page.axes(width - 0.34, bottom, 0.07, max(height, 0.3))
    colour_bar(page.figure, axes, scale, "", upright=True)
    axes.set_yticks([0, 0.5, 1])
    axes.tick_params(labelsize=SMALLEST)
