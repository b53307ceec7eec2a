"""A figure of a given width: its title on top, what explains it at the bottom, and room for the rest between.

The one idea: a journal's column is a fact, so widths are exact and heights follow; text wraps and is never scaled.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

from cli.report.figure import NOTES, axes_at, blank, legible, paper_style, write_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.9
"""Inches: one column of a paper, and both."""
SMALLEST = 5.0
"""Points."""
EDGE = 0.06
_LINE, _SMALL_LINE = 0.125, 0.1
_TITLE, _NOTE = 7.5, 5.5
_EM = 1 / 72 * 0.62  # inches that a letter takes, on average, for each point of its size


class Sheet(NamedTuple):
    """bottom: where the room for the content begins, in inches from below."""

    figure: Figure
    bottom: float

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes at a place given in inches from the lower left corner of the content."""
        return axes_at(self.figure, left, self.bottom + bottom, width, height)


def sheet(width: float, height: float, title: str, notes: tuple[str, ...] = ()) -> Sheet:
    """A figure `width` inches wide, around content that is `height` inches high."""
    titles = _wrapped(title, width, _TITLE)
    told = _wrapped("; ".join(notes), width, _NOTE)
    bottom = EDGE + _SMALL_LINE * len(told) + 0.06 * bool(told)
    whole = bottom + height + 0.07 + _LINE * len(titles) + EDGE
    figure = blank(width, whole)
    with paper_style():
        write_lines(figure, (EDGE, whole - EDGE), titles, _LINE, size=_TITLE, weight="bold")
        at = (EDGE, EDGE + _SMALL_LINE * len(told))
        write_lines(figure, at, told, _SMALL_LINE, size=_NOTE, color=NOTES)
    return Sheet(figure, bottom)


def letters(width: float, size: float) -> int:
    """How many letters of `size` points fit into `width` inches."""
    return max(int(width / (size * _EM)), 1)


def _wrapped(text: str, width: float, size: float) -> list[str]:
    return textwrap.wrap(unbroken(legible(text)), letters(width - 2 * EDGE, size))


def unbroken(title: str) -> str:
    """The same, with no line break between a number and what it counts."""
    return title.replace("(n = ", "(n\xa0=\xa0").replace(" prompts)", "\xa0prompts)")
