"""Circuits that others report, read from a JSON file, and how well a run's circuit and scores find them.

The one idea: a reference is a list of heads (and MLPs) by role, in the file's own words; every list of [layer, head]
or of node names is a role, a list of whole numbers whose role ends in "mlps" is MLPs, and all else is commentary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from circuits.comparison.pairwise import marks_of
from circuits.comparison.sides import Side
from circuits.comparison.structured_null import StructuredChance, node_strata, structured_chance
from circuits.errors import CircuitError, UnknownNameError
from circuits.records import read_json
from circuits.statistics import auroc, f1, precision, true_positive_rate


@dataclass(frozen=True)
class Reference:
    """members: node names, as in "a9.h6" and "m4"."""

    name: str
    source: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class ReferenceMatch:
    """A run against a reference, over all heads that the run scores; MLPs count where the reference lists any.

    auroc: of the size of the scores, None where they do not tell. within: chance of what is shared, see
    structured_null. unscored: members that the run does not score; they do not count as missed.
    """

    run: str
    reference: str
    of: Literal["heads", "heads and MLPs"]
    precision: float
    recall: float
    f1: float
    auroc: float | None
    within: StructuredChance
    found: tuple[str, ...]
    missed: tuple[str, ...]
    extra: tuple[str, ...]
    unscored: tuple[str, ...]


def read_reference(text: str) -> Reference:
    """The circuit of FILE, or of FILE:NAME where the file holds several. Raises CircuitError where it has none."""
    path, name = Path(text), ""
    if not path.exists() and ":" in text:
        before, _, name = text.rpartition(":")
        path = Path(before)
    if not path.is_file():
        raise CircuitError(f"There is no reference file {path}. Say --reference FILE or FILE:NAME.")
    known = dict(_circuits(read_json(path), path.stem))
    if name and name not in known:
        raise UnknownNameError(f"circuit in {path}", name, known)
    if not name and len(known) != 1:
        raise CircuitError(
            f"{path} holds {len(known)} circuits. Say which: --reference {path}:NAME, of {', '.join(known)}."
        )
    return known[name] if name else next(iter(known.values()))


def _circuits(record: Mapping[str, Any], name: str) -> Iterator[tuple[str, Reference]]:
    """Every mapping in the file that has roles, under the key it stands at."""
    members = tuple(dict.fromkeys(m for role, value in record.items() for m in _members(role, value)))
    if members:
        yield name, Reference(name, str(record.get("source", "")), members)
        return
    for key, entry in record.items():
        if isinstance(entry, Mapping):
            yield from _circuits(entry, key)


def _members(role: str, value: object) -> Iterator[str]:
    if not isinstance(value, list):
        return
    for entry in value:
        match entry:
            case [int(layer), int(head)]:
                yield f"a{layer}.h{head}"
            case int(layer) if role.endswith("mlps"):
                yield f"m{layer}"
            case str(node) if node[:1] in ("a", "m") and node[1:2].isdigit():
                yield node


def match_reference(side: Side, reference: Reference) -> ReferenceMatch:
    """How well `side` finds `reference`. Raises CircuitError for a member that the run's model lacks."""
    graph = side.scored.graph
    for member in reference.members:
        graph.node(member)
    with_mlps = any(member[0] == "m" for member in reference.members)
    names = np.array(graph.components)
    known = np.isin(names, reference.members)
    marks = marks_of(side, "node")
    inside = marks.scored & np.array([with_mlps or name[0] == "a" for name in graph.components])
    if not (known & inside).any():
        raise CircuitError(f"{side.name} scores no component of {reference.name}: nothing to compare.")
    kept, wanted = (set(names[mask & inside].tolist()) for mask in (marks.kept, known))
    return ReferenceMatch(
        run=side.name,
        reference=reference.name,
        of="heads and MLPs" if with_mlps else "heads",
        precision=precision(kept, wanted),
        recall=true_positive_rate(kept, wanted),
        f1=f1(kept, wanted),
        auroc=auroc(np.abs(marks.scores[inside]), known[inside]),
        within=structured_chance((marks.kept & inside)[inside], known[inside], node_strata(graph)[inside]),
        found=tuple(names[marks.kept & known & inside].tolist()),
        missed=tuple(names[~marks.kept & known & inside].tolist()),
        extra=tuple(names[marks.kept & ~known & inside].tolist()),
        unscored=tuple(names[known & ~inside].tolist()),
    )
