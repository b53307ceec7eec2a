"""`circuit compare`: how much circuits share, and how much chance would give; from run folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from circuits.comparison.pairwise import Comparison

_SHOWN = 30
"""Pairs in the terminal's table; files hold them all."""


@guarded
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN ...", help="Run folders; RUN:METHOD names a circuit of one."),
    ],
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="Whose circuits; each run's first method if not given."),
    ] = None,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Compare nodes alone; of edge circuits those that edges touch.")
    ] = False,
    reference: Annotated[
        list[str] | None,
        typer.Option(help="A circuit that others report: a JSON file, or FILE:NAME; repeat for more."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds shuffles and redrawn circuits.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write; none if not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the comparison that stands there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print overlap.json, and nothing else.")] = False,
) -> None:
    """Compare circuits: what they share, by name, and how much of that chance would give.

    [bold]circuit compare runs/ioi runs/colored-objects --output runs/overlap[/bold]

    [bold]circuit compare runs/ioi:activation-patching runs/ioi:sae[/bold]

    [bold]circuit compare runs/ioi-gpt2 --reference papers.json:ioi_wang2022[/bold]
    """
    from circuits.comparison.pairwise import compare as compared
    from circuits.comparison.references import match_edges, match_reference, read_reference
    from circuits.comparison.sides import granularities, notes, read_sides
    from circuits.runs import check_output
    from cli.comparison_output import RECORD, comparison_record, write_comparison

    if output is not None:
        check_output(output, force, RECORD)
    known = [read_reference(text) for text in reference or ()]
    sides = read_sides(runs, method)
    kinds = granularities(sides, nodes) if len(sides) > 1 or not known else ()
    found = [pair for kind in kinds for pair in compared(sides, kind, seed)]
    pairs = [(side, entry) for entry in known for side in sides]
    matches = [m for pair in pairs for m in (match_reference(*pair), match_edges(*pair)) if m]
    remarks = notes(sides, kinds)
    record = comparison_record(sides, found, matches, remarks, seed)
    if output is not None:
        write_comparison(output, record, sides, found, matches, force=force)
    if json:
        from circuits.records import json_text

        print(json_text(record), end="")
        return
    from cli.comparison_words import reference_words
    from cli.render import say

    _show(found, remarks, len(sides) == 2)
    for match in matches:
        say(reference_words(match))
    if output is not None:
        say(f"\nWritten to {output}: report.md, overlap.json, overlap.csv and pictures.")


def _show(found: Sequence[Comparison], remarks: Sequence[str], pair: bool) -> None:
    from cli.render import warning

    for remark in remarks:
        warning(remark)
    if found and not pair:
        _show_pairs(found)
        return
    for entry in found:
        _show_pair(entry)


def _show_pair(found: Comparison) -> None:
    from cli.comparison_words import listed, overlap_words, ranking_words, share_words
    from cli.render import say

    say(overlap_words(found))
    say(f"  {share_words(found)}")
    say(f"  {ranking_words(found)}")
    most = 30 if found.granularity == "node" else 5
    say(f"  both: {listed(found.shared, most)}")
    say(f"  {found.first} alone: {listed(found.only_first, most)}")
    say(f"  {found.second} alone: {listed(found.only_second, most)}")
    if found.left_out:
        say(f"  left out, not scored by both: {listed(found.left_out, most)}")


def _show_pairs(found: Sequence[Comparison]) -> None:
    from cli.comparison_words import pair_cells
    from cli.render import note, table

    columns = ("first", "second", "of", "shared", "Jaccard", "chance", "p")
    rows = [pair_cells(entry) for entry in sorted(found, key=lambda entry: -(entry.overlap.jaccard or 0.0))]
    table(columns, rows[:_SHOWN], numeric=columns[3:])
    if len(rows) > _SHOWN:
        note(f"{len(rows) - _SHOWN:,} pairs of less overlap follow in overlap.csv (--output) and --json.")
