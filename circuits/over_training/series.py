"""A figure over training: its value at every checkpoint beside chance, and when it came to stay.

The one idea: something has appeared only where it does not vanish again, so its step is the first from which it is
above chance at every later checkpoint. Whatever is above chance by a hair is so early; beside it stands the step
from which at least half of the way from chance to the final value is kept. Both are our definitions, and neither is
finer than the checkpoints lie apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """low, high: the 95% interval, where there is one. above: whether it is above chance. of: which head, where one.

    chance: what it is without what it measures; None where that is no number.
    """

    value: float
    low: float | None
    high: float | None
    chance: float | None
    above: bool
    of: str = ""


@dataclass(frozen=True)
class Series:
    """kind: which figures belong together. points: one a checkpoint, None where it has no meaning there."""

    kind: str
    name: str
    points: tuple[Point | None, ...]


@dataclass(frozen=True)
class Appearance:
    """above: the first step from which a figure is above chance for good; half: from which it keeps half of its way.

    None where it is not so at the end.
    """

    kind: str
    name: str
    above: int | None
    half: int | None
    final: Point | None


def first_for_good(steps: Sequence[int], holds: Sequence[bool]) -> int | None:
    """The first step from which something holds at every later one; None where it does not at the last."""
    found = None
    for step, good in zip(reversed(steps), reversed(holds), strict=True):
        if not good:
            break
        found = step
    return found


def appearance(series: Series, steps: Sequence[int]) -> Appearance:
    """When a figure came to stay."""
    points, final = series.points, series.points[-1]
    above = first_for_good(steps, [p is not None and p.above for p in points])
    half = None
    if above is not None and final is not None:
        half = first_for_good(steps, [p is not None and _at_half(p, final) for p in points])
    return Appearance(series.kind, series.name, above, half, final)


def _at_half(point: Point, final: Point) -> bool:
    """Whether half of the way is done that leads from the final chance to the final value."""
    base = final.chance or 0.0
    return point.value >= base + (final.value - base) / 2
