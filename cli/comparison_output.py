"""From comparisons to the files of their folder: overlap.json, overlap.csv, report.md, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.records import plain, write_json, write_table, write_text
from circuits.runs import writing_run
from cli.comparison_words import NULLS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from circuits.comparison.pairwise import Comparison
    from circuits.comparison.references import ReferenceMatch
    from circuits.comparison.sides import Side

RECORD = "overlap.json"
"""By which a comparison's folder is known."""
FORMAT_VERSION = 1


def comparison_record(
    sides: Sequence[Side],
    found: Sequence[Comparison],
    matches: Sequence[ReferenceMatch],
    notes: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """overlap.json. The names of edges stand in it for two runs alone: a thousand pairs have too many."""
    from circuits.comparison.pairwise import PERMUTATIONS, REDRAWS
    from circuits.comparison.rank_overlap import PERSISTENCE

    return {
        "format_version": FORMAT_VERSION,
        "runs": [_side(side) for side in sides],
        "notes": list(notes),
        "seed": seed,
        "permutations": PERMUTATIONS,
        "redraws": REDRAWS,
        "rank_biased_overlap_p": PERSISTENCE,
        "nulls": NULLS,
        "references": [asdict(match) for match in matches],
        "comparisons": [_pair(entry, entry.granularity == "node" or len(sides) == 2) for entry in found],
    }


def _side(side: Side) -> dict[str, Any]:
    circuit = side.scored.circuit
    return {
        "name": side.name,
        "task": side.task,
        "model": side.model,
        "method": side.method,
        "selection": circuit.selection,
        "granularity": side.scored.granularity,
        "kept": len(circuit.kept),
    }


def _pair(found: Comparison, with_names: bool) -> dict[str, Any]:
    names = () if with_names else ("shared", "only_first", "only_second", "left_out")
    shown = [field.name for field in fields(found) if field.name not in names]
    return {name: plain(getattr(found, name)) for name in shown} | {"union": found.union}


def overlap_table(found: Sequence[Comparison]) -> pd.DataFrame:
    """overlap.csv: one row a pair and granularity."""
    import pandas as pd

    return pd.DataFrame([_row(entry) for entry in found])


def _row(found: Comparison) -> dict[str, object]:
    anywhere = asdict(found.overlap)
    anywhere["chance_jaccard_anywhere"] = anywhere.pop("chance_jaccard")
    anywhere["p_value_anywhere"] = anywhere.pop("p_value")
    rankings = {
        f"{name}{suffix}": None if found.ranking is None else getattr(getattr(found.ranking, name), field)
        for name in ("rank_correlation", "rank_biased_overlap", "weighted_jaccard")
        for field, suffix in (("value", ""), ("chance", "_chance"), ("p_value", "_p_value"))
    }
    return {
        "first": found.first,
        "second": found.second,
        "granularity": found.granularity,
        **anywhere,
        "union": found.union,
        "chance_jaccard": found.within.jaccard,
        "p_value": found.within.p_value,
        "p_value_floor": found.within.floor,
        "largest_jaccard": found.largest and found.largest.jaccard,
        "redrawn_low": found.largest and found.largest.low,
        "redrawn_high": found.largest and found.largest.high,
        **rankings,
    }


def write_comparison(
    path: Path,
    record: Mapping[str, Any],
    sides: Sequence[Side],
    found: Sequence[Comparison],
    matches: Sequence[ReferenceMatch],
    *,
    force: bool,
) -> None:
    """Writes the whole folder, or nothing. Raises RunFolderError where the disk refuses."""
    from cli.report.comparison import comparison_report

    pictures = dict(_pictures(sides, found, matches))
    report = comparison_report(record, found, matches, tuple(pictures))
    with writing_run(path, force, RECORD) as folder:
        write_json(folder / RECORD, record)
        if found:
            write_table(folder / "overlap.csv", overlap_table(found))
        write_text(folder / "report.md", report)
        for name, content in pictures.items():
            (folder / name).write_bytes(content)


def _pictures(
    sides: Sequence[Side], found: Sequence[Comparison], matches: Sequence[ReferenceMatch]
) -> Iterator[tuple[str, bytes]]:
    from cli.report.figure import png, svg

    if len(sides) > 2:
        yield from _matrices(tuple(side.name for side in sides), found)
        return
    picture = _two(*sides) if len(sides) == 2 else _with_reference(sides[0], matches[0])
    yield "overlay.png", png(picture)
    yield "overlay.svg", svg(picture)


def _matrices(names: tuple[str, ...], found: Sequence[Comparison]) -> Iterator[tuple[str, bytes]]:
    from cli.report.figure import png
    from cli.report.matrix import matrix

    for granularity, file in (("node", "matrix.png"), ("edge", "matrix-edges.png")):
        if mine := [entry for entry in found if entry.granularity == granularity]:
            yield file, png(matrix(names, mine, f"Overlap of {granularity}s"))


def _two(first: Side, second: Side) -> Figure:
    from cli.report.overlay import overlay

    graph, title = first.scored.graph, f"{first.name} and {second.name}"
    return overlay(graph, first.scored.circuit, second.scored.circuit, (first.name, second.name), title)


def _with_reference(side: Side, match: ReferenceMatch) -> Figure:
    """What the run keeps of the kind that the reference lists, and the reference."""
    from circuits.circuit import Circuit
    from cli.report.overlay import overlay

    kept = Circuit((*match.found, *match.extra), side.method, side.scored.circuit.selection)
    known = Circuit((*match.found, *match.missed, *match.unscored), match.reference, "as reported")
    title = f"{side.name} and {match.reference}"
    return overlay(side.scored.graph, kept, known, (side.name, match.reference), title)
