"""A circuit: the components that are kept, and how they were chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Circuit:
    """nodes: kept heads and MLPs, in the order of the graph (input and logits always belong).

    method: whose scores chose them; selection: the rule in words ("top 9 by size of score").
    """

    nodes: tuple[str, ...]
    method: str
    selection: str

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(n for n in self.nodes if n[0] == "a")

    @property
    def mlps(self) -> tuple[str, ...]:
        return tuple(n for n in self.nodes if n[0] == "m")

    def without(self, nodes: Iterable[str]) -> Circuit:
        """A new circuit that lacks `nodes`."""
        cut = set(nodes)
        return replace(self, nodes=tuple(n for n in self.nodes if n not in cut))

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, node: object) -> bool:
        return node in self.nodes
