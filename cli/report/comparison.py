"""report.md of a comparison: what is shared by name, each figure with its chance level, and what that level is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from circuits.comparison.pairwise import Comparison
from circuits.comparison.references import ReferenceMatch
from cli.comparison_words import (
    NULLS,
    listed,
    overlap_words,
    pair_cells,
    ranking_words,
    reference_words,
    share_words,
)
from cli.report.markdown import table
from cli.wording import number

_NODES, _EDGES = 200, 40
"""Names in a list; overlap.json holds them all."""
_PICTURES = {
    "overlay.png": "The two circuits laid over one another",
    "matrix.png": "Jaccard of nodes; a star is above chance",
    "matrix-edges.png": "Jaccard of edges; a star is above chance",
}


def comparison_report(
    record: Mapping[str, Any],
    found: Sequence[Comparison],
    matches: Sequence[ReferenceMatch],
    pictures: tuple[str, ...],
) -> str:
    """The whole report as Markdown; `record` is what overlap.json holds."""
    columns = ("name", "task", "model", "method", "selection", "granularity", "kept")
    parts = [
        "# Comparison of circuits",
        table(("run", *columns[1:]), [[str(run[c]) for c in columns] for run in record["runs"]]),
        *(f"**Note.** {note}" for note in record["notes"]),
        *(f"![{_PICTURES[name]}]({name})" for name in pictures if name in _PICTURES),
        *(_pair(found) if len(record["runs"]) <= 2 else (overview(found),)),
        *(part for match in matches for part in _reference(match)),
        "## What chance means here",
        *(f"- **{name}**: {words}" for name, words in NULLS.items()),
    ]
    return "\n\n".join(parts) + "\n"


def overview(found: Sequence[Comparison]) -> str:
    """A row a pair."""
    header = ("first", "second", "of", "shared / union", "Jaccard", "chance", "p", "rank correlation", "RBO")
    return table(header, [_row(entry) for entry in found])


def _row(found: Comparison) -> tuple[str, ...]:
    ranking = found.ranking
    return (
        *pair_cells(found),
        "" if ranking is None else number(ranking.rank_correlation.value),
        "" if ranking is None else number(ranking.rank_biased_overlap.value),
    )


def _pair(found: Sequence[Comparison]) -> Iterator[str]:
    for entry in found:
        most = _NODES if entry.granularity == "node" else _EDGES
        yield f"## {entry.granularity.capitalize()}s"
        sentences = (overlap_words(entry), share_words(entry), ranking_words(entry))
        yield "\n".join(f"- {words[0].upper()}{words[1:]}." for words in sentences)
        groups = (
            ("both", entry.shared),
            (f"{entry.first} alone", entry.only_first),
            (f"{entry.second} alone", entry.only_second),
            ("left out: not scored by both", entry.left_out),
        )
        yield table(
            ("kept by", "how many", "names"), [(w, f"{len(n):,}", listed(n, most)) for w, n in groups]
        )


def _reference(match: ReferenceMatch) -> Iterator[str]:
    yield f"## {match.run} against {match.reference}, {match.of}"
    yield f"{reference_words(match)}."
    groups = (
        ("both", match.found),
        (f"{match.reference} alone", match.missed),
        (f"{match.run} alone", match.extra),
    )
    most = _EDGES if match.of == "edges" else _NODES
    yield table(("kept by", "how many", "names"), [(w, f"{len(n)}", listed(n, most)) for w, n in groups])
