"""What a format is: bytes from a ScoredCircuit, and a ScoredCircuit from bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from circuits.scored_circuit import ScoredCircuit


def _nothing(scored: ScoredCircuit) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Format:
    """read raises CircuitError, saying what is wrong with the bytes; the same circuit is written as the same bytes.

    recognises: whether bytes look like this format, broken or not. caveats: what a reader of this circuit's file
    should know of it, a sentence each.
    """

    name: str
    summary: str
    extension: str
    write: Callable[[ScoredCircuit], bytes]
    read: Callable[[bytes], ScoredCircuit]
    recognises: Callable[[bytes], bool]
    caveats: Callable[[ScoredCircuit], tuple[str, ...]] = _nothing
