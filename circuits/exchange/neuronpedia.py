"""A circuit as an attribution graph of circuit-tracer and Neuronpedia (JSON, schema_version 1).

The one idea: that format is made for features of transcoders at token positions. A head or an MLP is written as a
feature of its layer, at a single position that stands for all, and named in `clerp`; which input an edge enters,
standard errors, and all that the circuit leaves out stand in `metadata`, which viewers keep and do not draw.
Source: safety-research/circuit-tracer 0.5, frontend/graph_models.py
"""

from __future__ import annotations

import json
import re
from typing import Any

from circuits.circuit import ends
from circuits.errors import CircuitError
from circuits.exchange.fields import (
    field,
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
from circuits.scored_circuit import Link, Measured, ScoredCircuit, chosen, edge_name, input_of

OURS = "circuit"
_EVERYWHERE = "(all positions)"
_SHAPE = ("n_layers", "n_heads", "n_kv_heads", "parallel")


# Writing


def write(scored: ScoredCircuit) -> bytes:
    return (json.dumps(_document(scored), indent=1) + "\n").encode()


def _document(scored: ScoredCircuit) -> dict[str, Any]:
    by_link = _by_link(scored)
    return {
        "metadata": {
            "slug": _slug(f"{scored.model} {scored.circuit.method}"),
            "scan": scored.model or "unknown",
            "transcoder_list": [],
            "prompt_tokens": [_EVERYWHERE],
            "prompt": _EVERYWHERE,
            "node_threshold": 1.0,
            "schema_version": 1,
            OURS: _ours(scored, by_link),
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": [_node(scored.graph, name) for name in (INPUT, *scored.circuit.nodes, LOGITS)],
        "links": [
            {
                "source": _identifier(scored.graph, link[0]),
                "target": _identifier(scored.graph, link[1]),
                "weight": 0.0 if measured is None else measured[0],
            }
            for link, _, measured in by_link
        ],
    }


def _by_link(scored: ScoredCircuit) -> list[tuple[Link, str | None, Measured | None]]:
    """Ends, input and score of every line to draw: kept edges, or the links of a node circuit."""
    if scored.circuit.edges is None:
        return [
            (link, None, None if score is None else (score, None)) for link, score in scored.links.items()
        ]
    return [(ends(edge), input_of(edge), scored.edges.get(edge)) for edge in scored.circuit.edges]


def _ours(scored: ScoredCircuit, by_link: list[tuple[Link, str | None, Measured | None]]) -> dict[str, Any]:
    """What the format has no field for, link by link in the order of the links."""
    drawn = set(scored.circuit.edges or ())
    return {
        **{key: getattr(scored.graph, key) for key in _SHAPE},
        "granularity": scored.granularity,
        "method": scored.circuit.method,
        "selection": scored.circuit.selection,
        "model": scored.model,
        "scores": {name: scored.scores[name] for name in scored.graph.sources if name in scored.scores},
        "inputs": [entry for _, entry, _ in by_link],
        "measured": [measured is not None for _, _, measured in by_link],
        "stderr": [None if measured is None else measured[1] for _, _, measured in by_link],
        "left_out": {edge: scored.edges[edge] for edge in scored.listed if edge not in drawn},
        "extras": scored.extras,
    }


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "circuit"


def _place(graph: Graph, name: str) -> tuple[str, int]:
    """Layer and feature, as the format counts them: heads first, then the MLP, the logits a layer of their own."""
    node = graph.node(name)
    return {
        "input": ("E", 0),
        "head": (str(node.layer), node.index),
        "mlp": (str(node.layer), graph.n_heads),
        "logits": (str(graph.n_layers + 1), 0),
    }[node.kind]


def _identifier(graph: Graph, name: str) -> str:
    layer, feature = _place(graph, name)
    return f"{layer}_{feature}_0"


def _node(graph: Graph, name: str) -> dict[str, Any]:
    layer, feature = _place(graph, name)
    # The only four types that the viewer draws; a feature is the nearest to a head.
    kind = {INPUT: "embedding", LOGITS: "logit"}.get(name, "cross layer transcoder")
    return {
        "node_id": _identifier(graph, name),
        "feature": feature if layer == "E" else _paired(int(layer), feature),
        "layer": layer,
        "ctx_idx": 0,
        "feature_type": kind,
        "token_prob": 0.0,
        "is_target_logit": name == LOGITS,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{layer}_{feature}-0",
        "clerp": name,
        "influence": None,
        "activation": None,
    }


def _paired(layer: int, feature: int) -> int:
    """Cantor's pairing: one number for both."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


# Reading


def read(data: bytes) -> ScoredCircuit:
    """What write gave. Raises CircuitError for graphs of transcoder features, which are no heads and MLPs."""
    document = json_object(data)
    about = mapping(field(document, "metadata", "The file"), "metadata")
    nodes, links = (sequence(field(document, key, "The file"), key) for key in ("nodes", "links"))
    if OURS not in about:
        raise CircuitError(_foreign(about, nodes))
    ours = mapping(about[OURS], f"metadata.{OURS}")
    try:
        return _scored_circuit(ours, nodes, links)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        what = f"{type(problem).__name__} {problem}"
        raise CircuitError(
            f"metadata.{OURS} is not as circuit wrote it: {what}. Export the run again."
        ) from problem


def _foreign(about: dict[str, Any], nodes: list[Any]) -> str:
    kinds = [node.get("feature_type") for node in nodes if isinstance(node, dict)]
    n = sum(kind not in ("embedding", "logit", "mlp reconstruction error") for kind in kinds)
    return (
        f"This attribution graph holds {n:,} transcoder features of {about.get('scan', 'an unknown model')}, not "
        "heads and MLPs: features are no components of the model, so there is no circuit of ours in it. Only graphs "
        "that circuit exported read back; look at this one in Neuronpedia."
    )


def _scored_circuit(ours: dict[str, Any], nodes: list[Any], links: list[Any]) -> ScoredCircuit:
    graph = shape(*(ours[key] for key in _SHAPE), where=f"metadata.{OURS}")
    names = _names(graph, nodes)
    drawn = _drawn(names, ours, links)
    granularity = ours["granularity"]
    left_out = _scores(ours["left_out"])
    edges: dict[str, Measured | None] = {}
    if granularity == "edge":
        edges = {edge_name(*link, entry): measured for link, entry, measured in drawn}
    if edges or left_out:
        listable(graph).require_edges([*edges, *left_out])
    kept = set(edges) if granularity == "edge" else set(names.values())
    return ScoredCircuit(
        graph=graph,
        circuit=chosen(
            graph, granularity, kept, text(ours["method"], "method"), text(ours["selection"], "selection")
        ),
        scores=_scores(ours["scores"]),
        links={}
        if granularity == "edge"
        else {link: None if measured is None else measured[0] for link, _, measured in drawn},
        edges={name: measured for name, measured in edges.items() if measured is not None} | left_out,
        model=text(ours["model"], "model"),
        extras=mapping(ours["extras"], "extras"),
    )


def _names(graph: Graph, nodes: list[Any]) -> dict[str, str]:
    """Identifier -> name of each node of the file."""
    names = {}
    for i, node in enumerate(nodes):
        entry = mapping(node, f"node {i}")
        name = text(field(entry, "clerp", f"node {i}"), f"clerp of node {i}")
        graph.node(name)
        names[text(field(entry, "node_id", f"node {name}"), f"node_id of node {name}")] = name
    return names


def _drawn(
    names: dict[str, str], ours: dict[str, Any], links: list[Any]
) -> list[tuple[Link, str | None, Measured | None]]:
    found: list[tuple[Link, str | None, Measured | None]] = []
    rows = zip(links, ours["inputs"], ours["measured"], ours["stderr"], strict=True)
    for i, (link, entry, measured, stderr) in enumerate(rows):
        where = f"link {i}"
        values = mapping(link, where)
        source, target = (text(field(values, key, where), where) for key in ("source", "target"))
        for end in (source, target):
            if end not in names:
                raise CircuitError(
                    f"{where} ends at {end}, which is no node of the file. Export the run again."
                )
        weight = number(field(values, "weight", where), f"weight of {where}")
        score = (weight, number_or_none(stderr, f"stderr of {where}")) if measured else None
        found.append(((names[source], names[target]), entry, score))
    return found


def _scores(entries: dict[str, Any]) -> dict[str, Measured]:
    return {
        name: (number(score, f"score of {name}"), number_or_none(stderr, f"stderr of {name}"))
        for name, (score, stderr) in entries.items()
    }


def caveats(scored: ScoredCircuit) -> tuple[str, ...]:
    return (
        "Neuronpedia draws features: heads and MLPs are written as such, at one position that stands for all.",
    )


FORMAT = Format(
    name="neuronpedia",
    summary="Attribution graph of circuit-tracer and Neuronpedia: the kept nodes and edges, to look at there.",
    extension=".json",
    write=write,
    read=read,
    recognises=lambda data: has_keys(data, "links", "qParams"),
    caveats=caveats,
)
