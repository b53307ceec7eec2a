"""Two circuits over one another in one graph: what both keep, and what either keeps alone.

The one idea: every node stands where it stands in a circuit's own picture, and one colour says who keeps it. The
colours are none of those that stand for a sign, and readers who are colour-blind tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import ColumnDataSource, LinearColorMapper, TapTool
from bokeh.models.annotations import Legend, LegendItem
from bokeh.transform import transform

from circuits.circuit import ends
from circuits.graph import INPUT, LOGITS, Graph
from cli.page.circuit_places import layers_sheet, least_width, lines, node_boxes, node_columns
from cli.page.circuit_plot import DASHES, spelled
from cli.page.page import macro
from cli.page.plot import SIDES, Control, Plot, hover, plain, shortened

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

BOTH, FIRST, SECOND, NEITHER = range(4)
MOST_LINES = 800
_FEW = 100
"""Lines that stand apart at full width."""
_OFFERED = 200
_INKS = ("#10131a", "#10131a", "#ffffff", "#1c1f23"), ("#10131a", "#10131a", "#10131a", "#ffffff")


@dataclass(frozen=True)
class Member:
    """A node or an edge. side: who keeps it, as in BOTH, FIRST, SECOND, NEITHER. scores: of both, where known."""

    name: str
    side: int
    scores: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Overlay:
    """names: what the circuits are called. nodes, edges: what either keeps; of node circuits there are no edges."""

    graph: Graph
    names: tuple[str, str]
    nodes: Sequence[Member]
    edges: Sequence[Member] = ()

    @property
    def keepers(self) -> tuple[str, ...]:
        return keepers(*self.names)

    def counted(self, members: Sequence[Member]) -> str:
        """12 by both, 3 by first alone, 4 by second alone."""
        counts = (sum(member.side == side for member in members) for side in (BOTH, FIRST, SECOND))
        return ", ".join(f"{n:,} by {who}" for n, who in zip(counts, self.keepers, strict=False))


def keepers(first: str, second: str) -> tuple[str, ...]:
    """Who keeps what is of each side."""
    return "both", f"{first} alone", f"{second} alone", "neither"


def overlay_plot(name: str, title: str, overlay: Overlay) -> Plot:
    """The graph with a choice of whose parts are shown; a click lights up the paths through a node."""
    edges = _drawn(overlay.edges)
    words = [f"Nodes kept: {overlay.counted(overlay.nodes)}"]
    if overlay.edges:
        words.append(f"edges kept: {overlay.counted(overlay.edges)}")
        if len(edges) < len(overlay.edges):
            words.append(f"the {len(edges)} largest are drawn")
    return Plot(
        name,
        (_graph(overlay, edges),),
        title,
        _caption(overlay),
        f"Two circuits in one graph. {'; '.join(words)}. The table below names them.",
        behaviour="overlay",
        data={"ends": [INPUT, LOGITS], "words": "; ".join(words)},
        controls=tuple(_controls(overlay)),
        table=_table(overlay, edges),
        least=least_width(overlay.graph),
    )


def _controls(overlay: Overlay) -> Iterator[Control]:
    shown = ("both circuits", "what both keep", *(shortened(f"{name} alone") for name in overlay.names))
    yield Control("show", "show", dict(zip(("", *map(str, (BOTH, FIRST, SECOND))), shown, strict=True)))
    if overlay.edges:
        some = [member.name for member in overlay.nodes[:_OFFERED]]
        yield Control("through", "paths through", {"": "any node", **{name: name for name in some}})


def _caption(overlay: Overlay) -> str:
    first, second = overlay.names
    words = (
        f"Boxes are heads (layer.head) and, square, MLPs. Green: in both; orange: in {first} alone; violet: in "
        f"{second} alone; faint: in neither."
    )
    if not overlay.edges:
        return words + " Nodes alone are compared, so no line is drawn."
    if any(score is not None for edge in overlay.edges for score in edge.scores):
        words += " Width: size of score, as a share of the largest of its circuit."
    return words + " A line enters a head at q (left, solid), k (middle, dashed) or v (right, dotted)."


def _drawn(edges: Sequence[Member]) -> list[tuple[Member, float]]:
    """The edges with their width's share, as many as a picture can hold: the largest of each side in turn."""
    sizes = np.array([[abs(score or 0.0) for score in edge.scores] for edge in edges]).reshape(-1, 2)
    largest = sizes.max(axis=0, initial=0.0)
    shares = (sizes / np.where(largest > 0, largest, 1.0)).max(axis=1, initial=0.0).tolist()
    by_size = sorted(zip(edges, shares, strict=True), key=lambda pair: -pair[1])
    turn, seen = {}, [0, 0, 0]
    for edge, _ in by_size:
        seen[edge.side] += 1
        turn[edge.name] = seen[edge.side]
    chosen = sorted(by_size, key=lambda pair: turn[pair[0].name])[:MOST_LINES]
    return sorted(chosen, key=lambda pair: (-pair[0].side, pair[1]))  # what both keep lies on top


def _graph(overlay: Overlay, edges: Sequence[tuple[Member, float]]) -> Figure:
    drawn = layers_sheet(overlay.graph)
    mapper = LinearColorMapper(palette=list(SIDES), low=-0.5, high=3.5, tags=["sides"])
    found = _draw_edges(drawn, overlay, edges, mapper)
    boxes = _draw_nodes(drawn, overlay, mapper)
    first, second = (plain(shortened(name, 24)) for name in overlay.names)
    rows = {first: "@first", second if second != first else "the other": "@second"}
    drawn.add_tools(hover([found], {"edge": "@edge", "kept by": "@who", **rows}, line_policy="interp"))
    drawn.add_tools(hover(boxes, {"node": "@name", "kept by": "@who", **rows}), TapTool(renderers=boxes))
    legend(drawn, overlay.keepers, mapper)
    return drawn


def _scores(members: Sequence[Member]) -> dict[str, list[str]]:
    return {
        side: ["score not known" if m.scores[i] is None else f"score {spelled(m.scores[i])}" for m in members]
        for i, side in enumerate(("first", "second"))
    }


def _draw_edges(
    drawn: Figure, overlay: Overlay, edges: Sequence[tuple[Member, float]], mapper: LinearColorMapper
) -> Any:
    members, shares = [edge for edge, _ in edges], np.array([share for _, share in edges])
    joined = [(*ends(edge.name), _entry(edge.name)) for edge in members]
    xs, ys = lines(overlay.graph, joined)
    known = bool(shares.any())
    room = min(1.0, (_FEW / max(len(members), 1)) ** 0.5)  # many lines are thin and pale ones
    source = ColumnDataSource(
        name="edges",
        data={
            "xs": xs,
            "ys": ys,
            "source": [source for source, _, _ in joined],
            "target": [target for _, target, _ in joined],
            "edge": [edge.name for edge in members],
            "side": [edge.side for edge in members],
            "who": [shortened(overlay.keepers[edge.side]) for edge in members],
            "width": (0.8 + 4.2 * room * shares).round(2).tolist() if known else [1.2] * len(members),
            "strength": ((0.45 + 0.5 * shares) * (0.3 + 0.7 * room)).round(2).tolist()
            if known
            else [0.6] * len(members),
            "alpha": [0.0] * len(members),
            "dash": [DASHES.get(entry, "solid") for _, _, entry in joined],
            **_scores(members),
        },
    )
    look: dict[str, Any] = {
        "line_color": transform("side", mapper),
        "line_cap": "round",
        "hover_line_alpha": 1.0,
    }
    return drawn.multi_line(
        "xs", "ys", source=source, line_width="width", line_alpha="alpha", line_dash="dash", **look
    )


def _entry(edge: str) -> str:
    """q, k or v, or empty."""
    return edge.partition("<")[2].rstrip(">")


def _draw_nodes(drawn: Figure, overlay: Overlay, mapper: LinearColorMapper) -> list[Any]:
    known = {node.name: node for node in overlay.nodes}
    kinds = {name[0] for name in known}
    names = [name for name in overlay.graph.components if name[0] in kinds]
    members = [known.get(name, Member(name, NEITHER)) for name in names]
    members += [Member(name, NEITHER) for name in (INPUT, LOGITS) if overlay.edges]
    source = ColumnDataSource(
        name="nodes",
        data={
            **node_columns(overlay.graph, [node.name for node in members]),
            "side": [node.side for node in members],
            "who": [shortened(overlay.keepers[node.side]) for node in members],
            "ink_light": [_INKS[0][node.side] for node in members],
            "ink_dark": [_INKS[1][node.side] for node in members],
            **_scores(members),
        },
    )
    return node_boxes(drawn, source, transform("side", mapper))


def legend(drawn: Figure, keepers: Sequence[str], mapper: LinearColorMapper) -> None:
    """Who keeps what is of a colour, above the picture."""
    items: list[Any] = []
    for side in (BOTH, FIRST, SECOND):
        source = ColumnDataSource({"x": [float("nan")], "y": [0.0], "side": [side]})
        mark: Any = drawn.scatter(
            "x", "y", source=source, size=11, marker="square", color=transform("side", mapper)
        )
        items.append(LegendItem(label=plain(shortened(keepers[side], 30)), renderers=[mark]))
    look: dict[str, Any] = {
        "orientation": "horizontal",
        "label_text_font_size": "12px",
        "ncols": 3,
        "margin": 0,
    }
    drawn.add_layout(Legend(items=items, padding=4, **look), "above")  # type: ignore[arg-type]


def _table(overlay: Overlay, edges: Sequence[tuple[Member, float]]) -> Any:
    drawn = [edge for edge, _ in reversed(edges)]
    rows = [
        (member.name, overlay.keepers[member.side], *("" if s is None else spelled(s) for s in member.scores))
        for member in (*overlay.nodes, *drawn)
    ]
    header = ("node or edge", "kept by", *(f"score in {name}" for name in overlay.names))
    return macro("table", header=header, rows=rows, caption="")
