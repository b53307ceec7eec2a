"""From comparisons to the files of their folder: overlap.json, tables, report.md, report.html, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.records import plain, write_json, write_table, write_text
from circuits.runs import writing_run
from cli.comparison_words import ALIGNMENT_NULLS, NULLS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from circuits.comparison.aligned import AlignedComparison
    from circuits.comparison.pairwise import Comparison
    from circuits.comparison.references import ReferenceMatch
    from circuits.comparison.sides import Side
    from circuits.evaluation.transfer import Journey
    from cli.comparing import Compared

RECORD, MEMBERS = "overlap.json", "members.csv"
"""By which a comparison's folder is known; what either of two circuits keeps."""
FORMAT_VERSION = 1


def comparison_record(done: Compared) -> dict[str, Any]:
    """overlap.json. The names of edges stand in it for two runs alone: a thousand pairs have too many."""
    from circuits.comparison.pairwise import PERMUTATIONS, REDRAWS
    from circuits.comparison.rank_overlap import PERSISTENCE

    aligned, two = done.aligned, len(done.sides) == 2
    record = {
        "format_version": FORMAT_VERSION,
        "runs": [_side(side) for side in done.sides],
        "notes": list(done.notes),
        "seed": done.request.seed,
        "permutations": PERMUTATIONS,
        "redraws": REDRAWS,
        "rank_biased_overlap_p": PERSISTENCE,
        "nulls": NULLS | (ALIGNMENT_NULLS if aligned else {}),
        "alignment": _alignment(aligned) if aligned else {"by": "index"},
        "references": [asdict(match) for match in done.matches],
        "comparisons": [_pair(entry, entry.granularity == "node" or two) for entry in done.found],
    }
    return record | ({"transfer": [_journey(j) for j in done.journeys]} if done.journeys else {})


def _journey(journey: Journey) -> dict[str, Any]:
    """A circuit on the prompts of a place: faithfulness, its interval, and what random circuits of its size reach."""
    verdict = journey.verdict
    return {
        "circuit": journey.circuit,
        "prompts": journey.place,
        "at_home": journey.at_home,
        "size": journey.size,
        "n_prompts": verdict.n_prompts,
        "ablation": verdict.ablation,
        "faithfulness": verdict.faithfulness.value,
        "low": verdict.faithfulness.low,
        "high": verdict.faithfulness.high,
        "random_low": verdict.random.low,
        "random_median": verdict.random.median,
        "random_high": verdict.random.high,
        "p_value": verdict.random.p_value,
        "preferred": verdict.preferred.value,
        "everything": verdict.everything,
        "nothing": verdict.nothing,
    }


def _alignment(found: AlignedComparison) -> dict[str, Any]:
    from circuits.comparison.alignment import PERMUTATIONS, REDRAWS

    return {
        "by": "behaviour",
        "permutations": PERMUTATIONS,
        "redraws": REDRAWS,
        **asdict(found.alignment),
        "sure": found.alignment.sure,
        "kept_without_partner": {
            found.heads.first: found.alone_first,
            found.heads.second: found.alone_second,
        },
        "without_effects": _pair(found.without_effects, True),
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
        "shape": asdict(side.scored.graph),
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


def members_table(first: Side, second: Side, found: Sequence[Comparison]) -> pd.DataFrame:
    """members.csv: one row a node or edge that either circuit keeps, and how both score it."""
    import pandas as pd

    columns = ("granularity", "name", "in_first", "in_second", "score_first", "score_second")
    return pd.DataFrame([row for entry in found for row in _members(first, second, entry)], columns=columns)


def _members(first: Side, second: Side, found: Comparison) -> Iterator[tuple[object, ...]]:
    scores = [s.scored.edges if found.granularity == "edge" else s.scored.scores for s in (first, second)]
    groups = ((found.shared, True, True), (found.only_first, True, False), (found.only_second, False, True))
    for names, *kept in groups:
        for name in names:
            yield (found.granularity, name, *kept, *(known.get(name, (None, None))[0] for known in scores))


def alignment_table(found: AlignedComparison) -> pd.DataFrame:
    """alignment.csv: one row a pair of heads, and in which circuits it is."""
    import pandas as pd

    rows = pd.DataFrame([asdict(pair) for pair in found.alignment.pairs])
    names = [f"{pair.first}~{pair.second}" for pair in found.alignment.pairs]
    for side, alone in (("first", found.heads.only_first), ("second", found.heads.only_second)):
        rows[f"in_{side}_circuit"] = [name in (*found.heads.shared, *alone) for name in names]
    return rows


def write_comparison(path: Path, done: Compared, *, force: bool) -> None:
    """Writes the whole folder, or nothing. Raises RunFolderError where the disk refuses."""
    from cli.page.comparison_page import folder_page
    from cli.page.page import write_page
    from cli.report.comparison import comparison_report

    record, pictures = done.record, dict(_pictures(done))
    report = comparison_report(record, done, tuple(pictures))
    with writing_run(path, force, RECORD) as folder:
        write_json(folder / RECORD, record)
        if done.found:
            write_table(folder / "overlap.csv", overlap_table(done.found))
        if len(done.sides) == 2 and not done.aligned:
            write_table(folder / MEMBERS, members_table(done.sides[0], done.sides[1], done.found))
        if done.aligned:
            write_table(folder / "alignment.csv", alignment_table(done.aligned))
        if done.journeys:
            write_table(folder / "transfer.csv", transfer_table(done.journeys))
        write_text(folder / "report.md", report)
        for name, content in pictures.items():
            (folder / name).write_bytes(content)
        write_page(folder_page(folder))


def transfer_table(journeys: Sequence[Journey]) -> pd.DataFrame:
    """transfer.csv: one row a circuit and place."""
    import pandas as pd

    return pd.DataFrame([_journey(journey) for journey in journeys])


def _pictures(done: Compared) -> Iterator[tuple[str, bytes]]:
    from cli.report.figure import png, svg

    if done.journeys:
        from cli.report.transfer import transfer_matrix

        yield "transfer.png", png(transfer_matrix(done.journeys, "Circuits on each other's tasks"))
    sides = done.sides
    if len(sides) > 2:
        yield from _matrices(tuple(side.name for side in sides), done.found)
        return
    if done.aligned:
        name, picture = "alignment", _aligned(sides[0], sides[1], done.aligned)
    else:
        picture = _two(*sides) if len(sides) == 2 else _with_reference(sides[0], done.matches[0])
        name = "overlay"
    yield f"{name}.png", png(picture)
    yield f"{name}.svg", svg(picture)


def _aligned(first: Side, second: Side, found: AlignedComparison) -> Figure:
    from cli.report.alignment import Column, alignment_picture

    columns = (
        Column(side.name, side.scored.graph, frozenset(side.scored.circuit.heads)) for side in (first, second)
    )
    return alignment_picture(next(columns), next(columns), found.alignment)


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
