"""Run folders made up for tests: a circuit that is known, with scores that put it first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from circuits.circuit import Circuit, edge_circuit
from circuits.exchange.files import Imported
from circuits.graph import Graph
from circuits.records import write_json
from circuits.runs import write_records, writing_run
from circuits.scored_circuit import Measured, ScoredCircuit
from cli.import_records import records


def node_scores(graph: Graph, kept: Iterable[str], error: float = 0.1, seed: int = 0) -> dict[str, Measured]:
    return _scores(graph.components, set(kept), error, seed)


def edge_scores(graph: Graph, kept: Iterable[str], error: float = 0.1, seed: int = 0) -> dict[str, Measured]:
    return _scores(graph.places, set(kept), error, seed)


def _scores(names: Iterable[str], kept: set[str], error: float, seed: int) -> dict[str, Measured]:
    """What is kept has sizes from 1 to 2, all else below 1."""
    rng = np.random.default_rng(seed)
    return {name: (float(rng.random()) + (name in kept), error) for name in names}


def made_run(
    path: Path,
    graph: Graph,
    *,
    nodes: tuple[str, ...] = (),
    edges: tuple[str, ...] | None = None,
    method: str = "made",
    model: str = "one",
    faithfulness: float | None = None,
    scored: bool = True,
    seed: int = 0,
) -> Path:
    """A run folder of a node circuit, or of an edge circuit where `edges` are given."""
    if edges is None:
        kept = Circuit(tuple(c for c in graph.components if c in nodes), method, "by hand")
        scores = node_scores(graph, nodes, seed=seed) if scored else {}
        circuit = ScoredCircuit(graph, kept, scores, {}, {}, model)
    else:
        kept = edge_circuit(graph, edges, method, "by hand")
        circuit = ScoredCircuit(graph, kept, {}, {}, edge_scores(graph, edges, seed=seed), model)
    with writing_run(path) as folder:
        write_records(folder, **records(Imported(circuit, "made.json", "0", "eap-ig")))
    if faithfulness is not None:
        held = json.loads((path / "circuit.json").read_text())
        verdict = {"ablation": "resample", "faithfulness": {"value": faithfulness}}
        held["circuits"][0]["evaluation"] = [verdict]
        write_json(path / "circuit.json", held)
    return path
