"""Placeholder until the memory budget is merged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_chunks(n_rows: int, at_once: int, work: Callable[[slice], T]) -> list[T]:
    return [work(slice(a, min(a + at_once, n_rows))) for a in range(0, n_rows, at_once)]
