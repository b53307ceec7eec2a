"""EAP-IG graphs as JSON, what Graph.to_json of EAP-IG writes and the MIB benchmark reads.

The one idea: the file lists every node and every edge of the model, each edge with score and in_graph, positive
where the edge helps, which is our sign too. EAP-IG gives each head its own k and v; where heads share them, the edge
into a group is written as one edge a head, its score in equal shares, so that sums over edges stay what they were,
and is read as their sum. What the format has no field for stands under a key of ours, which EAP-IG passes over.
Source: hannamw/EAP-IG 2.0.0, eap/graph.py; Hanna et al. 2024, https://arxiv.org/abs/2403.17806
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from circuits.circuit import ends
from circuits.errors import CircuitError
from circuits.exchange.fields import (
    field,
    flag,
    has_keys,
    json_object,
    listable,
    mapping,
    number,
    number_or_none,
    sequence,
    shape,
    text,
)
from circuits.exchange.format import Format
from circuits.graph import INPUT, LOGITS, Graph
from circuits.scored_circuit import IMPORTED, IN_FILE, Measured, ScoredCircuit, chosen, edge_name, input_of

OURS = "circuit"
THEIRS = "eap-ig"
Tables = dict[str, Any]


def write(scored: ScoredCircuit) -> bytes:
    return json.dumps(to_tables(scored)).encode()


def read(data: bytes) -> ScoredCircuit:
    return from_tables(json_object(data))


# Writing


def to_tables(scored: ScoredCircuit) -> Tables:
    """The file as a value: cfg, nodes, edges, and what only we say.

    Raises CircuitError where extras['eap-ig'] is not as a file of theirs left it.
    """
    theirs = _of_theirs(scored.extras, THEIRS)
    cfg = {
        "n_layers": scored.graph.n_layers,
        "n_heads": scored.graph.n_heads,
        "parallel_attn_mlp": scored.graph.parallel,
    }
    if scored.graph.n_kv_heads != scored.graph.n_heads:
        cfg["n_kv_heads"] = scored.graph.n_kv_heads
    tables: Tables = {
        "cfg": cfg | _of_theirs(theirs, "cfg"),
        "nodes": _nodes(scored, theirs),
        "edges": _edges(scored, _of_theirs(theirs, "edges")),
    }
    ours = _ours(scored)
    tables |= _of_theirs(theirs, "file")
    return tables | ({OURS: ours} if ours else {})


def _nodes(scored: ScoredCircuit, theirs: Mapping[str, Any]) -> dict[str, Any]:
    marked = {INPUT, LOGITS, *scored.circuit.nodes}
    if scored.circuit.selection == IN_FILE:
        marked = set(sequence(theirs.get("nodes_in_graph", [*marked]), "nodes_in_graph"))
    more = _of_theirs(theirs, "nodes")
    nodes: dict[str, Any] = {}
    for name in (*scored.graph.sources, LOGITS):
        nodes[name] = {"in_graph": name in marked}
        if scored.scores and name != LOGITS:
            nodes[name]["score"] = scored.scores.get(name, (math.nan,))[0]
        nodes[name] |= {key: _with_nan(value) for key, value in _of_theirs(more, name).items()}
    return nodes


def _of_theirs(said: Mapping[str, Any], key: str) -> dict[str, Any]:
    return mapping(said.get(key, {}), f"What extras keeps of an EAP-IG file, {key!r},")


def _with_nan(value: object) -> object:
    """In a list of scores null stands for "not scored", which their loader knows as NaN."""
    return [math.nan if x is None else x for x in value] if isinstance(value, list) else value


def _edges(scored: ScoredCircuit, more: Mapping[str, Any]) -> dict[str, Any]:
    graph = scored.graph
    edges: dict[str, Any] = {}
    of_nodes = graph.edges(scored.circuit.nodes) if scored.circuit.edges is None else ()
    kept = {*of_nodes, *(scored.circuit.edges or ())}
    for edge in graph.places:
        names = _one_a_head(graph, edge)
        score = scored.edges.get(edge, (0.0,))[0]
        for name, share in zip(names, _shares(score, len(names)), strict=True):
            edges[name] = {"score": share, "in_graph": edge in kept} | _of_theirs(more, name)
    return {name: edges[name] for name in _their_order(_ungrouped(graph))}


def _their_order(graph: Graph) -> list[str]:
    """Layer by layer, source by source; MLPs wait for the heads of their layer where they read them."""

    def place(edge: str) -> tuple[int, bool, int, bool, int, int]:
        node, mlp = graph.node(ends(edge)[1]), edge[-1] != ">"
        waits = mlp and not graph.parallel
        return node.layer, waits, graph.places[edge][0], mlp, node.index, "qkv".find(edge[-2])

    return sorted(graph.places, key=place)


def _ungrouped(graph: Graph) -> Graph:
    return Graph(graph.n_layers, graph.n_heads, graph.n_heads, graph.parallel)


def _one_a_head(graph: Graph, edge: str) -> tuple[str, ...]:
    """The names of an edge where every head has its own k and v, the group's first head first."""
    entry = input_of(edge)
    if entry not in ("k", "v"):
        return (edge,)
    source, target = ends(edge)
    leader = graph.node(target)
    group = range(leader.index, leader.index + graph.n_heads // graph.n_kv_heads)
    return tuple(edge_name(source, f"a{leader.layer}.h{head}", entry) for head in group)


def _shares(score: float, n: int) -> list[float]:
    """n equal parts whose exact sum rounds to the score: the first takes what the division rounds off."""
    share = score / n
    return [float(Fraction(score) - (n - 1) * Fraction(share)), *[share] * (n - 1)]


def _ours(scored: ScoredCircuit) -> dict[str, Any]:
    """What EAP-IG has no field for, by the names that _said_by_us reads; nothing of what goes without saying."""
    circuit = scored.circuit
    unscored = [edge for edge in scored.graph.places if edge not in scored.edges]
    said = {
        "method": circuit.method if circuit.method != IMPORTED else "",
        "selection": circuit.selection if circuit.selection != IN_FILE else "",
        "granularity": "" if circuit.edges is not None else "node",
        "model": scored.model,
        "unscored": unscored if scored.edges else ["*"],
        "stderr": _errors(scored.graph.sources, scored.scores),
        "edge_stderr": _errors(scored.graph.places, scored.edges),
        "links": [[*link, score] for link, score in scored.links.items()],
        "extras": {key: value for key, value in scored.extras.items() if key != THEIRS},
    }
    return {key: value for key, value in said.items() if value}


def _errors(order: Iterable[str], scores: Mapping[str, Measured]) -> dict[str, float]:
    known = ((name, scores[name][1]) for name in order if name in scores)
    return {name: error for name, error in known if error is not None}


def caveats(scored: ScoredCircuit) -> tuple[str, ...]:
    graph, said = scored.graph, []
    if graph.n_kv_heads != graph.n_heads:
        said.append(
            f"Groups of {graph.n_heads // graph.n_kv_heads} heads share k and v, and the format gives each head its "
            "own: the edge into a group became one edge a head, with equal shares of its score."
        )
    if missing := len(graph.places) - len(scored.edges):
        said.append(
            f"{missing:,} of {len(graph.places):,} edges have no score, and the format has no blank: they got 0."
        )
    return tuple(said)


# Reading


def from_tables(tables: Tables) -> ScoredCircuit:
    """What to_tables gave, or EAP-IG wrote. Raises CircuitError naming the first field that cannot be used."""
    cfg, nodes, edges = (mapping(field(tables, key, "The file"), key) for key in ("cfg", "nodes", "edges"))
    ours = mapping(tables.get(OURS, {}), f"{OURS!r}")
    n_layers, n_heads, parallel = (
        field(cfg, name, "cfg") for name in ("n_layers", "n_heads", "parallel_attn_mlp")
    )
    graph = shape(n_layers, n_heads, cfg.get("n_kv_heads"), parallel)
    _check_names(_ungrouped(graph), nodes, edges)
    marked = {name for name, entry in nodes.items() if _marked(entry, f"node {name}")}
    kept, edge_scores = _folded(graph, edges)
    try:
        scored = _with_ours(graph, ours, kept, marked, edge_scores, dict(_node_scores(nodes)))
    except (TypeError, ValueError, AttributeError) as problem:
        raise CircuitError(
            f"{OURS!r} is not as circuit wrote it ({problem}). Export the run again."
        ) from problem
    theirs = _theirs(tables, marked ^ {INPUT, LOGITS, *scored.circuit.nodes})
    return replace(scored, extras={**scored.extras, **({THEIRS: theirs} if theirs else {})})


def _with_ours(
    graph: Graph,
    ours: Mapping[str, Any],
    kept: set[str],
    marked: set[str],
    edges: Mapping[str, float],
    nodes: Mapping[str, float],
) -> ScoredCircuit:
    """The circuit, with what we say in the file and EAP-IG does not."""
    granularity = ours.get("granularity", "edge")
    unscored = sequence(ours.get("unscored", []), "unscored")
    blank = set(graph.places) if unscored == ["*"] else set(unscored)
    return ScoredCircuit(
        graph=graph,
        circuit=chosen(
            graph,
            granularity,
            kept if granularity == "edge" else marked,
            text(ours.get("method", IMPORTED), "method"),
            text(ours.get("selection", IN_FILE), "selection"),
        ),
        scores=_with_errors(nodes, ours.get("stderr", {})),
        links={(u, v): number_or_none(x, f"link {u}, {v}") for u, v, x in ours.get("links", [])},
        edges=_with_errors({e: x for e, x in edges.items() if e not in blank}, ours.get("edge_stderr", {})),
        model=text(ours.get("model", ""), "model"),
        extras=mapping(ours.get("extras", {}), "extras"),
    )


def _check_names(graph: Graph, nodes: Mapping[str, Any], edges: Mapping[str, Any]) -> None:
    """Raises CircuitError naming the first node or edge that is missing, or that is not of this graph."""
    size = f"cfg has {graph.n_layers} layers x {graph.n_heads} heads"
    if missing := [name for name in (INPUT, *listable(graph).components, LOGITS) if name not in nodes]:
        raise CircuitError(f"{size}, so there must be a node {missing[0]}; the file lists none.")
    try:
        for name in nodes:
            graph.node(name)
        graph.require_edges(edges)
    except CircuitError as problem:
        raise CircuitError(f"The graph does not fit its cfg: {problem}") from problem
    if lacking := [edge for edge in graph.places if edge not in edges]:
        raise CircuitError(
            f"{size}, so there must be {len(graph.places):,} edges; {len(lacking):,} of them are not listed, the "
            f"first is {lacking[0]}."
        )


def _marked(entry: object, where: str) -> bool:
    return flag(field(mapping(entry, where), "in_graph", where), f"in_graph of {where}")


def _folded(graph: Graph, edges: Mapping[str, Any]) -> tuple[set[str], dict[str, float]]:
    """The kept edges, and the score of every edge; those of the heads of a group are taken together."""
    kept: set[str] = set()
    scores: dict[str, float] = {}
    for edge in graph.places:
        entries = {f"edge {name}": mapping(edges[name], f"edge {name}") for name in _one_a_head(graph, edge)}
        shares = [number(field(e, "score", where), f"score of {where}") for where, e in entries.items()]
        marks = {_marked(entry, where) for where, entry in entries.items()}
        if len(marks) > 1:
            raise CircuitError(
                f"{edge} is one edge for a group of {len(entries)} heads, but in_graph differs among its heads."
            )
        if True in marks:
            kept.add(edge)
        scores[edge] = math.fsum(shares)
    return kept, scores


def _node_scores(nodes: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """A node's NaN says that it was not scored."""
    for name, entry in nodes.items():
        score = entry.get("score")
        if score is not None and not (isinstance(score, float) and math.isnan(score)):
            yield name, number(score, f"score of node {name}")


def _with_errors(scores: Mapping[str, float], errors: object) -> dict[str, Measured]:
    known = mapping(errors, "stderr")
    return {
        name: (score, number_or_none(known.get(name), f"stderr of {name}")) for name, score in scores.items()
    }


def _theirs(tables: Tables, marked_otherwise: set[str]) -> dict[str, Any]:
    """What a file of theirs says that ScoredCircuit has no field for; NaN becomes null, as JSON proper has it."""
    nodes, edges = (_leftovers(tables[key], {"score", "in_graph"}) for key in ("nodes", "edges"))
    said: dict[str, Any] = {
        "file": _without(tables, {"cfg", "nodes", "edges", OURS}),
        "cfg": _without(tables["cfg"], {"n_layers", "n_heads", "n_kv_heads", "parallel_attn_mlp"}),
        "nodes": {name: {k: _no_nan(v) for k, v in more.items()} for name, more in nodes.items()},
        "edges": edges,
    }
    if marked_otherwise:
        said["nodes_in_graph"] = [name for name, entry in tables["nodes"].items() if entry["in_graph"]]
    return {key: value for key, value in said.items() if value}


def _leftovers(entries: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    over = {name: _without(entry, known) for name, entry in entries.items()}
    return {name: more for name, more in over.items() if more}


def _without(entry: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in known}


def _no_nan(value: object) -> object:
    if not isinstance(value, list):
        return value
    return [None if isinstance(x, float) and math.isnan(x) else x for x in value]


FORMAT = Format(
    name=THEIRS,
    summary="EAP-IG's graph as JSON: every node and edge of the model, with score and in_graph.",
    extension=".json",
    write=write,
    read=read,
    recognises=lambda data: has_keys(data, "cfg", "edges"),
    caveats=caveats,
)
