"""Faithfulness against the size of a circuit: the first n of a ranking, the chosen circuit, random ones beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bokeh.models import ColumnDataSource, NumeralTickFormatter

from cli.page.picture import Chosen, Picture
from cli.page.plot import hover, legend_above, sheet

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

# These read on light and on dark ground.
RANKING, CHOSEN, CHANCE = "#4a90c8", "#d98200", "#8a8a8a"
_MANY = 200


def size_curve(picture: Picture) -> Figure:
    """The marker, a source called "marker", stands at the size that the graph above shows."""
    chosen = picture.chosen
    drawn = sheet(230, x_axis_type="log" if chosen.of > _MANY else "linear")
    drawn.xaxis.axis_label = f"{chosen.what} kept, of {chosen.of:,}"
    drawn.yaxis.axis_label = "faithfulness"
    drawn.xgrid.visible = False
    if chosen.of > _MANY:
        drawn.xaxis.formatter = NumeralTickFormatter(format="0,0")
    _ranking(drawn, picture)
    _chosen(drawn, chosen)
    legend_above(drawn)
    return drawn


def _ranking(drawn: Figure, picture: Picture) -> None:
    known = [(s.n, s.faithfulness, s.low, s.high) for s in picture.stops if s.faithfulness is not None]
    source = ColumnDataSource(
        {
            "n": [n for n, *_ in known],
            "faithfulness": [value for _, value, *_ in known],
            "low": [value if low is None else low for _, value, low, _ in known],
            "high": [value if high is None else high for _, value, _, high in known],
        }
    )
    drawn.varea("n", "low", "high", source=source, fill_alpha=0.2, fill_color=RANKING)
    drawn.line("n", "faithfulness", source=source, line_width=2, line_color=RANKING)
    dots = drawn.scatter("n", "faithfulness", source=source, size=5, color=RANKING)
    rows = {"kept": "@n{0,0}", "faithfulness": "@faithfulness{0.00} [@low{0.00}, @high{0.00}]"}
    drawn.add_tools(hover([dots], rows))


def _chosen(drawn: Figure, chosen: Chosen) -> None:
    at = [chosen.size]
    if chosen.random is not None:
        low, high = ([end] for end in chosen.random)
        words = "95% of random circuits of the chosen size"
        drawn.segment(at, low, at, high, line_width=9, line_color=CHANCE, line_alpha=0.75, legend_label=words)
    value = None
    if chosen.faithfulness is not None:
        value, *ends = chosen.faithfulness
        drawn.segment(at, ends[:1], at, ends[1:], line_width=3, line_color=CHOSEN)
    marker = ColumnDataSource({"n": at, "faithfulness": [value]}, name="marker")
    look: dict[str, Any] = {"size": 13, "marker": "diamond", "color": CHOSEN, "legend_label": "shown above"}
    drawn.scatter("n", "faithfulness", source=marker, **look)
