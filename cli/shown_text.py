"""A run in the terminal: verdict, heatmap, largest scores, curve over sizes, and the circuit as rows and a tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli.render import draw, heatmap, room, say, top_components, warning
from cli.shown import Curve, Shown, as_value
from cli.text_curve import Row, curve_lines, thinned
from cli.text_graph import PLAIN_SHADES, SHADES, Piece, edge_tree, node_rows
from cli.wording import baseline_line, conclusions, finding_words, kept_words, unsolved_warning

_STOPS, _BRANCHES = 16, 20
"""Sizes of a curve, and edges of a tree, that a screen holds."""


def show_run(shown: Shown, top: int) -> None:
    """Everything that the run holds of this method; what it lacks is left out."""
    _verdict(shown)
    if shown.scores is not None:
        say("")
        heatmap(shown.graph, shown.scores, shown.circuit, unit=shown.unit)
    if shown.ranked is not None:
        say("")
        top_components(shown.ranked, shown.circuit, n=top, unit=shown.unit, intervals=shown.intervals)
    if shown.curve is not None:
        _curve(shown, shown.curve)
    _graph(shown)
    if others := [name for name in shown.methods if name != shown.method]:
        say(f"\nAlso in this run (--method): {', '.join(others)}.")


def verdict_lines(shown: Shown) -> Iterator[str]:
    """How the model does, what the circuit keeps and how faithful it is, and what the method itself concludes."""
    baseline = as_value(shown.run.evaluation.get("baseline"))
    if baseline:
        yield baseline_line(shown.model, shown.task, baseline)
    if shown.verdict:
        yield finding_words(shown.finding)
    else:
        kept = kept_words(shown.finding)
        yield f"{shown.title()}: keeps {kept}; nothing was evaluated (circuit evaluate)."
    yield from conclusions(shown.details)


def _verdict(shown: Shown) -> None:
    for line in verdict_lines(shown):
        say(line)
    baseline = as_value(shown.run.evaluation.get("baseline"))
    if baseline and (doubt := unsolved_warning(shown.model, _solving(baseline))):
        warning(doubt)


def _solving(baseline: Any) -> Any:
    """The record with what Baseline itself would say."""
    baseline.solves = baseline.preferred.low > 0.5
    return baseline


def _curve(shown: Shown, curve: Curve) -> None:
    width, ascii_only = room()
    say(f"\nFaithfulness of the first n of the ranking; {curve.told}:")
    rows = thinned([Row(str(s.n), s.faithfulness, s.low, s.high) for s in curve.stops], _STOPS)
    if shown.verdict:
        found, band = shown.verdict.faithfulness, shown.verdict.random
        rows.append(Row("circuit", found.value, found.low, found.high))
        rows.append(Row("random", band.median, band.low, band.high, dot=False))
    for line in curve_lines(rows, width, ascii_only):
        draw([(Piece(line),)])
    if shown.verdict:
        band = shown.verdict.random
        say(
            f"circuit: the {len(shown.circuit.kept):,} that are kept, on judged prompts; random: 95% of {band.n} "
            "circuits of its size."
        )


def _graph(shown: Shown) -> None:
    width, ascii_only = room()
    shades = PLAIN_SHADES if ascii_only else SHADES
    nodes = shown.circuit.nodes
    values = (
        dict(zip(shown.scores.components, shown.scores.values.tolist(), strict=True)) if shown.scores else {}
    )
    signed = shown.signed is not False
    sides = "+ supports, - opposes; " if signed else ""
    say(f"\nThe circuit, layers upward. {sides}{shades}: quarters of the largest size.")
    draw(node_rows(shown.graph, nodes, values, width, ascii_only, signed))
    if not shown.flows:
        say("Edges between them were not measured: methods of edges do that (circuit methods).")
        return
    say(f"\n{_flows_words(shown)}:")
    draw(edge_tree(shown.flows, _BRANCHES, width, ascii_only))


def _flows_words(shown: Shown) -> str:
    n = f"Of its {len(shown.flows):,} measured {'links' if shown.circuit.edges is None else 'edges'}"
    whose = " (by another method of this run)" if shown.borrowed else ""
    return f"{n}{whose} the strongest, each below what it enters, with their scores"


def record(shown: Shown, top: int) -> dict[str, Any]:
    """What --json prints: the same as data."""
    ranked, intervals = shown.ranked, shown.intervals
    values = {} if ranked is None else dict(zip(ranked.components, ranked.values.tolist(), strict=True))
    first = ranked.ranking()[:top] if ranked is not None else ()
    curve = shown.curve
    return {
        "folder": str(shown.run.path),
        "kind": "run",
        "task": shown.task,
        "model": shown.model,
        "method": shown.method,
        "methods": shown.methods,
        "unit": shown.unit,
        "verdict": list(verdict_lines(shown)),
        "verdicts": shown.found.get("verdicts") or [],
        "scores": {}
        if shown.scores is None
        else dict(zip(shown.scores.components, shown.scores.values, strict=True)),
        "top": [
            {
                "name": name,
                "score": values[name],
                "interval": intervals[name],
                "in_circuit": name in shown.circuit,
            }
            for name in first
        ],
        "curve": None if curve is None else {"told": curve.told, "sizes": [s._asdict() for s in curve.stops]},
        "circuit": {
            "selection": shown.circuit.selection,
            "nodes": shown.circuit.nodes,
            "edges": shown.circuit.edges,
            "measured": shown.flows,
        },
    }
