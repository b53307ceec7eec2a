"""Where the nodes and links of a circuit stand on paper.

The one idea: layers are rows, input at the bottom and logits on top; in a row the heads are ordered by the
mean place of what they link to (the barycentre heuristic of Sugiyama et al. 1981), so that few links cross;
the MLPs stand in a lane of their own at the right. A link is a curve, bent just enough to miss the nodes
that it passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from circuits.graph import INPUT, LOGITS, Graph

if TYPE_CHECKING:
    from jaxtyping import Float

Link = tuple[str, str]
Point = tuple[float, float]
Curve = tuple[Point, Point, Point, Point]  # a cubic Bezier: start, two controls, end

NODE_WIDTH, NODE_HEIGHT = 0.46, 0.19
ROW = 0.54
_LANE = 0.35  # columns between the heads and the MLPs
_UNDER = 2.0  # inches of detour that a curve takes rather than pass under a node
_SWEEPS = 24
_PUSHES = (0.12, -0.12, 0.25, -0.25, 0.4, -0.4, 0.6, -0.6)
_BENDS = np.array([(0.0, 0.0), *((a, b) for p in _PUSHES for a, b in ((p, p), (p, 0.0), (0.0, p)))])
_T = np.linspace(0.0, 1.0, 41)[:, None]
_BERNSTEIN = np.hstack([(1 - _T) ** 3, 3 * (1 - _T) ** 2 * _T, 3 * (1 - _T) * _T**2, _T**3])


@dataclass(frozen=True)
class Grid:
    """Sizes in inches, and in points that of a node's name.

    narrowest, widest: from one head to the next, as the widest row allows in `room`. in_row: heads of a row, beyond
    which a layer gets several. margin: how far a curve may leave the nodes' rectangle.
    """

    node_width: float = NODE_WIDTH
    node_height: float = NODE_HEIGHT
    row: float = ROW
    narrowest: float = 0.56
    widest: float = 0.7
    room: float = 3.0
    in_row: int = 14
    margin: float = 0.5
    text: float = 6.2


GRID = Grid()
_PAPER = (
    Grid(narrowest=0.52, margin=0.06),
    Grid(0.37, 0.16, 0.42, narrowest=0.41, margin=0.06, text=5.4),
    Grid(0.33, 0.145, 0.34, narrowest=0.36, margin=0.06, text=5.0),
)


def paper_grid(graph: Graph, nodes: Iterable[str], width: float) -> Grid:
    """The largest grid that holds every layer in one row of `width` inches; the smallest, with more rows, if none."""
    heads = Counter(graph.node(name).layer for name in nodes if name[0] == "a")
    fullest = max(heads.values(), default=1)
    for grid in _PAPER:
        room = width - 2 * grid.margin - grid.node_width
        in_row = max(int(room / grid.narrowest - _LANE), 1)
        if fullest <= in_row:
            break
    return replace(grid, room=room, in_row=in_row)


@dataclass(frozen=True)
class Layout:
    """Centres of the nodes in inches, the lowest at y = 0, and the rows with the layer that each one is."""

    places: Mapping[str, Point]
    rows: tuple[tuple[int, float], ...]
    grid: Grid = GRID

    @property
    def width(self) -> float:
        return max(x for x, _ in self.places.values()) + self.grid.node_width / 2

    @property
    def height(self) -> float:
        return max(y for _, y in self.places.values())


def layout(graph: Graph, nodes: Iterable[str], links: Iterable[Link], grid: Grid = GRID) -> Layout:
    """Places for `nodes`, input and logits; only layers that hold one of the nodes get a row."""
    kept = set(nodes)
    ordered = [name for name in graph.components if name in kept]
    rows = _rows(graph, [name for name in ordered if name[0] == "a"], grid.in_row)
    columns = _columns(rows, tuple(links))
    return _placed(graph, ordered, rows, columns, grid)


def _rows(graph: Graph, heads: list[str], in_row: int) -> list[list[str]]:
    """The heads of each layer, a crowded layer cut into several rows of equal length."""
    rows = []
    for layer in sorted({graph.node(name).layer for name in heads}):
        row = [name for name in heads if graph.node(name).layer == layer]
        pieces = -(-len(row) // in_row)
        rows += [row[i::pieces] for i in range(pieces)]
    return rows


def _columns(rows: list[list[str]], links: tuple[Link, ...]) -> dict[str, float]:
    """The x of every node, in columns: sweeps of the barycentre heuristic, up and down in turn."""
    width = max((len(row) for row in rows), default=1)
    middle = (width - 1) / 2
    x = {INPUT: middle, LOGITS: middle}
    for row in rows:
        x |= {name: middle + i - (len(row) - 1) / 2 for i, name in enumerate(row)}
    near = _neighbours(links, x)
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 else reversed(rows):
            wished = {name: np.mean([x[other] for other in near[name]] or [middle]) for name in row}
            row.sort(key=lambda name: wished[name])
            x |= zip(row, _spread([float(wished[name]) for name in row], width), strict=True)
    return x


def _neighbours(links: Iterable[Link], x: Mapping[str, float]) -> dict[str, list[str]]:
    near: dict[str, list[str]] = {name: [] for name in x}
    for source, target in links:
        if source in near and target in near:
            near[source].append(target)
            near[target].append(source)
    return near


def _spread(wished: list[float], width: int) -> list[float]:
    """Places near the wished ones (ascending), at least a column apart and within the width."""
    n = len(wished)
    gaps = np.arange(n)
    # With the minimal gaps taken out, "a column apart" reads "not descending": isotonic regression by pools.
    pools: list[tuple[float, int]] = []
    for value in np.array(wished) - gaps:
        total, count = float(value), 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            total, count = total + pools[-1][0], count + pools[-1][1]
            pools.pop()
        pools.append((total, count))
    levels = np.repeat([total / count for total, count in pools], [count for _, count in pools])
    return [float(v) for v in np.clip(levels, 0, width - n) + gaps]


def _placed(
    graph: Graph, ordered: list[str], rows: list[list[str]], columns: Mapping[str, float], grid: Grid
) -> Layout:
    width = max((len(row) for row in rows), default=1)
    column = float(np.clip(grid.room / (width + _LANE), grid.narrowest, grid.widest))
    x = {name: column * place + grid.node_width / 2 for name, place in columns.items()}
    lane = (width + _LANE) * column + grid.node_width / 2
    places = {INPUT: (x[INPUT], 0.0)}
    labels, y = [], 0.0
    for layer in sorted({graph.node(name).layer for name in ordered}):
        mine = [row for row in rows if graph.node(row[0]).layer == layer] or [[]]
        labels.append((layer, y + grid.row))
        for row in mine:
            y += grid.row
            places |= {name: (x[name], y) for name in row}
        if f"m{layer}" in ordered:  # half a row up: a layer's MLP reads what its heads wrote
            places[f"m{layer}"] = (lane, y + grid.row / 2)
    places[LOGITS] = (places[INPUT][0], y + grid.row)
    return Layout(places, tuple(labels), grid)


def extent(placed: Layout, curves: Iterable[Curve]) -> tuple[float, float]:
    """The leftmost and rightmost x of nodes and curves."""
    xs = [(_BERNSTEIN @ np.array(bezier))[:, 0] for bezier in curves]
    return min([0.0, *(float(x.min()) for x in xs)]), max([placed.width, *(float(x.max()) for x in xs)])


def curve(placed: Layout, link: Link) -> Curve:
    """A curve from the top of one node to the bottom of the other, under as few nodes as can be."""
    (x0, y0), (x1, y1) = (placed.places[name] for name in link)
    grid, half = placed.grid, placed.grid.node_height / 2
    candidates = _candidates((x0, y0 + half), (x1, y1 - half))
    points = _BERNSTEIN @ candidates
    passed = [place for name, place in placed.places.items() if name not in link and y0 <= place[1] <= y1]
    outside = np.maximum(-grid.margin - points[..., 0], points[..., 0] - placed.width - grid.margin).max(-1)
    costs = _UNDER * _nodes_under(points, np.array(passed).reshape(-1, 2), grid) + 100 * np.maximum(
        outside, 0
    )
    costs += np.abs(candidates[:, 1, 0] - x0) + np.abs(candidates[:, 2, 0] - x1)
    start, leave, arrive, end = candidates[int(np.argmin(costs))].tolist()
    return tuple(start), tuple(leave), tuple(arrive), tuple(end)


def _candidates(start: Point, end: Point) -> Float[np.ndarray, "candidate control xy"]:
    """Curves that leave and arrive upwards, pushed sideways near the start, near the end, or at both."""
    rise = end[1] - start[1]
    lean, reach = min(0.45 * rise, 0.6), min(rise, 3.0)
    curves = np.empty((len(_BENDS), 4, 2))
    curves[:, 0], curves[:, 3] = start, end
    curves[:, 1] = np.array(start) + np.column_stack([_BENDS[:, 0] * reach, np.full(len(_BENDS), lean)])
    curves[:, 2] = np.array(end) + np.column_stack([_BENDS[:, 1] * reach, np.full(len(_BENDS), -lean)])
    return curves


def _nodes_under(
    points: Float[np.ndarray, "candidate step xy"], nodes: Float[np.ndarray, "node xy"], grid: Grid
) -> Float[np.ndarray, " candidate"]:
    """How many of `nodes` each curve passes under; a little room around a node counts as the node."""
    apart = np.abs(points[:, :, None, :] - nodes)
    under = (apart[..., 0] < grid.node_width / 2 + 0.04) & (apart[..., 1] < grid.node_height / 2 + 0.03)
    return np.asarray(under.any(1).sum(-1), dtype=float)
