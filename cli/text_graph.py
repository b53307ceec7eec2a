"""A circuit as lines of text: its nodes layer by layer, and the strongest edges as a tree.

The one idea: a picture of hundreds of edges cannot be drawn with letters, but what reaches the logits can: the tree
grows from the logits downwards, each time by the strongest edge into what already stands in it. Signs and shading
characters say what colours say elsewhere, so nothing is lost without colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from circuits.circuit import ends
from circuits.graph import INPUT, LOGITS, Graph

SHADES, PLAIN_SHADES = "░▒▓█", ".:=#"
_BRANCHES, _PLAIN_BRANCHES = ("├─ ", "└─ ", "│  "), ("|- ", "`- ", "|  ")
_ROOM = 26  # columns that an edge takes beside its indentation


class Piece(NamedTuple):
    """Some text; side: + supports, - opposes, or nothing."""

    text: str
    side: str = ""


Line = tuple[Piece, ...]


class Branch(NamedTuple):
    """An edge of the tree. grown: whether the edges into its source stand below it."""

    edge: str
    score: float
    grown: bool


def mark(score: float, reach: float, shades: str = SHADES) -> str:
    """+█ or -░: the sign, and the size in quarters of the largest."""
    size = abs(score) / (reach or 1.0)
    return ("-" if score < 0 else "+") + shades[min(int(4 * size), 3)]


def node_rows(
    graph: Graph,
    nodes: Sequence[str],
    scores: Mapping[str, float],
    width: int,
    ascii_only: bool = False,
    signed: bool = True,
) -> Iterator[Line]:
    """Logits on top, then a row a layer (more where the width asks for it), the input at the bottom.

    signed: False for counts, which stand without a sign.
    """
    reach = max((abs(scores[name]) for name in nodes if name in scores), default=0.0)
    shades = PLAIN_SHADES if ascii_only else SHADES
    label = len(str(graph.n_layers - 1)) + 1
    yield (Piece(" " * label + LOGITS),)
    for layer in reversed(range(graph.n_layers)):
        mine = [name for name in nodes if graph.node(name).layer == layer]
        cells = [_cell(name, scores.get(name), reach, shades, signed) for name in mine]
        each = max((len(cell.text) for cell in cells), default=0) + 1
        in_row = max((width - label + 1) // max(each, 1), 1)
        for first in range(0, len(cells), in_row):
            head = f"{'' if first else layer:>{label - 1}} "
            row = cells[first : first + in_row]
            yield (Piece(head), *(Piece(f"{cell.text:<{each}}", cell.side) for cell in row))
    yield (Piece(" " * label + INPUT),)


def _cell(name: str, score: float | None, reach: float, shades: str, signed: bool) -> Piece:
    short = "MLP" if name[0] == "m" else name.partition(".")[2]
    if score is None:
        return Piece(f" ?{short}")
    found = mark(score, reach, shades)
    return Piece(found + short, found[0]) if signed else Piece(f" {found[1]}{short}")


def strongest(edges: Mapping[str, float], most: int, deepest: int) -> dict[str, list[Branch]]:
    """Target -> its edges in the tree, strongest first: `most` in all, none further than `deepest` from its roots.

    The roots are what nothing is read from: the logits, unless edges into them were not measured.
    """
    into: dict[str, list[tuple[float, str]]] = {}
    for edge, score in edges.items():
        into.setdefault(ends(edge)[1], []).append((-abs(score), edge))
    sources = {ends(edge)[0] for edge in edges}
    depth = {target: 0 for target in into if target not in sources}
    waiting = sorted(found for root in depth for found in into[root])
    tree: dict[str, list[Branch]] = {}
    for _ in range(most):
        if not waiting:
            break
        _, edge = heappop(waiting)
        source, target = ends(edge)
        grown = source not in depth and source in into and depth[target] + 1 < deepest
        tree.setdefault(target, []).append(Branch(edge, edges[edge], grown))
        if grown:
            depth[source] = depth[target] + 1
            for found in into[source]:
                heappush(waiting, found)
    return tree


def edge_tree(edges: Mapping[str, float], most: int, width: int, ascii_only: bool = False) -> Iterator[Line]:
    """The strongest edges that lead to the logits, each below what it enters."""
    tree = strongest(edges, most, deepest=max((width - _ROOM) // 3, 1))
    reach = max((abs(branch.score) for branches in tree.values() for branch in branches), default=0.0)
    inner = {ends(branch.edge)[0] for branches in tree.values() for branch in branches if branch.grown}
    for root in tree:
        if root not in inner:
            yield (Piece(root),)
            yield from _below(root, "", tree, reach, ascii_only)


def _below(
    target: str, indent: str, tree: Mapping[str, list[Branch]], reach: float, ascii_only: bool
) -> Iterator[Line]:
    fork, last, through = _PLAIN_BRANCHES if ascii_only else _BRANCHES
    for i, branch in enumerate(found := tree.get(target, [])):
        ending = i == len(found) - 1
        source = ends(branch.edge)[0]
        shade = mark(branch.score, reach, PLAIN_SHADES if ascii_only else SHADES)
        words = f"{shade} {branch.score:+.3g} {source}{_entered(branch.edge)}"
        yield (Piece(indent + (last if ending else fork)), Piece(words, shade[0]))
        if branch.grown:
            yield from _below(source, indent + ("   " if ending else through), tree, reach, ascii_only)


def _entered(edge: str) -> str:
    """into q: the input of a head that the edge enters."""
    return f" into {edge[-2]}" if edge.endswith(">") else ""
