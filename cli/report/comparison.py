"""report.md of a comparison: what is shared by name, each figure with its chance level, and what that level is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from circuits.comparison.pairwise import Comparison
from circuits.comparison.references import ReferenceMatch
from cli.comparison_words import (
    TRANSFER,
    alignment_words,
    listed,
    overlap_words,
    pair_cells,
    pair_words,
    ranking_words,
    reference_words,
    share_words,
    specificity_words,
    transfer_rows,
    without_effects_words,
)
from cli.report.markdown import table
from cli.wording import number

if TYPE_CHECKING:
    from circuits.comparison.aligned import AlignedComparison
    from circuits.comparison.alignment import Pair
    from circuits.evaluation.transfer import Journey
    from cli.comparing import Compared

_NODES, _EDGES = 200, 40
"""Names in a list; overlap.json holds them all."""
_PICTURES = {
    "alignment.png": "Matched heads, by depth",
    "transfer.png": "Faithfulness of each circuit on the prompts of each run; framed: its own task",
    "overlay.png": "The two circuits laid over one another",
    "matrix.png": "Jaccard of nodes; a star is above chance",
    "matrix-edges.png": "Jaccard of edges; a star is above chance",
}


def comparison_report(record: Mapping[str, Any], done: Compared, pictures: tuple[str, ...]) -> str:
    """The whole report as Markdown; `record` is what overlap.json holds."""
    columns = ("name", "task", "model", "method", "selection", "granularity", "kept")
    parts = [
        "# Comparison of circuits",
        table(("run", *columns[1:]), [[str(run[c]) for c in columns] for run in record["runs"]]),
        *(f"**Note.** {note}" for note in record["notes"]),
        *(f"![{_PICTURES[name]}]({name})" for name in pictures if name in _PICTURES),
        *(_alignment(done.aligned) if done.aligned else ()),
        *(_pair(done.found) if len(record["runs"]) <= 2 else (overview(done.found),)),
        *(_transfer(done.journeys) if done.journeys else ()),
        *(part for match in done.matches for part in _reference(match)),
        "## What chance means here",
        *(f"- **{name}**: {words}" for name, words in record["nulls"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _transfer(journeys: Sequence[Journey]) -> Iterator[str]:
    yield "## Transfer"
    yield TRANSFER
    yield table(*transfer_rows(journeys))
    if lines := specificity_words(journeys):
        yield "\n".join(f"- {line}." for line in lines)


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
        most = _EDGES if entry.granularity == "edge" else _NODES
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


def _alignment(found: AlignedComparison) -> Iterator[str]:
    whole = found.alignment
    yield "## Alignment"
    yield (
        "Which head of one model is which head of the other: the one-to-one matching of greatest mean similarity. "
        f"Similarity is the mean of three parts: **roles** (1 - the distance of {len(whole.roles)} role scores: "
        f"{', '.join(whole.roles)}), **effects** (the identity coefficient of what patching the head takes off the "
        "metric, prompt by prompt, as a share of the whole difference; 1 means the same effect on every prompt, "
        "below 0 opposite ones) and **depth** (1 - the distance of relative depths). **Margin** is similarity beyond "
        "the best other partner, below zero where that one was given away; **stability** the share of redraws of the "
        "prompts in which the pair returns; **correlation** that of effects over prompts, whatever their size."
    )
    sentences = (alignment_words(whole), pair_words(found), without_effects_words(found))
    yield "\n".join(f"- {words[0].upper()}{words[1:]}." for words in sentences)
    heads = found.heads
    marks = dict.fromkeys(heads.shared, "both")
    marks |= dict.fromkeys(heads.only_first, heads.first) | dict.fromkeys(heads.only_second, heads.second)
    columns = ("similarity", "roles", "effects", "depth", "correlation", "margin", "stability")
    rows = [(*_pair_cells(pair), marks.get(f"{pair.first}~{pair.second}", "")) for pair in whole.pairs]
    rows.sort(key=lambda row: row[-1] == "")
    yield table((heads.first, heads.second, *columns, "in the circuit of"), rows[:_NODES])


def _pair_cells(pair: Pair) -> tuple[str, ...]:
    figures = (
        pair.similarity, pair.roles, pair.effects, pair.depth, pair.correlation, pair.margin, pair.stability
    )  # fmt: skip
    return (pair.first, pair.second, *("" if value is None else number(value) for value in figures))


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
