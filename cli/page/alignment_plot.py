"""Two models head by head: a column each, depth upwards, and a line between heads that were matched.

The one idea: relative depth is the height in both columns, so a line that is not nearly level joins heads that sit
elsewhere. A click lights up a pair, and says what makes its similarity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import ColumnDataSource, LinearColorMapper, Range1d, TapTool
from bokeh.transform import transform

from circuits.graph import Graph
from cli.head_columns import head_heights, steps_of
from cli.page.overlay_plot import BOTH, FIRST, NEITHER, SECOND, keepers, legend
from cli.page.plot import SIDES, Control, Plot, hover, plain, sheet, shortened
from cli.wording import number

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

_STEP, _TALLEST, _LEGIBLE = 15.0, 3600.0, 9.0  # pixels
_FIGURES = ("similarity", "roles", "effects", "depth", "margin", "stability")
_OFFERED = 300

Pair = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One model: what its run is called, its shape, and the heads of its circuit."""

    name: str
    graph: Graph
    kept: frozenset[str]


def alignment_plot(name: str, title: str, columns: tuple[Column, Column], pairs: Sequence[Pair]) -> Plot:
    """pairs: as the record of the comparison has them."""
    sides = [_side(pair, columns) for pair in pairs]
    similar = [pair["similarity"] for pair in pairs]
    reach = f"{number(min(similar))} (thin) to {number(max(similar))} (wide)" if pairs else "none"
    both = sides.count(BOTH)
    words = f"{len(pairs)} pairs of heads, {both} of them in both circuits"
    first, second = (shortened(column.name) for column in columns)
    return Plot(
        name,
        (_figure(columns, pairs, sides),),
        title,
        f"Left: heads of {first}; right: heads of {second}; height: relative depth. A line joins matched heads; "
        f"width: similarity, {reach}; pale: seldom matched when prompts are drawn anew. Filled dots: in that run's "
        "circuit. Green: in both circuits; orange and violet: in one alone; grey: in neither.",
        f"{words}. The table of the report lists them with every figure.",
        behaviour="alignment",
        data={"words": words},
        controls=(
            Control(
                "show",
                "show",
                {"": "all pairs", "0": "those in both circuits", "any": "those in either circuit"},
            ),
            Control(
                "pair", "pair", {"": "any", **{str(i): _called(p) for i, p in enumerate(pairs[:_OFFERED])}}
            ),
        ),
        widest=760,
        least=320,
    )


def _called(pair: Pair) -> str:
    return f"{pair['first']} and {pair['second']}"


def _side(pair: Pair, columns: tuple[Column, Column]) -> int:
    kept = pair["first"] in columns[0].kept, pair["second"] in columns[1].kept
    return {(True, True): BOTH, (True, False): FIRST, (False, True): SECOND}.get(kept, NEITHER)


def _figure(columns: tuple[Column, Column], pairs: Sequence[Pair], sides: Sequence[int]) -> Figure:
    steps = max(steps_of(column.graph) for column in columns)
    tall = min(steps * _STEP, _TALLEST)
    drawn = sheet(
        int(tall + 90),
        x_range=Range1d(start=-0.32, end=1.32),
        y_range=Range1d(start=-0.02, end=1.02 + 30 / tall),
    )
    drawn.grid.visible = drawn.axis.visible = False
    mapper = LinearColorMapper(palette=list(SIDES), low=-0.5, high=3.5, tags=["sides"])
    left = head_heights(columns[0].graph, 1 / steps, {})
    wished = {pair["second"]: left[pair["first"]] for pair in pairs}
    places = (left, head_heights(columns[1].graph, 1 / steps, wished))
    lines = _draw_pairs(drawn, pairs, sides, places, mapper)
    dots = _draw_heads(drawn, columns, pairs, places, mapper, tall / steps >= _LEGIBLE)
    drawn.add_tools(TapTool(renderers=[lines, dots]))
    for x, column in enumerate(columns):
        top = 1.0 + 22 / tall
        words = drawn.text(
            [x], [top], [plain(shortened(column.name, 28))], text_align="center", text_font_size="13px"
        )
        words.glyph.update(text_font_style="bold", text_baseline="middle", tags=["ink"])
    legend(drawn, keepers(columns[0].name, columns[1].name), mapper)
    return drawn


def _draw_pairs(
    drawn: Figure,
    pairs: Sequence[Pair],
    sides: Sequence[int],
    places: tuple[Mapping[str, float], Mapping[str, float]],
    mapper: LinearColorMapper,
) -> Any:
    similar = np.array([pair["similarity"] for pair in pairs])
    ends = (similar.min(), max(similar.max(), similar.min() + 1e-9)) if len(pairs) else (0.0, 1.0)
    pale = [round(0.25 + 0.7 * pair["stability"], 2) for pair in pairs]
    source = ColumnDataSource(
        name="pairs",
        data={
            "left": [places[0][pair["first"]] for pair in pairs],
            "right": [places[1][pair["second"]] for pair in pairs],
            "side": list(sides),
            "width": np.interp(similar, ends, (0.8, 6.0)).round(2).tolist(),
            "strength": pale,
            "alpha": pale,
            "called": [_called(pair) for pair in pairs],
            "figures": [", ".join(_figures(pair)) for pair in pairs],
        },
    )
    look: dict[str, Any] = {
        "line_color": transform("side", mapper),
        "line_width": "width",
        "line_cap": "round",
    }
    for part in ("line_alpha", "nonselection_line_alpha", "selection_line_alpha"):
        look[part] = "alpha"
    lines = drawn.segment(0.03, "left", 0.97, "right", source=source, **look)
    drawn.add_tools(hover([lines], {"pair": "@called", "": "@figures"}, line_policy="interp"))
    return lines


def _figures(pair: Pair) -> Iterator[str]:
    yield from (f"{name} {number(pair[name])}" for name in _FIGURES if pair.get(name) is not None)


def _draw_heads(
    drawn: Figure,
    columns: tuple[Column, Column],
    pairs: Sequence[Pair],
    places: tuple[Mapping[str, float], Mapping[str, float]],
    mapper: LinearColorMapper,
    legible: bool,
) -> Any:
    heads = [(x, head, y) for x, found in enumerate(places) for head, y in found.items()]
    matched = {
        (x, pair[side]): i for i, pair in enumerate(pairs) for x, side in enumerate(("first", "second"))
    }
    kept = [head in columns[x].kept for x, head, _ in heads]
    source = ColumnDataSource(
        name="heads",
        data={
            "x": [x for x, _, _ in heads],
            "y": [y for _, _, y in heads],
            "at": [x + (0.03 if x else -0.03) for x, _, _ in heads],
            "side": [
                (SECOND if x else FIRST) if k else NEITHER for (x, _, _), k in zip(heads, kept, strict=True)
            ],
            "fill": [1.0 if k else 0.0 for k in kept],
            "head": [head for _, head, _ in heads],
            "run": [columns[x].name for x, _, _ in heads],
            "align": ["left" if x else "right" for x, _, _ in heads],
            "pair": [matched.get((x, head), -1) for x, head, _ in heads],
            "told": ["in the circuit" if k else "not in the circuit" for k in kept],
            "alpha": [1.0] * len(heads),
        },
    )
    look: dict[str, Any] = {"fill_color": transform("side", mapper), "line_color": transform("side", mapper)}
    for part in ("", "nonselection_", "selection_"):
        look |= {f"{part}fill_alpha": "fill", f"{part}line_alpha": "alpha"}
    dots = drawn.scatter("x", "y", size=8, source=source, **look)
    if legible:
        alpha: dict[str, Any] = {"text_alpha": "alpha", "nonselection_text_alpha": "alpha"}
        words = drawn.text(
            "at", "y", "head", source=source, text_align="align", text_font_size="11px", **alpha
        )
        words.glyph.update(text_baseline="middle", tags=["ink"])
    drawn.add_tools(hover([dots], {"head": "@head of @run", "": "@told"}))
    return dots
