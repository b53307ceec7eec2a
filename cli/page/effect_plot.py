"""What an intervention did to the share of right answers: before, after, and what chance does, prompt sets apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import ColumnDataSource, Range1d

from cli.page.plot import OTHER, Plot, hover, labelled, sheet, shortened

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

Entry = Mapping[str, Any]
# These read on light and on dark ground.
_DONE, _PART, _CHANCE = "#4a90c8", "#8fb4cf", "#d98200"


@dataclass(frozen=True)
class Arm:
    """A row: the share of right answers with its interval, or one dot for each draw of a control."""

    label: str
    colour: str
    values: tuple[float, ...]
    low: float | None = None
    high: float | None = None


def effect_plot(name: str, title: str, result: Entry) -> Plot:
    """result: as intervention.json has it."""
    rows = list(arms(result))
    shown = "; ".join(f"{arm.label} {arm.values[0]:.1%}" for arm in rows if arm.low is not None)
    return Plot(
        name,
        (_figure(rows, result["effect"]["correct"]["before"]["value"]),),
        title,
        "Share of prompts on which the model says the answer first, with 95% intervals. Dashed: nothing done. Each "
        "orange dot is a draw of a control: what the same does with other heads, or elsewhere.",
        f"Right answers: {shown}. The tables of the report hold every figure.",
        widest=760,
    )


def arms(result: Entry) -> Iterator[Arm]:
    """From top to bottom."""
    correct = result["effect"]["correct"]
    yield _measured("nothing done", OTHER, correct["before"])
    if repair := result["repair"]:
        others = {head: found for head, found in repair["alone"].items() if [head] != result["heads"]}
        for head, found in others.items():
            yield _measured(f"{head} alone", _PART, found["correct"]["after"])
    if sweep := result["sweep"]:
        for factor, found in zip(sweep["factors"], sweep["judged"], strict=True):
            yield _measured(f"factor {factor:g}", _PART, found["correct"]["after"])
    yield _measured("the intervention", _DONE, correct["after"])
    for control in result["controls"]:
        changes = control["correct"]["changes"]
        shares = tuple(correct["before"]["value"] + change for change in changes)
        yield Arm(f"{control['kind']} ({len(changes)})", _CHANCE, shares)


def _measured(label: str, colour: str, found: Entry) -> Arm:
    return Arm(label, colour, (found["value"],), found["low"], found["high"])


def _figure(rows: list[Arm], before: float) -> Figure:
    drawn = sheet(
        26 * len(rows) + 70,
        y_range=Range1d(start=len(rows) - 0.4, end=-0.6),
        x_range=Range1d(start=-0.03, end=1.03),
    )
    drawn.yaxis.update(**labelled({float(i): shortened(arm.label, 34) for i, arm in enumerate(rows)}))
    drawn.yaxis.major_tick_line_color = None
    drawn.ygrid.visible = False
    drawn.xaxis.axis_label = "share of prompts answered right"
    drawn.segment(before, -0.6, before, len(rows) - 0.4, line_dash="dashed", line_width=1, line_color=OTHER)
    _draw(drawn, rows)
    return drawn


def _draw(drawn: Figure, rows: list[Arm]) -> None:
    known = [(i, arm) for i, arm in enumerate(rows) if arm.low is not None]
    ends: dict[str, Any] = {
        "y": [i for i, _ in known],
        "low": [arm.low for _, arm in known],
        "high": [arm.high for _, arm in known],
        "colour": [arm.colour for _, arm in known],
    }
    drawn.segment("low", "y", "high", "y", source=ColumnDataSource(ends), line_width=2, line_color="colour")
    dots = [(i, arm, value, dot) for i, arm in enumerate(rows) for dot, value in enumerate(arm.values)]
    spread = [
        np.linspace(-0.25, 0.25, len(arm.values))[dot] if len(arm.values) > 1 else 0.0
        for _, arm, _, dot in dots
    ]
    source = ColumnDataSource(
        {
            "x": [value for _, _, value, _ in dots],
            "y": [i + aside for (i, *_), aside in zip(dots, spread, strict=True)],
            "label": [arm.label for _, arm, _, _ in dots],
            "colour": [arm.colour for _, arm, _, _ in dots],
            "size": [9 if arm.low is not None else 5 for _, arm, _, _ in dots],
            "interval": ["" if a.low is None else f" [{a.low:.1%}, {a.high:.1%}]" for _, a, _, _ in dots],
        }
    )
    found = drawn.scatter("x", "y", source=source, size="size", color="colour")
    drawn.add_tools(hover([found], {"": "@label", "right": "@x{0.0%}@interval"}))


def later_plot(name: str, title: str, found: Entry) -> Plot:
    """found: the later heads, as intervention.json has them."""
    heads = [head for head in found["heads"] if head["score"] is not None]
    most = max(heads, key=lambda head: abs(head["attribution"]["change"]["value"]), default=None)
    words = f"{len(heads)} later heads"
    if most:
        words += f"; {most['name']} changes most, by {most['attribution']['change']['value']:.3g}"
    return Plot(
        name,
        (_later(heads),),
        title,
        "Across: the head's score in the run; up: by how much what it writes onto the logit difference changed, with "
        "95% intervals. Blue: in the run's circuit; grey: not.",
        f"{words}. The table of the report holds the largest.",
        widest=760,
    )


def _later(heads: list[Entry]) -> Figure:
    drawn = sheet(330)
    drawn.xaxis.axis_label, drawn.yaxis.axis_label = "score in the run", "change of logit attribution"
    changes = [head["attribution"]["change"] for head in heads]
    source = ColumnDataSource(
        {
            "x": [head["score"] for head in heads],
            **{end: [change[end] for change in changes] for end in ("value", "low", "high")},
            "head": [head["name"] for head in heads],
            "colour": [_DONE if head["member"] else OTHER for head in heads],
        }
    )
    drawn.segment("x", "low", "x", "high", source=source, line_color="colour")
    found = drawn.scatter("x", "value", source=source, size=8, color="colour")
    rows = {"head": "@head", "score": "@x{0.00}", "change": "@value{0.000} [@low{0.000}, @high{0.000}]"}
    drawn.add_tools(hover([found], rows))
    return drawn
