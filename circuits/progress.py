"""Progress without a terminal: the library reports steps to a callable, the command line draws them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called as work goes on: what is being done, how many steps are done, how many there are."""

    def __call__(self, what: str, done: int, total: int, /) -> None: ...


def silent(what: str, done: int, total: int, /) -> None:
    """The progress of someone who does not want to know."""
