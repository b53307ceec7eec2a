"""Circuits that others report, read from a JSON file, and how well a run's circuit and scores find them.

The one idea: a reference is a list of heads (and MLPs) by role, in the file's own words; every list of [layer, head]
or of node names is a role, a list of whole numbers whose role ends in "mlps" is MLPs, and all else is commentary. A
list under "edges" holds edges: names as "a0.h5->a1.h4<v>", or [reader, source] as ACDC writes it (["1.4.v", "0.5"]).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from circuits.comparison.pairwise import marks_of
from circuits.comparison.sides import Side
from circuits.comparison.structured_null import (
    StructuredChance,
    edge_strata,
    node_strata,
    structured_chance,
)
from circuits.errors import CircuitError, UnknownNameError
from circuits.graph import LOGITS
from circuits.records import read_json
from circuits.scored_circuit import edge_name
from circuits.statistics import auroc, f1, precision, true_positive_rate


@dataclass(frozen=True)
class Reference:
    """members: node names, as in "a9.h6" and "m4". edges: names of edges, where the file lists them."""

    name: str
    source: str
    members: tuple[str, ...]
    edges: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReferenceMatch:
    """A run against a reference, over all heads that the run scores, or all edges; MLPs count where the reference
    lists any.

    auroc: of the size of the scores, None where they do not tell. within: chance of what is shared, see
    structured_null. unscored: members that the run does not score; they do not count as missed.
    """

    run: str
    reference: str
    of: Literal["heads", "heads and MLPs", "edges"]
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
        listed = record.get("edges")
        edges = tuple(map(_edge, listed)) if isinstance(listed, list) else ()
        yield name, Reference(name, str(record.get("source", "")), members, edges)
        return
    for key, entry in record.items():
        if isinstance(entry, Mapping) and key != "replace":  # what differs from another circuit is none
            yield from _circuits(entry, key)


def _members(role: str, value: object) -> Iterator[str]:
    if not isinstance(value, list) or role == "edges":
        return
    for entry in value:
        match entry:
            case [int(layer), int(head)]:
                yield f"a{layer}.h{head}"
            case int(layer) if role.endswith("mlps"):
                yield f"m{layer}"
            case str(node) if node[:1] in ("a", "m") and node[1:2].isdigit():
                yield node


def _edge(entry: object) -> str:
    """The name of an edge, which the model at hand may lack. Raises CircuitError for what is none."""
    match entry:
        case str(name):
            return name
        case [str(reader), str(source)]:
            node, _, kind = _acdc(reader).partition("<")
            return edge_name(_acdc(source), node, kind[:1] or None)
    raise CircuitError(f'{entry!r} is no edge: write "a0.h5->a1.h4<v>" or ["1.4.v", "0.5"].')


def _acdc(name: str) -> str:
    """ACDC's name of a node or an input in ours: "1.4.v" is a1.h4<v>."""
    match name.split("."):
        case [layer, head]:
            return f"a{layer}.h{head}"
        case [layer, head, kind]:
            return f"a{layer}.h{head}<{kind}>"
    return {"output": LOGITS}.get(name, name)


def match_reference(side: Side, reference: Reference) -> ReferenceMatch:
    """How well `side` finds the nodes of `reference`. Raises CircuitError for a member that the run's model lacks."""
    graph = side.scored.graph
    for member in reference.members:
        graph.node(member)
    with_mlps = any(member[0] == "m" for member in reference.members)
    counted = np.array([with_mlps or name[0] == "a" for name in graph.components])
    return _match(
        side,
        reference,
        "heads and MLPs" if with_mlps else "heads",
        graph.components,
        counted,
        node_strata(graph),
    )


def match_edges(side: Side, reference: Reference) -> ReferenceMatch | None:
    """How well `side` finds its edges; None where either has none. Raises CircuitError for one that is none."""
    graph = side.scored.graph
    if not reference.edges or side.scored.granularity == "node":
        return None
    graph.require_edges(reference.edges)
    return _match(
        side, reference, "edges", tuple(graph.places), np.ones(len(graph.places), bool), edge_strata(graph)
    )


def _match(
    side: Side,
    reference: Reference,
    of: Literal["heads", "heads and MLPs", "edges"],
    all_names: tuple[str, ...],
    counted: Bool[np.ndarray, " item"],
    strata: Int[np.ndarray, " item"],
) -> ReferenceMatch:
    """counted: what the reference could list."""
    names = np.array(all_names)
    known = np.isin(names, reference.edges if of == "edges" else reference.members)
    marks = marks_of(side, "edge" if of == "edges" else "node")
    inside = marks.scored & counted
    if not (known & inside).any():
        what = "edge" if of == "edges" else "component"
        raise CircuitError(f"{side.name} scores no {what} of {reference.name}: nothing to compare.")
    kept, wanted = (set(names[mask & inside].tolist()) for mask in (marks.kept, known))
    return ReferenceMatch(
        run=side.name,
        reference=reference.name,
        of=of,
        precision=precision(kept, wanted),
        recall=true_positive_rate(kept, wanted),
        f1=f1(kept, wanted),
        auroc=auroc(np.abs(marks.scores[inside]), known[inside]),
        within=structured_chance((marks.kept & inside)[inside], known[inside], strata[inside]),
        found=tuple(names[marks.kept & known & inside].tolist()),
        missed=tuple(names[~marks.kept & known & inside].tolist()),
        extra=tuple(names[marks.kept & ~known & inside].tolist()),
        unscored=tuple(names[known & ~inside].tolist()),
    )
