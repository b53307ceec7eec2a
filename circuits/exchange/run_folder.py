"""A run folder as the value that all formats share.

The one idea: what a circuit keeps stands in circuit.json with all its digits, and every other score in the tables,
so both are read. Runs from before there were edge circuits have no `granularity` and no `input`: theirs are node
circuits and links.
"""

from __future__ import annotations

from itertools import compress
from typing import Any

from circuits.errors import RunFolderError, UnknownNameError
from circuits.exchange.fields import mapping, shape
from circuits.records import read_columns
from circuits.runs import RunFolder, RunRecords
from circuits.scored_circuit import Link, Measured, ScoredCircuit, chosen, edge_name

UNKNOWN_MODEL = "unknown model"
TABLES = ("nodes.csv", "edges.csv")


Table = dict[str, list[str]]


def circuit_of_run(run: RunFolder | RunRecords, method: str | None = None) -> ScoredCircuit:
    """The circuit of `method`, by default the run's first. Raises CircuitError where the run has none of it."""
    try:
        found = {entry["method"]: entry for entry in run.circuit["circuits"]}
        name = next(iter(found)) if method is None else method
        if name not in found:
            raise UnknownNameError(f"method in {run.path}", name, found)
        return _scored_circuit(run, found[name])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as problem:
        what = f"{type(problem).__name__} {problem}"
        raise RunFolderError(
            f"{run.path}: its circuit.json, nodes.csv or edges.csv is damaged ({what}). Make the run again."
        ) from problem


def _scored_circuit(run: RunFolder | RunRecords, entry: dict[str, Any]) -> ScoredCircuit:
    model = run.circuit["model"]
    graph = shape(
        model["n_layers"], model["n_heads"], model["n_kv_heads"], model["parallel"], where="circuit.json"
    )
    granularity = entry.get("granularity", "node")
    nodes, edges = (_rows(read_columns(run.path / name), entry["method"]) for name in TABLES)
    kept = {
        edge_name(e["source"], e["target"], e.get("input")): _measured(e.get("score"), e.get("stderr"))
        for e in entry["edges"]
    }
    kept_nodes = {node["name"]: _measured(node["score"], node.get("stderr")) for node in entry["nodes"]}
    return ScoredCircuit(
        graph=graph,
        circuit=chosen(
            graph,
            granularity,
            set(kept if granularity == "edge" else kept_nodes),
            entry["method"],
            entry["selection"],
        ),
        scores=_scores(nodes, nodes["component"]) | _known(kept_nodes),
        links={} if granularity == "edge" else _links(entry),
        edges=_scores(edges, _edge_names(edges, granularity))
        | (_known(kept) if granularity == "edge" else {}),
        model="" if model["name"] == UNKNOWN_MODEL else model["name"],
        extras=mapping(entry.get("extras", {}), "extras"),
    )


def _rows(table: Table, method: str) -> Table:
    """The rows of one method, of all positions together where there are several."""
    positions = table.get("position") or ["all"] * len(table["method"])
    mine = [m == method and where == "all" for m, where in zip(table["method"], positions, strict=True)]
    return {name: list(compress(column, mine)) for name, column in table.items()}


def _links(entry: dict[str, Any]) -> dict[Link, float | None]:
    return {(e["source"], e["target"]): e["score"] for e in entry["edges"] if not e.get("input")}


def _edge_names(edges: Table, granularity: str) -> list[str]:
    """The edge of each row; empty for rows that are links, which take the inputs of a head together."""
    entries = edges.get("input") or [""] * len(edges["source"])
    return [
        edge_name(source, target, entry) if entry or granularity == "edge" else ""
        for source, target, entry in zip(edges["source"], edges["target"], entries, strict=True)
    ]


def _scores(table: Table, names: list[str]) -> dict[str, Measured]:
    """Name -> score of every row that has both."""
    errors = table.get("stderr") or [""] * len(names)
    rows = zip(names, table["score"], errors, strict=True)
    return {
        name: (float(score), float(error) if error else None) for name, score, error in rows if name and score
    }


def _measured(score: object, error: object) -> Measured | None:
    """What is blank is None."""
    values = [None if x is None else float(x) for x in (score, error)]  # type: ignore[arg-type]
    return None if values[0] is None else (values[0], values[1])


def _known(scores: dict[str, Measured | None]) -> dict[str, Measured]:
    return {name: measured for name, measured in scores.items() if measured is not None}
