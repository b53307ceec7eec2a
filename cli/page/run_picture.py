"""The circuit of a run as a picture of a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuits.circuit import ends
from circuits.exchange.run_folder import circuit_of_run
from circuits.runs import RunFolder
from circuits.scored_circuit import Measured, input_of
from cli.page.picture import Chosen, Edge, Node, Picture, Stop
from cli.shown import Shown

_STOPS = 24


def shown_methods(run: RunFolder) -> list[Shown]:
    """What the run says of each of its circuits, its own first."""
    scored = [circuit_of_run(run, entry["method"]) for entry in run.circuit["circuits"]]
    found = run.evaluation.get("methods") or {}
    return [Shown(run, one, found.get(one.circuit.method) or {}) for one in scored]


def picture(shown: Shown) -> Picture:
    size, of, what = size_of(shown)
    stops, measured_on = _stops(shown, of)
    edges = _links(shown) if shown.circuit.edges is None else _edges(shown)
    signed = shown.signed is not False
    own = shown.circuit.edges is not None
    chosen = Chosen(size, of, what, faithfulness(shown), chance(shown))
    return Picture(shown.graph, _nodes(shown), edges, own, stops, chosen, shown.unit, signed, measured_on)


def size_of(shown: Shown) -> tuple[int, int, str]:
    """How much the circuit keeps, of how much, and of what."""
    kept = len(shown.circuit.kept)
    if shown.circuit.edges is not None:
        return kept, max(kept, len(shown.scored.edges)), "edges"
    names = shown.scored.scores or dict.fromkeys(shown.graph.components)
    return kept, len(names), "components" if any(name[0] == "m" for name in names) else "heads"


def faithfulness(shown: Shown) -> tuple[float, float, float] | None:
    """Value, low, high under the first ablation."""
    found = shown.verdict and shown.verdict.faithfulness
    return (found.value, found.low, found.high) if found else None


def chance(shown: Shown) -> tuple[float, float] | None:
    """What holds 95% of random circuits."""
    return (shown.verdict.random.low, shown.verdict.random.high) if shown.verdict else None


def _ranks(scores: Mapping[str, Measured]) -> dict[str, int]:
    by_size = sorted(scores, key=lambda name: -abs(scores[name][0]))
    return {name: rank for rank, name in enumerate(by_size, start=1)}


def _nodes(shown: Shown) -> list[Node]:
    scores, kept = shown.scored.scores, set(shown.circuit.nodes)
    intervals = shown.intervals if shown.circuit.edges is None else {}
    ranks = _ranks(scores) or {name: i for i, name in enumerate(shown.graph.components, start=1)}
    found = []
    for name in shown.graph.components:
        if name in ranks or name in kept:
            low, high = intervals.get(name) or (None, None)
            score = scores[name][0] if name in scores else None
            found.append(Node(name, score, low, high, ranks.get(name, 0), name in kept))
    return found


def _links(shown: Shown) -> list[Edge]:
    return [Edge(u, v, "", score, None, 0, True) for (u, v), score in shown.links.items()]


def _edges(shown: Shown) -> list[Edge]:
    scores, kept = shown.scored.edges, set(shown.circuit.kept)
    ranks = _ranks(scores)
    names = [*ranks, *(name for name in shown.circuit.kept if name not in ranks)]
    return [_edge(name, scores.get(name), ranks.get(name, len(ranks) + 1), name in kept) for name in names]


def _edge(name: str, measured: Measured | None, rank: int, inside: bool) -> Edge:
    score, error = measured or (None, None)
    return Edge(*ends(name), input_of(name) or "", score, error, rank, inside)


def _stops(shown: Shown, of: int) -> tuple[list[Stop], str]:
    """The sizes of the slider, and what is to be said of what was measured there."""
    if shown.curve is not None:
        stops = [Stop(stop.n, stop.faithfulness, stop.low, stop.high) for stop in shown.curve.stops]
        return stops, f"; faithfulness on {shown.curve.told}"
    return [Stop(n) for n in sorted({max(1, round(of ** (i / (_STOPS - 1)))) for i in range(_STOPS)})], ""


def by_position(shown: Shown) -> dict[str, dict[str, float]]:
    """Component -> position -> score, where positions were scored."""
    found: dict[str, dict[str, float]] = {}
    table = shown.run.nodes
    mine = table[(table["method"] == shown.method) & (table["position"] != "all") & table["score"].notna()]
    for name, position, score in mine[["component", "position", "score"]].itertuples(index=False):
        found.setdefault(str(name), {})[str(position)] = float(score)
    return found


def code_rows(run: RunFolder) -> list[tuple[str, int, int, int]]:
    """Head, code, positives, negatives."""
    if run.codes is None:
        return []
    columns: list[list[Any]] = [run.codes[n].tolist() for n in ("head", "code", "positives", "negatives")]
    return list(zip(*columns, strict=True))
