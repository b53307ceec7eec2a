"""What `circuit discover` says in the terminal when it is done: heatmap, top components, verdicts, folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cli.render import heatmap, say, table, top_components, warning
from cli.run_output import unit
from cli.wording import (
    audit_words,
    conclusions,
    finding_words,
    missed_words,
    p_value,
    reference_words,
    rounding_words,
)

if TYPE_CHECKING:
    from circuits.discovery import Discovery


def show_discovery(found: Discovery, folder: Path) -> None:
    """The findings of every method, the first one's scores in full, and where the rest lies."""
    first = found.findings[0]
    heatmap(found.graph, first.scores, first.circuit, unit=unit(first.scores))
    say("")
    top_components(first.ranked, first.circuit, unit=unit(first.scores))
    say("")
    if found.rounding is not None:
        (warning if found.rounding.matters else say)(rounding_words(found))
    for finding in found.findings:
        say(finding_words(finding))
        if finding.choice.note:
            say(f"  {finding.choice.note}")
        for line in (*reference_words(finding), *conclusions(finding.scores.details)):
            say(f"  {line}")
        if finding.audit is not None:
            say(f"  {audit_words(finding.audit)}")
        if finding.missed is not None:
            say(f"  {missed_words(finding.missed)}")
    _overlaps(found)
    say(
        f"\nWritten to {folder}: report.html (open it in a browser), report.md, circuit.svg and the data behind them."
    )


def _overlaps(found: Discovery) -> None:
    if not found.overlaps:
        return
    say("")
    table(
        ("largest scores of", "shared", "Jaccard", "by chance", "p"),
        [
            (
                f"{pair.first}, {pair.second}",
                f"{pair.overlap.shared} of {pair.overlap.first_size}",
                _number(pair.overlap.jaccard),
                _number(pair.overlap.chance_jaccard),
                p_value(pair.overlap.p_value),
            )
            for pair in found.overlaps
        ],
        title="Do the methods agree?",
        numeric=("Jaccard", "by chance", "p"),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
