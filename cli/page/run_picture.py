"""The circuits of a run folder as pictures of a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from circuits.graph import Graph
from circuits.runs import RunFolder
from cli.page.picture import Chosen, Edge, Node, Picture, Stop

if TYPE_CHECKING:
    import pandas as pd

Entry = Mapping[str, Any]
Row = Mapping[str, Any]
_STOPS = 24


def picture(run: RunFolder, entry: Entry) -> Picture:
    """entry: one of the circuits of circuit.json."""
    model, details = run.circuit["model"], details_of(run, entry["method"])
    size, of, what = size_of(run, entry)
    stops, measured_on = _stops(run, entry["method"], of)
    return Picture(
        Graph(*(model[name] for name in ("n_layers", "n_heads", "n_kv_heads", "parallel"))),
        _nodes(run, entry),
        _edges(run, entry),
        _of_edges(entry),
        stops,
        Chosen(size, of, what, *_judged(entry)),
        str(details.get("unit", "score")),
        bool(details.get("signed", True)),
        measured_on,
    )


def details_of(run: RunFolder, method: str) -> Entry:
    """What the method says of itself, as far as the run knows."""
    found: Entry = run.evaluation.get("methods", {}).get(method, {}).get("details") or {}
    return found


def _of_edges(entry: Entry) -> bool:
    return entry.get("granularity") == "edge"


def rows(table: pd.DataFrame, method: str) -> list[Row]:
    """The rows of a method, blanks as None."""
    return table_rows(table[table["method"] == method] if len(table) else table)


def table_rows(table: pd.DataFrame) -> list[Row]:
    """All rows, blanks as None."""
    known = table.astype(object).where(table.notna(), None)
    return [dict(zip(known.columns, values, strict=True)) for values in known.itertuples(index=False)]


def scores_of(run: RunFolder, method: str) -> dict[str, float]:
    """Component -> score over all positions, as far as it is known."""
    table = rows(run.nodes, method)
    return {
        row["component"]: row["score"]
        for row in table
        if row.get("position", "all") == "all" and row["score"] is not None
    }


def size_of(run: RunFolder, entry: Entry) -> tuple[int, int, str]:
    """How much the circuit keeps, of how much, and of what."""
    if _of_edges(entry):
        kept = len(entry["edges"])
        return kept, max(kept, int((run.edges["method"] == entry["method"]).sum())), "edges"
    names = {row["component"] for row in rows(run.nodes, entry["method"])}
    names = names or {node["name"] for node in entry["nodes"]}
    what = "components" if any(name[0] == "m" for name in names) else "heads"
    return len(entry["nodes"]), len(names), what


def _judged(entry: Entry) -> tuple[tuple[float, float, float] | None, tuple[float, float] | None]:
    """Faithfulness with its interval, and the random band, under the first ablation."""
    if not entry["evaluation"]:
        return None, None
    first = entry["evaluation"][0]
    return interval(first["faithfulness"]), first.get("random") and band(first)


def interval(found: Entry) -> tuple[float, float, float]:
    """Value, low, high; the value thrice where no interval was measured."""
    return found["value"], found.get("low", found["value"]), found.get("high", found["value"])


def band(judged: Entry) -> tuple[float, float]:
    """What holds 95% of random circuits."""
    return judged["random"]["low"], judged["random"]["high"]


def _nodes(run: RunFolder, entry: Entry) -> list[Node]:
    kept = {node["name"]: node for node in entry["nodes"]}
    table = [row for row in rows(run.nodes, entry["method"]) if row.get("position", "all") == "all"]
    found = {row["component"]: row for row in table} or {name: {**node} for name, node in kept.items()}
    by_size = sorted(found, key=lambda name: -abs(found[name]["score"] or 0.0))
    rank = {name: i for i, name in enumerate(by_size, start=1)}
    return [
        Node(
            name,
            row["score"],
            row.get("low"),
            row.get("high"),
            int(row.get("rank") or rank[name]),
            name in kept,
        )
        for name, row in found.items()
    ]


def _edges(run: RunFolder, entry: Entry) -> list[Edge]:
    if not _of_edges(entry):
        return [_edge(row, 0, True) for row in entry["edges"]]
    kept = {_ends(row) for row in entry["edges"]}
    table = rows(run.edges, entry["method"]) or list(entry["edges"])
    table.sort(key=lambda row: -abs(row["score"] or 0.0))
    return [_edge(row, i, _ends(row) in kept) for i, row in enumerate(table, start=1)]


def _ends(row: Row) -> tuple[str, str, str]:
    return row["source"], row["target"], row.get("input") or ""


def _edge(row: Row, rank: int, inside: bool) -> Edge:
    return Edge(*_ends(row), row["score"], row.get("stderr"), rank, inside)


def _stops(run: RunFolder, method: str, of: int) -> tuple[list[Stop], str]:
    """The sizes of the slider, and what is to be said of what was measured there."""
    if run.sizes is not None and (mine := rows(run.sizes, method)):
        words = f"; faithfulness on {mine[0]['n_prompts']} judged prompts, with 95% intervals"
        return [Stop(int(r["n"]), r["faithfulness"], r["low"], r["high"]) for r in mine], words
    chosen = run.evaluation.get("methods", {}).get(method, {}).get("selection", {})
    sizes, curve = chosen.get("discovery_sizes") or (), chosen.get("discovery_curve") or ()
    if sizes and len(sizes) == len(curve):
        words = "; faithfulness on the prompts that it was found on"
        return [Stop(n, value) for n, value in zip(sizes, curve, strict=True)], words
    return [Stop(n) for n in sorted({max(1, round(of ** (i / (_STOPS - 1)))) for i in range(_STOPS)})], ""
