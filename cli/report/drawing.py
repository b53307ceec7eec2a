"""A circuit as a layered picture: input at the bottom, logits on top, what is kept in between.

The one idea: shape says what a node is (round a head, square an MLP), colour says what it does (blue supports
the behaviour, red opposes it), and the width of a link how much flows through it. No Graphviz: layout.py
finds the places, matplotlib draws.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyBboxPatch
from matplotlib.path import Path

from circuits.circuit import Circuit
from circuits.graph import INPUT, LOGITS, Graph
from circuits.scores import Scores
from cli.report.figure import (
    INK,
    NOTES,
    PALE,
    PAPER,
    axes_at,
    blank,
    colour_bar,
    colours,
    ink_on,
    paper_style,
    write_lines,
)
from cli.report.layout import GRID, Curve, Layout, Link, curve, extent, layout, paper_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT, _RIGHT, _TOP, _BAR = 0.42, 0.12, 0.2, 0.5
_LINE = 0.13  # inches from one line of text to the next
_SMALLEST_WIDTH = 2.7
_MANY = 300
_SUPPORTS, _OPPOSES = "#2166ac", "#b2182b"
_CUBIC = (Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4)


def drawing(
    graph: Graph,
    circuit: Circuit,
    scores: Scores,
    links: Mapping[Link, float | None] | None = None,
    *,
    title: str = "",
    unit: str = "score",
    signed: bool | None = None,
    notes: tuple[str, ...] = (),
    width: float | None = None,
) -> Figure:
    """The circuit as a figure, nodes coloured by `scores`.

    links: (source, target) -> score, or None for a link that is there but was not measured (thin and grey).
        By default every legal link between the circuit's nodes, with its score where the method gives one.
    unit: what the colour bar says; signed: False for counts, None to tell by the values.
    notes: what to say below beside the legend. width: of the whole figure in inches; None: as the circuit asks for.
    """
    if links is None:
        links = {link: scores.links.get(link) for link in graph.links(circuit.nodes)}
    members = {INPUT, LOGITS, *circuit.nodes}
    links = {link: score for link, score in links.items() if members.issuperset(link)}
    grid = GRID if width is None else paper_grid(graph, circuit.nodes, width - _LEFT - _RIGHT)
    placed = layout(graph, circuit.nodes, links, grid)
    drawn, note = _thinned(placed, links)
    curves = {link: curve(placed, link) for link in drawn}
    signed = (
        bool((scores.values < 0).any()) if signed is None else signed
    )  # as in the heatmap of these scores
    value = dict(zip(scores.components, scores.values.tolist(), strict=True))
    scale = colours(np.array([value[name] for name in circuit.nodes if name in value]), signed)
    with paper_style():
        figure, axes, key = page(
            placed, extent(placed, curves.values()), title, _legend(circuit, drawn) + note + notes, width
        )
        colour_bar(figure, key, scale, unit, upright=False)
        draw_layers(axes, placed)
        _draw_links(axes, curves, drawn)
        for name in placed.places:
            fill = scale.to_rgba(value[name]) if name in value else (0.93, 0.93, 0.93, 1.0)
            draw_node(axes, placed, name, tuple(fill))
    return figure


def _thinned(
    placed: Layout, links: Mapping[Link, float | None]
) -> tuple[dict[Link, float | None], tuple[str, ...]]:
    """The links to draw: of a crowd of unmeasured ones, only those between neighbouring rows."""
    unmeasured = [link for link, score in links.items() if score is None]
    if len(unmeasured) <= _MANY:
        return dict(links), ()
    far = {
        (u, v) for u, v in unmeasured if placed.places[v][1] - placed.places[u][1] > 1.01 * placed.grid.row
    }
    note = f"{len(far):,} unmeasured links between distant rows are not drawn"
    return {link: score for link, score in links.items() if link not in far}, (note,)


def _legend(circuit: Circuit, links: Mapping[Link, float | None]) -> tuple[str, ...]:
    """What shapes and lines mean, as far as the picture has them."""
    measured = [abs(score) for score in links.values() if score is not None]
    lines: tuple[str, ...] = ("round: head, square: MLP",) if circuit.heads and circuit.mlps else ()
    if measured:
        lines += (f"blue and red links support and oppose, width by size (widest {max(measured):.2g})",)
    if len(measured) < len(links):
        lines += ("grey links: legal, not measured" if measured else "links: legal, not measured",)
    return lines


def page(
    placed: Layout,
    across: tuple[float, float],
    title: str,
    notes: tuple[str, ...],
    width: float | None = None,
) -> tuple[Figure, Axes, Axes]:
    """Title and notes around axes in inches: fonts and boxes have one size in every circuit.

    The second axes are for what the colours mean.
    """
    inner = max(across[1] - across[0], _SMALLEST_WIDTH) if width is None else width - _LEFT - _RIGHT
    title_lines = textwrap.wrap(title, int(inner / 0.068))
    note_lines = textwrap.wrap("; ".join(notes), int(inner / 0.044))
    bottom = 0.2 + _LINE * len(note_lines) + _BAR
    height, half = placed.height + placed.grid.node_height, placed.grid.node_height / 2
    figure = blank(_LEFT + inner + _RIGHT, bottom + height + _TOP + _LINE * len(title_lines))
    axes = axes_at(figure, _LEFT, bottom, inner, height)
    middle = sum(across) / 2
    axes.set_xlim(middle - inner / 2, middle + inner / 2)
    axes.set_ylim(-half, placed.height + half)
    axes.set_axis_off()
    write_lines(figure, (_LEFT, figure.get_figheight() - 0.08), title_lines, _LINE, size=8, weight="bold")
    write_lines(figure, (_LEFT, bottom - _BAR - 0.1), note_lines, _LINE, size=5.5, color=NOTES)
    return figure, axes, axes_at(figure, _LEFT, bottom - 0.22, min(1.5, inner / 2), 0.07)


def draw_layers(axes: Axes, placed: Layout) -> None:
    left = max(axes.get_xlim()[0], -placed.grid.margin)
    look: dict[str, Any] = {"size": 6, "color": PALE, "va": "center"}
    over = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}  # a curve may pass there
    for layer, y in placed.rows:
        axes.text(left - 0.12, y, f"{layer}", ha="right", bbox=over, **look)
    if placed.rows:
        axes.text(left - 0.32, placed.height / 2, "layer", ha="center", rotation=90, bbox=over, **look)


def _draw_links(axes: Axes, curves: Mapping[Link, Curve], links: Mapping[Link, float | None]) -> None:
    """Unmeasured links below, measured ones above them from weak to strong."""
    unmeasured = [link for link, score in links.items() if score is None]
    measured = {link: score for link, score in links.items() if score is not None}
    faint = float(np.clip(40 / max(len(unmeasured), 1), 0.3, 0.75))
    draw_curves(axes, [curves[link] for link in unmeasured], edgecolor=PALE, lw=0.4, alpha=faint, zorder=1)
    ranked = sorted(measured, key=lambda link: abs(measured[link]))
    sizes = np.array([abs(measured[link]) for link in ranked])
    share = sizes / (sizes.max(initial=0.0) or 1.0)
    sides = [_SUPPORTS if measured[link] >= 0 else _OPPOSES for link in ranked]
    tints = [to_rgba(side, 0.25 + 0.65 * s) for side, s in zip(sides, share.tolist(), strict=True)]
    draw_curves(axes, [curves[link] for link in ranked], edgecolor=tints, lw=0.3 + 2.0 * share, zorder=2)


def draw_curves(axes: Axes, curves: list[Curve], **look: Any) -> None:
    paths = [Path(np.array(bezier), _CUBIC) for bezier in curves]
    axes.add_collection(PathCollection(paths, facecolor="none", capstyle="round", clip_on=False, **look))


def draw_node(axes: Axes, placed: Layout, name: str, fill: tuple[float, ...]) -> None:
    """A box over a white halo, so that links seem to pass behind it."""
    (x, y), grid = placed.places[name], placed.grid
    corner = (x - grid.node_width / 2, y - grid.node_height / 2)
    shape = f"round,pad=0,rounding_size={grid.node_height / 2}" if name[0] == "a" else "square,pad=0"
    for face, edge, width, order in ((PAPER, PAPER, 2.4, 3), (fill, INK, 0.6, 4)):
        look: dict[str, Any] = {"boxstyle": shape, "fc": face, "ec": edge, "lw": width, "zorder": order}
        axes.add_patch(FancyBboxPatch(corner, grid.node_width, grid.node_height, clip_on=False, **look))
    axes.text(x, y - 0.004, name, size=grid.text, color=ink_on(fill), ha="center", va="center", zorder=5)
