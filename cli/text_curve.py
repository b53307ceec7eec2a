"""Faithfulness over sizes as lines of text: a row a size, a dot on a scale, its interval around it.

The one idea: a curve turned on its side needs no more room than its scale, and every dot has its numbers beside it,
so it reads the same in a narrow window, in a pipe and aloud.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cli.wording import number


class Row(NamedTuple):
    """label: its size; low and high: its interval, if any; dot: False for a band that has no middle."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    dot: bool = True


def thinned(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many: the first, the last, and those between at even distances in their order."""
    if len(rows) <= most:
        return list(rows)
    step = (len(rows) - 1) / (most - 1)
    return [rows[round(i * step)] for i in range(most)]


def curve_lines(rows: Sequence[Row], width: int, ascii_only: bool = False) -> Iterator[str]:
    """One line a row; 0 and 1 are ruled."""
    left = max(len(row.label) for row in rows)
    scale = _Scale(rows, max(width - left - 8, 8), ascii_only)
    yield f"{'':{left}} {'':6} {scale.header()}".rstrip()
    for row in rows:
        yield f"{row.label:>{left}} {number(row.value):>6} {scale.line(row)}".rstrip()


class _Scale:
    """Places of values among the columns of a line."""

    def __init__(self, rows: Sequence[Row], columns: int, ascii_only: bool) -> None:
        values = [v for row in rows for v in (row.value, row.low, row.high) if v is not None]
        # An interval far off would leave no room for the rest.
        self.low = max(min(0.0, *values), -1.0)
        self.high = min(max(1.0, *values), 2.0)
        self.columns = columns
        self.rule, self.bar, self.dot, self.band = ":-o~" if ascii_only else "┊─●░"

    def place(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return round(min(max(share, 0.0), 1.0) * (self.columns - 1))

    def header(self) -> str:
        line = [" "] * self.columns
        for value in (0, 1):
            line[self.place(value)] = str(value)
        return "".join(line)

    def line(self, row: Row) -> str:
        line = [" "] * self.columns
        for value in (0, 1):
            line[self.place(value)] = self.rule
        if row.low is not None and row.high is not None:
            for i in range(self.place(row.low), self.place(row.high) + 1):
                line[i] = self.bar if row.dot else self.band
        if row.dot:
            line[self.place(row.value)] = self.dot
        return "".join(line)
