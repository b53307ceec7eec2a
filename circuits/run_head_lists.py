"""A finished run as head lists: the files of circuits.head_lists, from the scores and the circuit of one method.

The one idea: what a file means decides what may stand in it. DuoAttention's table holds gates, so it is written of
the method that learns gates alone; CompressKV's ranks the heads of each layer, which any scores do; RazorAttention's
names the KV groups to keep whole, so it takes those of the circuit's heads, and its second list stays empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from circuits.errors import CircuitError
from circuits.head_lists import RECENT, SINK, HeadList, duo_files, ours, ranked_by_layer
from circuits.records import json_text
from circuits.scored_circuit import ScoredCircuit

DUO = "duo-attention"


def of_run(scored: ScoredCircuit, run: Mapping[str, Any]) -> HeadList:
    """run: what run.json holds. Raises CircuitError where a head has no score."""
    heads = scored.graph.heads
    missing = [head for head in heads if head not in scored.scores]
    if missing:
        raise CircuitError(
            f"{scored.circuit.method} gives no score to {len(missing)} of {len(heads)} heads ({missing[0]} ...), so "
            "there is no head list to write. Choose another --method."
        )
    values = np.array([scored.scores[head][0] for head in heads]).reshape(scored.graph.n_layers, -1)
    config = run.get("config", {})
    about = {
        "model": scored.model,
        "weights_sha256": run.get("model", {}).get("weights_sha256"),
        "prompts": {name: config.get(name) for name in ("task", "form", "corruption", "pairs")},
        "seed": config.get("seed"),
    }
    return HeadList(scored.graph, {scored.circuit.method: values}, about)


def _gates(scored: ScoredCircuit, run: Mapping[str, Any]) -> dict[str, bytes]:
    """The mean gate of every KV group, to deploy at 0.5 or by a quantile, and what other heads saw in training."""
    heads = of_run(scored, run)
    if scored.circuit.method != DUO:
        raise CircuitError(
            f"--format {DUO} holds gates from 0 to 1, and {scored.circuit.method} learns none. Discover with "
            f"--method {DUO}, or choose --format compress-kv or head-list."
        )
    options = run.get("config", {}).get("methods", {}).get(DUO, {})
    gates = heads.groups(heads.scores[DUO])
    return duo_files(gates, scored.model, options.get("sink", SINK), options.get("recent", RECENT))


def _kept_groups(scored: ScoredCircuit, run: Mapping[str, Any]) -> dict[str, bytes]:
    kept: dict[int, list[int]] = {}
    shared = scored.graph.n_heads // scored.graph.n_kv_heads
    for node in map(scored.graph.node, scored.circuit.heads):
        groups = kept.setdefault(node.layer, [])
        if (group := node.index // shared) not in groups:
            groups.append(group)
    return {"razor-attention.json": json_text({"prefix_matching": kept, "copying": {}}).encode()}


def _ranked(scored: ScoredCircuit, run: Mapping[str, Any]) -> dict[str, bytes]:
    heads = of_run(scored, run)
    return {"compress-kv.json": ranked_by_layer(heads.scores[scored.circuit.method])}


RUN_EXPORTS: Mapping[str, Callable[[ScoredCircuit, Mapping[str, Any]], dict[str, bytes]]] = {
    "duo-attention": _gates,
    "razor-attention": _kept_groups,
    "compress-kv": _ranked,
    "head-list": lambda scored, run: ours(of_run(scored, run)),
}
"""Name -> files by name: one, or of duo-attention a folder of two."""

CAVEATS = {
    "razor-attention": "prefix_matching names the KV groups of the circuit's heads, and copying none: the run "
    "measured no induction and no echo. circuit heads --export razor-attention does.",
    "compress-kv": "heads are ranked by the method's scores, and not by retrieval. circuit heads --export "
    "compress-kv does that.",
}
"""What a reader of the file should know of it."""
