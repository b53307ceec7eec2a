"""The bars of a waterfall: from nothing, write by write, up to the logit difference.

The one idea: the parts sum to the whole, so each bar begins where the one before it ends; the largest stand alone in
the order in which the model writes them, and all others are one bar, so that nothing is missing from the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Step(NamedTuple):
    """A bar: what it is, where it begins, and how far it goes."""

    name: str
    start: float
    value: float

    @property
    def end(self) -> float:
        return self.start + self.value


def steps(components: Mapping[str, float], outside: Mapping[str, float], most: int) -> list[Step]:
    """Input and biases, then the `most` largest components as they are written, then all others as one.

    components: in the order in which they write. outside: what is no component.
    """
    largest = set(sorted(components, key=lambda name: -abs(components[name]))[:most])
    rest = [value for name, value in components.items() if name not in largest]
    alone = {name: value for name, value in components.items() if name in largest}
    pooled = {f"{len(rest)} others": sum(rest)} if rest else {}
    return list(_stacked({**outside, **alone, **pooled}))


def _stacked(parts: Mapping[str, float]) -> Iterator[Step]:
    at = 0.0
    for name, value in parts.items():
        yield Step(name, at, value)
        at += value
