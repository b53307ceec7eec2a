"""Two circuits laid over one another: what they share, and what either keeps alone, in three colours.

The one idea: one layout for the union of both, so that a node stands in one place whoever keeps it. Colours:
ColorBrewer's Dark2, safe for colour-blind readers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from matplotlib.colors import to_rgba

from circuits.circuit import Circuit, ends
from circuits.graph import Graph
from cli.report.drawing import draw_curves, draw_layers, draw_node, page
from cli.report.figure import paper_style
from cli.report.layout import Link, curve, extent, layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARED, ONLY_FIRST, ONLY_SECOND = "#1b9e77", "#d95f02", "#7570b3"
Name = TypeVar("Name", str, Link)
_ALWAYS = (0.93, 0.93, 0.93, 1.0)
_MOST_LINKS = 400


def overlay(graph: Graph, first: Circuit, second: Circuit, names: tuple[str, str], title: str = "") -> Figure:
    """Both circuits in one picture. Links are those of edge circuits; nodes alone imply every link between them."""
    nodes = _sides(first.nodes, second.nodes)
    links = _sides(map(ends, first.edges or ()), map(ends, second.edges or ()))
    drawn = _shown(links)
    placed = layout(graph, nodes, drawn)
    curves = {link: curve(placed, link) for link in drawn}
    with paper_style():
        figure, axes, key = page(
            placed, extent(placed, curves.values()), title, _legend(links, drawn, first, second)
        )
        _key(key, names)
        draw_layers(axes, placed)
        for order, colour in enumerate((ONLY_SECOND, ONLY_FIRST, SHARED)):  # what is shared lies on top
            mine = [curves[link] for link in drawn if links[link] == colour]
            draw_curves(axes, mine, edgecolor=colour, lw=0.8, alpha=0.7, zorder=1 + order / 4)
        for name in placed.places:
            draw_node(axes, placed, name, to_rgba(nodes[name]) if name in nodes else _ALWAYS)
    return figure


def _sides(first: Iterable[Name], second: Iterable[Name]) -> dict[Name, str]:
    """The colour of each name that either holds."""
    a, b = dict.fromkeys(first), dict.fromkeys(second)
    return {x: SHARED if x in a and x in b else ONLY_FIRST if x in a else ONLY_SECOND for x in (a | b)}


def _shown(links: Mapping[Link, str]) -> tuple[Link, ...]:
    """As many as a picture can hold: all shared ones that fit, then as many of either side."""
    seen: Counter[str] = Counter()
    turn = {}
    for link, colour in links.items():
        seen[colour] += 1
        turn[link] = (colour != SHARED, seen[colour])
    return tuple(sorted(links, key=turn.__getitem__)[:_MOST_LINKS])


def _legend(
    links: Mapping[Link, str], drawn: tuple[Link, ...], first: Circuit, second: Circuit
) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    if any(c.heads for c in (first, second)) and any(c.mlps for c in (first, second)):
        notes += ("round: head, square: MLP",)
    if links:
        notes += ("a link stands for all edges between two nodes",)
    if len(drawn) < len(links):
        notes += (f"{len(drawn)} of {len(links):,} links are drawn, shared ones first",)
    return notes


def _key(axes: Axes, names: tuple[str, str]) -> None:
    """Three lines of colour and meaning, from where a colour bar would stand."""
    axes.set_axis_off()
    lines = (("both", SHARED), (f"{names[0]} alone", ONLY_FIRST), (f"{names[1]} alone", ONLY_SECOND))
    for i, (words, colour) in enumerate(lines):
        axes.annotate(
            words,
            (0, 1),
            (0, -9 * i),
            textcoords="offset points",
            size=6.5,
            weight="bold",
            color=colour,
            va="center",
        )
