"""The built-in models: Hugging Face directories that ship in the package, each with its card of measured facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "builtin"
CARD = "card.json"


@dataclass(frozen=True)
class KnownCircuit:
    """A circuit known by construction or by training, not by measurement: node and edge names.

    edges: corruption -> those that carry a difference between the two prompts, where that is known.
    roles: what its heads do -> which ones, where that is known. forms, corruptions: the prompts that it is known
    for; empty forms mean all.
    """

    heads: frozenset[str]
    edges: Mapping[str, frozenset[str]] = field(default_factory=dict)
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    forms: frozenset[str] = frozenset()
    corruptions: frozenset[str] = frozenset()

    def holds_for(self, form: str, corruption: str) -> bool:
        """Whether the circuit is known for these prompts."""
        return corruption in self.corruptions and (not self.forms or form in self.forms)


@dataclass(frozen=True)
class Card:
    """What card.json of a built-in model says.

    kind: "plain" (trained on next words alone), "strict" (interchange intervention training) or "planted".
    accuracy: task, or task/form -> what was measured on held-out prompts.
    """

    name: str
    kind: str
    summary: str
    accuracy: Mapping[str, Mapping[str, Any]]
    circuits: Mapping[str, KnownCircuit]


@cache
def builtin_names() -> tuple[str, ...]:
    """Names of the models that ship with the package, sorted."""
    return tuple(sorted(d.parent.name for d in FOLDER.glob(f"*/{CARD}")))


@cache
def card(name: str) -> Card:
    """The card of the built-in model `name`."""
    raw = json.loads((FOLDER / name / CARD).read_text(encoding="utf-8"))
    circuits = {
        task: KnownCircuit(
            heads=frozenset(known["heads"]),
            edges=_edges(known),
            roles={role: tuple(heads) for role, heads in known.get("roles", {}).items()},
            forms=frozenset(known.get("forms", ())),
            corruptions=frozenset({known["corruption"], *known.get("other_corruptions", ())}),
        )
        for task, known in raw.get("circuits", {}).items()
    }
    return Card(
        name=name, kind=raw["kind"], summary=raw["summary"], accuracy=raw["accuracy"], circuits=circuits
    )


def _edges(known: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    others = {
        name: other.get("edges", ()) for name, other in dict(known.get("other_corruptions", {})).items()
    }
    listed = {known["corruption"]: known.get("edges", ()), **others}
    return {corruption: frozenset(edges) for corruption, edges in listed.items() if edges}
