"""Logit attribution as a waterfall, on a page; see cli.waterfall for its bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bokeh.models import ColumnDataSource, FactorRange, LinearColorMapper
from bokeh.transform import transform

from cli.page.plot import LIGHT, Plot, hover, plain, sheet
from cli.waterfall import Step, steps

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

MOST = 22


def waterfall_plot(
    name: str, title: str, components: Mapping[str, float], outside: Mapping[str, float], most: int = MOST
) -> Plot:
    """From the top down, as a list is read; the last bar is the sum."""
    bars = steps(components, outside, most)
    total = Step("logit difference", 0.0, sum(bar.value for bar in bars))
    rows = FactorRange(factors=[plain(bar.name) for bar in (total, *reversed(bars))])
    drawn = sheet(22 * (len(bars) + 1) + 60, y_range=rows)
    drawn.xaxis.axis_label = "logits, answer above distractor"
    drawn.ygrid.visible = False
    _draw(drawn, [*bars, total])
    largest = sorted(bars, key=lambda bar: -abs(bar.value))[:3]
    text = f"The parts sum to {total.value:.3g}; the largest are "
    caption = (
        "Each bar begins where the one before it ended. Blue pushes towards the answer, red towards the distractor; "
        "grey is the sum of all parts."
    )
    named = ", ".join(f"{bar.name} {bar.value:+.3g}" for bar in largest)
    return Plot(name, (drawn,), title, caption, f"{text}{named}.", widest=760)


def _draw(drawn: Figure, bars: Sequence[Step]) -> None:
    ends = [0.0, *(bar.end for bar in bars)]
    room = max(ends) - min(ends)
    drawn.x_range.update(start=min(ends) - 0.05 * room, end=max(ends) + 0.22 * room)  # for the words
    whole = len(bars) - 1
    source = ColumnDataSource(
        {
            "name": [plain(bar.name) for bar in bars],
            "start": [min(bar.start, bar.end) for bar in bars],
            "end": [max(bar.start, bar.end) for bar in bars],
            "sign": [0 if i == whole else 1 if bar.value >= 0 else -1 for i, bar in enumerate(bars)],
            "words": [
                f"{bar.value:.3g}" if i == whole else f"{bar.value:+.3g}" for i, bar in enumerate(bars)
            ],
        }
    )
    mapper = LinearColorMapper(palette=list(LIGHT["sign"]), low=-1.5, high=1.5, tags=["sign"])
    colour = transform("sign", mapper)
    boxes = drawn.hbar(
        "name", left="start", right="end", height=0.7, source=source, line_color=None, fill_color=colour
    )
    look: dict[str, Any] = {"x_offset": 5, "text_baseline": "middle", "text_font_size": "11px"}
    drawn.text("end", "name", text="words", source=source, **look).glyph.tags = ["ink"]
    drawn.add_tools(hover([boxes], {"part": "@name", "adds": "@words"}))
