"""`circuit compare`: how much circuits share, and how much chance would give; from run folders alone, but where heads
of models of different shape are to be aligned, or circuits to be tried on each other's tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from circuits.comparison.aligned import AlignedComparison
    from circuits.comparison.pairwise import Comparison
    from circuits.evaluation.transfer import Journey
    from cli.comparing import Compared

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
    align: Annotated[
        str,
        typer.Option(
            help="How components are matched: index (by name), behaviour (heads by what they do, which runs both "
            "models on the prompts of both runs), or auto: by index where the models have one shape.",
        ),
    ] = "auto",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the models are, once for all runs or for each, where any is needed; else as runs say."
        ),
    ] = None,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer",
            help="Also judge each circuit on the prompts of every run: whether what is shared does the same work.",
        ),
    ] = False,
    pairs: Annotated[
        int | None, typer.Option(min=2, help="For --transfer: the first N judged prompts of each run.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where models run, where any are needed; the same words as for discover.")
    ] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Seeds shuffles and redrawn circuits.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write; none if not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the comparison that stands there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print overlap.json, and nothing else.")] = False,
) -> None:
    """Compare circuits: what they share, and how much of that chance would give.

    [bold]circuit compare runs/ioi runs/colored-objects --output runs/overlap[/bold]

    [bold]circuit compare runs/ioi:activation-patching runs/ioi:sae[/bold]

    [bold]circuit compare runs/ioi-gpt2 --reference papers.json:ioi_wang2022[/bold]

    [bold]circuit compare runs/ioi-plain-4l runs/ioi-plain-6l --output runs/aligned[/bold]

    [bold]circuit compare runs/ioi runs/colored-objects runs/arithmetic --transfer[/bold]
    """
    from circuits.runs import check_output
    from cli.comparing import Request, compared
    from cli.comparison_output import RECORD
    from cli.render import progress

    if output is not None:
        check_output(output, force, RECORD)
    request = Request(
        tuple(runs),
        method,
        nodes,
        tuple(reference or ()),
        align,
        transfer,
        pairs,
        tuple(model or ()),
        device,
        seed,
    )
    with progress(quiet=json) as show:
        done = compared(request, show)
    if output is not None:
        done.write(output, force=force)
    if json:
        from circuits.records import json_text

        print(json_text(done.record), end="")
    else:
        _report(done, output)


def _report(done: Compared, output: Path | None) -> None:
    from cli.comparison_words import reference_words
    from cli.render import say

    if done.aligned:
        _show_alignment(done.aligned)
    _show(done.found, done.notes, len(done.sides) == 2)
    for match in done.matches:
        say(reference_words(match))
    if done.journeys:
        _show_transfer(done.journeys)
    if output is not None:
        say(f"\nWritten to {output}: report.html (open it in a browser), report.md, their data and pictures.")


def _show_alignment(found: AlignedComparison) -> None:
    from cli.comparison_words import alignment_words, pair_words, without_effects_words
    from cli.render import say

    say(alignment_words(found.alignment))
    say(f"  {pair_words(found)}")
    say(f"  {without_effects_words(found)}")


def _show_transfer(journeys: Sequence[Journey]) -> None:
    from cli.comparison_words import TRANSFER, transfer_rows
    from cli.render import say, table

    header, rows = transfer_rows(journeys)
    say(f"\n{TRANSFER}")
    table(header, rows, numeric=header[1:])


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
    most = 5 if found.granularity == "edge" else 30
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
