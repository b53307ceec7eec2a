"""What a run folder holds of a method: its circuit and its scores, checked against the model that they are asked of.

The one idea: a run is judged by its files alone; nothing of the run that made them is needed but the prompts and the
name of the model. Only per-prompt scores are not kept, so who needs them has the method score again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.circuit import Circuit, edge_circuit
from circuits.errors import CircuitError, RunFolderError, UnknownNameError
from circuits.graph import Graph
from circuits.runs import RunFolder
from circuits.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

NODE_COLUMNS = ("method", "component", "position", "score")
EDGE_COLUMNS = ("method", "source", "target", "input", "score")


@dataclass(frozen=True)
class Recorded:
    """A method's circuit, and the mean scores that it was chosen by; None where nothing is scored.

    played: what the circuit may leave out: what is scored, or all where nothing is; the rest of the model stays.
    """

    circuit: Circuit
    scores: Scores | None
    played: tuple[str, ...]

    @property
    def edges(self) -> bool:
        return self.circuit.edges is not None


def recorded_methods(run: RunFolder) -> tuple[str, ...]:
    """The methods whose circuits the run holds. Raises RunFolderError where circuit.json holds none."""
    methods = tuple(str(entry.get("method")) for entry in _entries(run))
    if not methods:
        raise RunFolderError(f"{run.path / 'circuit.json'} holds no circuit. Make the run again.")
    return methods


def recorded(run: RunFolder, method: str, graph: Graph) -> Recorded:
    """What the run holds of `method`. Raises CircuitError for a name that the model does not have (the first)."""
    known = recorded_methods(run)
    if method not in known:
        raise UnknownNameError("circuit of method", method, known)
    entry = _entries(run)[known.index(method)]
    try:
        nodes = [str(node["name"]) for node in entry["nodes"]]
        edges = [_edge_name(edge) for edge in entry["edges"]] if entry.get("granularity") == "edge" else None
    except (KeyError, TypeError) as problem:
        what = f"{run.path / 'circuit.json'} is damaged: the circuit of {method} lacks {problem}"
        raise RunFolderError(f"{what}. Make the run again.") from problem
    rule = str(entry.get("selection", "unknown"))
    if edges is not None:
        circuit = edge_circuit(graph, _fitting(graph, edges), method, rule)
        measured = _edge_scores(run, method, graph)
        inside = set(graph.places if measured is None else (*measured.components, *edges))
        return Recorded(circuit, measured, tuple(edge for edge in graph.places if edge in inside))
    _require_components(graph, nodes)
    scores = node_scores(run, method, graph)
    played = graph.components if scores is None else scores.components
    kept = set(nodes)
    return Recorded(Circuit(tuple(c for c in graph.components if c in kept), method, rule), scores, played)


def _entries(run: RunFolder) -> Sequence[Mapping[str, Any]]:
    entries = run.circuit.get("circuits")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RunFolderError(
            f"{run.path / 'circuit.json'} is damaged: it lists no circuits. Make the run again."
        )
    return entries


def _edge_name(edge: Mapping[str, Any]) -> str:
    """ "a9.h6->a10.h0<q>" from its source, target and input."""
    entry = edge.get("input")
    inside = f"<{entry}>" if isinstance(entry, str) and entry else ""
    return f"{edge['source']}->{edge['target']}{inside}"


def _fitting(graph: Graph, edges: Sequence[str]) -> Sequence[str]:
    graph.require_edges(edges)
    return edges


def _require_components(graph: Graph, names: Sequence[str]) -> None:
    for name in names:
        if name not in graph.components:
            graph.node(name)
            raise CircuitError(
                f"{name} always belongs to a circuit, so none can list it. Make the run again."
            )


def node_scores(run: RunFolder, method: str, graph: Graph) -> Scores | None:
    """What nodes.csv says of components, also where the circuit is one of edges; None where it says nothing."""
    table = _rows(run, "nodes.csv", run.nodes, NODE_COLUMNS, method)
    table = table[(table["position"] == "all") & table["score"].notna()]
    names = [str(name) for name in table["component"]]
    _require_components(graph, names)
    return _scores(method, names, table["score"].to_numpy(float), graph.components)


def _edge_scores(run: RunFolder, method: str, graph: Graph) -> Scores | None:
    table = _rows(run, "edges.csv", run.edges, EDGE_COLUMNS, method)
    table = table[table["score"].notna()]
    names = [_edge_name({str(key): value for key, value in row.items()}) for row in table.to_dict("records")]
    graph.require_edges(names)
    return _scores(method, names, table["score"].to_numpy(float), tuple(graph.places))


def _rows(
    run: RunFolder, name: str, table: pd.DataFrame, columns: Sequence[str], method: str
) -> pd.DataFrame:
    if missing := [column for column in columns if column not in table.columns]:
        if not len(table):
            return table.reindex(columns=list(columns))
        what = f"{run.path / name} is damaged: it has no column {', '.join(missing)}"
        raise RunFolderError(f"{what}. Make the run again.")
    return table[table["method"] == method]


def _scores(method: str, names: Sequence[str], values: np.ndarray, order: Sequence[str]) -> Scores | None:
    """Scores in the order of the graph: a single row, for no more is kept than the means."""
    found = dict(zip(names, values.tolist(), strict=True))
    ordered = tuple(name for name in order if name in found)
    return Scores(method, ordered, np.array([[found[name] for name in ordered]]), "mean") if ordered else None
