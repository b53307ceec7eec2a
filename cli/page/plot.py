"""A plot of a page: bokeh figures, what they are called, and what they say to those who cannot see them.

The one idea: Python draws, and says by tags what a colour means; page.js paints them for light and dark and moves
what moves. Text of prompts reaches bokeh through `plain` alone: bokeh sets what stands between dollars as a formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import BasicTicker, FixedTicker, HoverTool, LinearColorMapper
from bokeh.models.annotations import ColorBar
from bokeh.plotting import figure
from markupsafe import Markup

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812
    from jaxtyping import Float

SUPPORTS, OPPOSES, OTHER = "#2166ac", "#b2182b", "#8a8a8a"
SIDES = ("#1b9e77", "#d95f02", "#7570b3", "#b4bac1")
"""Both, the first alone, the second alone, neither: ColorBrewer's Dark2 (on dark ground near its Set2)."""
WORD_JOINER = "\u2060"


@dataclass(frozen=True)
class Control:
    """A native control above a plot: a choice, a slider or a button.

    name: how page.js knows it; options: value -> label of a choice; the slider's steps are counted from 0.
    """

    name: str
    label: str
    options: Mapping[str, str] = field(default_factory=dict)
    steps: int = 0
    start: int = 0


@dataclass(frozen=True)
class Plot:
    """Figures that stand together.

    name: unique on the page. title: task, model, method, n. caption: legend, sign and unit. text: what the picture
    shows, in words. behaviour: the function of page.js that makes it move, given `data`. widest: pixels above which
    it does not grow; least: pixels below which it scrolls sideways.
    """

    name: str
    figures: tuple[Figure, ...]
    title: str
    caption: str
    text: str
    behaviour: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    table: Markup | None = None
    widest: int = 960
    least: int = 300


def plain(text: object) -> str:
    """Text that bokeh sets as it stands."""
    words = str(text)
    for mark in ("$", "\\"):  # of the delimiters of formulas: $$, \( and \[
        words = words.replace(mark, mark + WORD_JOINER)
    return words


def shortened(text: str, most: int = 48) -> str:
    """Text that fits: its beginning and its end, for names of runs differ at either."""
    if len(text) <= most:
        return text
    return f"{text[: most - most // 3 - 1]}…{text[-(most // 3) :]}"


def sheet(height: int, **settings: Any) -> Figure:
    """An empty figure as wide as the page gives it, without tools that steal the scrolling of a page."""
    look: dict[str, Any] = {
        "height": height,
        "sizing_mode": "stretch_width",
        "tools": "",
        "toolbar_location": None,
        "background_fill_color": None,
        "border_fill_color": None,
        "outline_line_color": None,
    }
    drawn = figure(**(look | settings))
    drawn.grid.grid_line_width = 0.5
    for axis in drawn.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
        axis.minor_tick_line_color = None
    return drawn


def ground(reach: float, signed: bool) -> LinearColorMapper:
    """Colours of cells: about zero where scores have signs, from zero where they count. page.js has the palettes."""
    palette = LIGHT["diverging" if signed else "sequential"]
    return LinearColorMapper(
        palette=list(palette),
        low=-reach if signed else 0.0,
        high=reach,
        nan_color="rgba(128,128,128,0.15)",
        tags=["diverging" if signed else "sequential"],
    )


def colour_bar(mapper: LinearColorMapper, title: str) -> ColorBar:
    return ColorBar(
        color_mapper=mapper,
        title=plain(title),
        orientation="horizontal",
        ticker=BasicTicker(desired_num_ticks=5),
        height=8,
        width=220,
        padding=4,
        title_text_font_style="normal",
        title_text_font_size="12px",
        major_label_text_font_size="11px",
        background_fill_color=None,
        bar_line_color=None,
        major_tick_line_color=None,
        location="left",
    )


def legend_above(drawn: Figure) -> None:
    """Puts the legend where it covers nothing."""
    legend = drawn.legend[0]
    drawn.add_layout(legend, "above")
    legend.update(
        orientation="horizontal",
        location="left",
        label_text_font_size="11px",
        padding=2,
        spacing=12,
        border_line_color=None,
        background_fill_color=None,
    )


def hover(renderers: list[Any], rows: Mapping[str, str], **settings: Any) -> HoverTool:
    """A tool tip: label -> value in bokeh's notation; bokeh escapes what it fills in."""
    return HoverTool(renderers=renderers, tooltips=list(rows.items()), **settings)


def labelled(labels: Mapping[float, str]) -> dict[str, Any]:
    """Settings of an axis that has these labels alone."""
    shown = {place: plain(label) for place, label in labels.items()}
    return {"ticker": FixedTicker(ticks=list(shown)), "major_label_overrides": shown}


def reach_of(values: np.ndarray) -> float:
    """The largest size among the values, 1 where there is none above 0."""
    known = np.abs(values[np.isfinite(values)])
    return float(known.max(initial=0.0)) or 1.0


def inks(values: Float[np.ndarray, " cell"], mapper: LinearColorMapper) -> tuple[list[str], list[str]]:
    """The colours of text on cells of these values, in the light and in the dark."""
    signed = "diverging" in mapper.tags
    reach = float(mapper.high)  # type: ignore[arg-type]
    strong = np.nan_to_num(np.abs(values) / reach)
    light = np.where(strong > (0.75 if signed else 0.5), "#ffffff", "#1c1f23")
    dark = np.where(strong > (0.6 if signed else 0.5), "#10131a", "#ffffff")
    return light.tolist(), dark.tolist()


def _blend(stops: tuple[tuple[int, int, int], ...], n: int = 64) -> tuple[str, ...]:
    """A palette through the colours of `stops`, evenly apart."""
    at = np.linspace(0, len(stops) - 1, n)
    channels = [np.interp(at, range(len(stops)), channel) for channel in zip(*stops, strict=True)]
    return tuple(f"#{int(r):02x}{int(g):02x}{int(b):02x}" for r, g, b in zip(*channels, strict=True))


# Red to blue and violet are ColorBrewer's RdBu and BuPu, safe for colour-blind readers; on dark ground their middle,
# and the least of a count, is dark as well.
LIGHT = {
    "diverging": _blend(((178, 24, 43), (244, 165, 130), (247, 247, 247), (146, 197, 222), (33, 102, 172))),
    "sequential": _blend(((247, 252, 253), (191, 211, 230), (140, 150, 198), (136, 65, 157), (77, 0, 75))),
    "sign": (OPPOSES, OTHER, SUPPORTS),
    "sides": SIDES,
}
DARK = {
    "diverging": _blend(((255, 140, 120), (165, 70, 60), (38, 42, 48), (45, 100, 150), (120, 190, 245))),
    "sequential": _blend(((38, 42, 48), (80, 72, 120), (130, 100, 175), (185, 140, 220), (240, 215, 255))),
    "sign": ("#ff8c78", "#8a9099", "#78bef5"),
    "sides": ("#66c2a5", "#fc9a6a", "#a5a6d8", "#5b636d"),
}
