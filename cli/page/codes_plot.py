"""The codes of a head: on how many positives, and on how many negatives, a sparse autoencoder gives it each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bokeh.models import ColumnDataSource, FactorRange

from cli.page.plot import Control, Plot, hover, legend_above, sheet

POSITIVE, NEGATIVE = "#4a90c8", "#d98200"
MOST = 40
"""Codes of a head that are shown, the commonest first."""


def codes_plot(
    name: str, title: str, rows: Iterable[tuple[str, int, int, int]], heads: Iterable[str]
) -> Plot:
    """rows: head, code, positives, negatives. heads: those to choose from, the first shown first."""
    by_head: dict[str, list[tuple[int, int, int]]] = {head: [] for head in heads}
    for head, *row in rows:
        if head in by_head:
            by_head[head].append((row[0], row[1], row[2]))
    data = {
        head: sorted(codes, key=lambda c: (-c[1], c[2], c[0])) for head, codes in by_head.items() if codes
    }
    return Plot(
        name,
        (_figure(),),
        title,
        "Each column is a code of the autoencoder: up, the task's prompts that have it; down, negatives that do. "
        f"A head scores the codes that never stand below the line. The commonest {MOST} are shown.",
        f"Codes of {len(data)} heads on positives and negatives; the line above the figure counts them.",
        behaviour="codes",
        data={
            "heads": {head: codes[:MOST] for head, codes in data.items()},
            "all": {head: len(codes) for head, codes in data.items()},
            "alone": {head: sum(negatives == 0 for _, _, negatives in codes) for head, codes in data.items()},
        },
        controls=(Control("head", "head", {head: head for head in data}),),
        widest=860,
    )


def _figure() -> Any:
    drawn = sheet(260, x_range=FactorRange(factors=["0"]))
    drawn.xaxis.update(axis_label="code", major_label_orientation=1.2)
    drawn.yaxis.axis_label = "prompts"
    drawn.xgrid.visible = False
    nothing: dict[str, Any] = {"code": ["0"], "positives": [0], "negatives": [0], "below": [0]}
    source = ColumnDataSource(nothing, name="codes")
    up = drawn.vbar(
        "code", top="positives", width=0.8, source=source, color=POSITIVE, legend_label="positives"
    )
    down = drawn.vbar("code", top="below", width=0.8, source=source, color=NEGATIVE, legend_label="negatives")
    legend_above(drawn)
    rows = {"code": "@code", "positives": "@positives", "negatives": "@negatives"}
    drawn.add_tools(hover([up, down], rows))
    return drawn
