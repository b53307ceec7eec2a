"""What `circuit evaluate` says in the terminal when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cli.evaluation_words import (
    completeness_words,
    curve_words,
    elsewhere_words,
    faithfulness_words,
    minimality_words,
    size_words,
    stability_words,
    test_lines,
)
from cli.render import say, table, warning
from cli.wording import baseline_line, number, unsolved_warning

if TYPE_CHECKING:
    from circuits.evaluation.appraisal import Appraisal
    from circuits.evaluation.faithfulness import Baseline
    from circuits.evaluation.run_evaluation import Judged


def show_evaluation(
    judged: tuple[Judged, ...], before: tuple[tuple[str, Baseline], ...], model: str, folder: Path
) -> None:
    """A table over all circuits, then each one's figures in words."""
    for task, itself in before:
        say(baseline_line(model, task, itself))
        if doubt := unsolved_warning(model, itself):
            warning(doubt)
    say("")
    _overview(judged)
    for entry in judged:
        say(f"\n{entry.recorded.circuit.method} keeps {size_words(entry)}")
        for found in entry.appraisals:
            _appraisal(found)
        for task, found in entry.elsewhere:
            say(f"  {elsewhere_words(task, found)}")
        say(f"  {stability_words(entry.redrawn)}")
    say(
        f"\nWritten to {folder}: report.html (open it in a browser), evaluation.md, evaluation.json and pictures."
    )


def _overview(judged: tuple[Judged, ...]) -> None:
    several = len({found.verdict.ablation for entry in judged for found in entry.appraisals}) > 1
    rows = [
        (
            entry.recorded.circuit.method + (f", {found.verdict.ablation}" if several else ""),
            len(entry.recorded.circuit.kept),
            number(found.verdict.faithfulness.value),
            number(found.curves.cpr.value) if found.curves else "",
            number(found.curves.cmd.value) if found.curves else "",
            number(found.completeness.mean_gap.value) if found.completeness else "",
            number(entry.redrawn.stability.jaccard) if entry.redrawn.stability else "",
        )
        for entry in judged
        for found in entry.appraisals
    ]
    header = ("circuit", "kept", "faithful", "CPR", "CMD", "gap", "Jaccard")
    table(header, rows, numeric=header[1:])


def _appraisal(found: Appraisal) -> None:
    say(f"  {faithfulness_words(found)}")
    if found.curves:
        say(f"  {curve_words(found.curves)}")
    if found.completeness:
        say(f"  {completeness_words(found.completeness)}")
    if found.minimality:
        say(f"  {minimality_words(found.minimality)}")
    for line in test_lines(found):
        say(f"  {line}")
