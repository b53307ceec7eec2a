"""Faithfulness over sizes by both orders of a ranking, with intervals, beside random rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bokeh.models import ColumnDataSource

from cli.page.plot import OTHER, Plot, hover, labelled, sheet
from cli.wording import number

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

Entry = Mapping[str, Any]
# These read on light and on dark ground, and apart for colour-blind readers.
_SIGNED, _ABSOLUTE = "#4a90c8", "#d98200"
_SHARES = {0.001: "0.1%", 0.01: "1%", 0.1: "10%", 1.0: "100%"}


def curves_plot(name: str, title: str, curves: Entry, what: str) -> Plot:
    """curves: as evaluation.json has them. what: edges or components."""
    random = curves["random"]
    cpr, cmd = curves["signed"]["cpr"], curves["absolute"]["cmd"]
    figures = (
        f"CPR {_estimate(cpr)} (random {number(random['cpr']['mean'])}), CMD {_estimate(cmd)} (random "
        f"{number(random['cmd']['mean'])})"
    )
    return Plot(
        name,
        (_figure(curves, what),),
        title,
        f"Each point keeps a share of all {what}, on a logarithmic axis: the largest scores first (blue), or the "
        f"largest sizes of score whatever their sign (orange). Bands are 95% intervals over {curves['n_prompts']} "
        f"prompts. Grey: mean and range of {random['n']} random rankings, on {random['n_prompts']}. {figures}.",
        f"Faithfulness over sizes: {figures}. The table of the report holds every point.",
        widest=760,
    )


def _estimate(found: Entry) -> str:
    return f"{number(found['value'])} [{number(found['low'])}, {number(found['high'])}]"


def _figure(curves: Entry, what: str) -> Figure:
    drawn = sheet(330, x_axis_type="log")
    drawn.xaxis.update(**labelled(_SHARES), axis_label=f"share of {what} kept")
    drawn.yaxis.axis_label = "faithfulness"
    drawn.xgrid.visible = False
    signed, absolute = curves["signed"]["points"], curves["absolute"]["points"]
    random = [
        {**at, "faithfulness": {"value": chance["mean"], **chance}}
        for at, chance in zip(signed, curves["random"]["points"], strict=True)
    ]
    _line(drawn, random, OTHER, "random rankings")
    _line(drawn, absolute, _ABSOLUTE, "largest sizes first")
    _line(drawn, signed, _SIGNED, "largest scores first")
    drawn.legend.location = "top_left"
    drawn.legend.label_text_font_size = "11px"
    drawn.legend.background_fill_alpha = 0.8
    return drawn


def _line(drawn: Figure, points: Sequence[Entry], colour: str, label: str) -> None:
    known = [point for point in points if point["faithfulness"]["value"] is not None]
    faith = [point["faithfulness"] for point in known]
    source = ColumnDataSource(
        {
            "share": [point["share"] for point in known],
            "n": [point["n"] for point in known],
            "value": [found["value"] for found in faith],
            **{
                end: [found["value"] if found[end] is None else found[end] for found in faith]
                for end in ("low", "high")
            },
        }
    )
    drawn.varea("share", "low", "high", source=source, fill_alpha=0.2, fill_color=colour)
    drawn.line("share", "value", source=source, line_width=2, line_color=colour)
    dots = drawn.scatter("share", "value", source=source, size=6, color=colour, legend_label=label)
    rows = {label: "@share{0.0%}, @n{0,0} kept", "faithfulness": "@value{0.00} [@low{0.00}, @high{0.00}]"}
    drawn.add_tools(hover([dots], rows))
