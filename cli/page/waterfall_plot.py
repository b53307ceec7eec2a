"""Logit attribution as a waterfall: what each component writes onto the logit difference, from nothing to the whole.

The one idea: the parts sum to the whole, so each bar begins where the one before it ended. The largest are shown, in
the order in which the model writes; the others are taken together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bokeh.models import ColumnDataSource, FactorRange, LinearColorMapper
from bokeh.transform import transform

from cli.page.plot import LIGHT, Plot, hover, plain, sheet

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

MOST = 22


@dataclass(frozen=True)
class Step:
    """A bar from `start` to `end`. sign: 1 supports, -1 opposes, 0 for the whole."""

    name: str
    start: float
    end: float
    sign: int

    @property
    def words(self) -> str:
        return f"{self.end - self.start:+.3g}" if self.sign else f"{self.end:.3g}"


def steps(
    scores: Mapping[str, float], beside: Mapping[str, float], total: float, most: int = MOST
) -> list[Step]:
    """scores: of the components, in the order in which they write; beside: the parts that are none, such as biases.

    The last step is `total`, from 0; what the parts leave of it would show as a bar of its own.
    """
    shown = set(sorted(scores, key=lambda name: -abs(scores[name]))[:most])
    parts = {**beside, **{name: value for name, value in scores.items() if name in shown}}
    if len(scores) > len(shown):
        parts[f"{len(scores) - len(shown)} others"] = sum(v for n, v in scores.items() if n not in shown)
    return list(_stacked(parts, total))


def _stacked(parts: Mapping[str, float], total: float) -> Iterator[Step]:
    at = 0.0
    for name, value in parts.items():
        yield Step(name, at, at + value, 1 if value >= 0 else -1)
        at += value
    if abs(total - at) > 0.005 * (abs(total) or 1.0):
        yield Step("not accounted for", at, total, 1 if total >= at else -1)
    yield Step("logit difference", 0.0, total, 0)


def waterfall_plot(name: str, title: str, bars: Sequence[Step]) -> Plot:
    """From the top down, as a list is read."""
    drawn = sheet(
        22 * len(bars) + 60, y_range=FactorRange(factors=[plain(bar.name) for bar in reversed(bars)])
    )
    drawn.xaxis.axis_label = "logits, answer above distractor"
    drawn.ygrid.visible = False
    _draw(drawn, bars)
    largest = sorted(bars[:-1], key=lambda bar: -abs(bar.end - bar.start))[:3]
    text = f"The parts sum to {bars[-1].words}; the largest are " + ", ".join(
        f"{b.name} {b.words}" for b in largest
    )
    caption = (
        "Each bar begins where the one before it ended. Blue pushes towards the answer, red towards the distractor; "
        "grey is the sum of all parts."
    )
    return Plot(name, (drawn,), title, caption, text + ".", widest=760)


def _draw(drawn: Figure, bars: Sequence[Step]) -> None:
    reach = max(max(bar.start, bar.end) for bar in bars)
    least = min(0.0, *(min(bar.start, bar.end) for bar in bars))
    drawn.x_range.update(
        start=least - 0.05 * (reach - least), end=reach + 0.22 * (reach - least)
    )  # for the words
    source = ColumnDataSource(
        {
            "name": [plain(bar.name) for bar in bars],
            "start": [min(bar.start, bar.end) for bar in bars],
            "end": [max(bar.start, bar.end) for bar in bars],
            "sign": [bar.sign for bar in bars],
            "words": [bar.words for bar in bars],
        }
    )
    mapper = LinearColorMapper(palette=list(LIGHT["sign"]), low=-1.5, high=1.5, tags=["sign"])
    boxes = drawn.hbar(
        "name", left="start", right="end", height=0.7, source=source, line_color=None,
        fill_color=transform("sign", mapper),
    )  # fmt: skip
    words = drawn.text(
        "end", "name", text="words", source=source, x_offset=5, text_baseline="middle", text_font_size="11px"
    )
    words.glyph.tags = ["ink"]
    drawn.add_tools(hover([boxes], {"part": "@name", "adds": "@words"}))
