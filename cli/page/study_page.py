"""The page of a study: its report, with every comparison of more than two circuits as a matrix.

The one idea: the page holds what is said over all; each circuit and comparison has a page of its own, to which the
tables lead, so it stays small however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.records import read_json
from cli.comparison_output import RECORD as COMPARISON
from cli.page.comparison_matrices import LEVEL, above_chance, finest
from cli.page.comparison_page import few, matrices
from cli.page.page import Page
from cli.page.plot import Plot, shortened
from cli.wording import number

Entry = Mapping[str, Any]
RECORD, OVERVIEW = "study.json", "overview.png"


def folder_page(folder: Path) -> Page:
    record = read_json(folder / RECORD)
    words = (folder / "report.md").read_text(encoding="utf-8")
    compared = [
        read_json(folder / step["folder"] / COMPARISON)
        for step in record["steps"]
        if step["kind"] == "comparison" and step["whole"]
    ]
    shown = [plot for i, held in enumerate(compared) for plot in _matrices(held, f"comparison-{i}-")]
    return Page(words, folder, verdict=list(verdict(record, compared)), plots={OVERVIEW: shown})


def _matrices(held: Entry, name: str) -> Iterator[Plot]:
    """What circuits share, then what they do on each other's tasks; of two circuits the tables say it all."""
    if len(held["runs"]) > 2:
        for _, plots in reversed(list(matrices(held, name))):
            yield from plots


def verdict(record: Entry, compared: Sequence[Entry]) -> Iterator[str]:
    """What was asked, what came out, and against what chance."""
    cells = record["cells"]
    axes = (("task", "task"), ("model", "model"), ("method", "method"), ("seed", "seed"))
    yield f"Circuits were sought {len(cells)} times: {'; '.join(_axis(record, *axis) for axis in axes)}."
    made = [cell for cell in cells if cell["whole"]]
    if made:
        values = sorted(cell["faithfulness"]["value"] for cell in made)
        clear = sum((cell["faithfulness"]["low"] or 0.0) > cell["random_median"] for cell in made)
        failed = f" ({len(cells) - len(made)} failed)" if len(made) < len(cells) else ""
        yield (
            f"Their faithfulness runs from {number(values[0])} to {number(values[-1])}, with a median of "
            f"{number(values[len(values) // 2])}{failed}; for {clear} of {len(made)} the 95% interval lies above the "
            "median random circuit of the same size."
        )
    if pairs := [pair for held in compared for pair in finest(held)]:
        yield (
            f"{sum(above_chance(pairs))} of {len(pairs)} compared pairs share more than random circuits with as many "
            f"in each layer would (Holm-corrected over all, p ≤ {LEVEL})."
        )


def _axis(record: Entry, axis: str, called: str) -> str:
    """2 models (plain-4l and plain-6l)."""
    values = list(dict.fromkeys(str(cell[axis]) for cell in record["cells"]))
    if axis == "model":
        values = [Path(value).name for value in values]
    if len(values) == 1:
        return f"{called} {shortened(values[0])}"
    return f"{len(values)} {called}s ({few(values)})"
