"""Pictures: the same bytes each time, every name legible, no node upon another."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from circuits.circuit import Circuit
from circuits.graph import Graph
from circuits.scores import Scores
from cli.report.drawing import drawing
from cli.report.figure import colours, png, svg
from cli.report.heatmap import brief, heatmap, position_heatmap
from cli.report.layout import NODE_HEIGHT, NODE_WIDTH, curve, layout

PNG = b"\x89PNG\r\n\x1a\n"


def scored(n_layers: int, n_heads: int, parallel: bool = False) -> tuple[Graph, Scores]:
    graph = Graph(n_layers, n_heads, n_heads, parallel)
    draw = np.random.default_rng(0)
    samples = draw.normal(size=(5, len(graph.components)))
    positions = {label: samples[i] for i, label in enumerate(("IO", "S1", "S2", "END"))}
    return graph, Scores("activation-patching", graph.components, samples, by_position=positions)


def top(graph: Graph, scores: Scores, n: int) -> Circuit:
    kept = set(scores.ranking()[:n])
    return Circuit(tuple(name for name in graph.components if name in kept), scores.method, f"top {n}")


def words(figure: Figure) -> list[str]:
    return [text.strip() for text in ET.fromstring(svg(figure)).itertext() if text.strip()]


@pytest.mark.parametrize(("n_layers", "n_heads"), [(3, 6), (12, 12), (48, 64), (1, 1)])
def test_heatmaps_of_every_size(n_layers: int, n_heads: int) -> None:
    graph, scores = scored(n_layers, n_heads)
    figure = heatmap(graph, scores, top(graph, scores, 2), unit="logit difference")
    assert png(figure).startswith(PNG)
    assert max(figure.get_size_inches()) < 9
    assert "logit difference" in words(figure)


def test_the_heatmap_outlines_the_circuit() -> None:
    graph, scores = scored(2, 3)
    figure = heatmap(graph, scores, Circuit(("a1.h2", "m0"), "x", "y"))
    corners = [[p.get_xy() for p in axes.patches if isinstance(p, Rectangle)] for axes in figure.axes[:2]]
    assert corners == [[(1.5, 0.5)], [(-0.5, -0.5)]]


def test_a_method_without_mlps_leaves_their_column_blank() -> None:
    graph, scores = scored(2, 3)
    heads = [i for i, name in enumerate(scores.components) if name[0] == "a"]
    only = Scores("sae", graph.heads, scores.samples[:, heads])
    assert png(heatmap(graph, only)).startswith(PNG)


def test_positions_are_columns() -> None:
    _, scores = scored(2, 3)
    figure = position_heatmap(scores, ("a0.h1", "m1"), Circuit(("m1",), "x", "y"))
    assert {"a0.h1", "m1", "IO", "S1", "S2", "END"} <= set(words(figure))
    assert "a0.h0" not in words(figure)
    with pytest.raises(ValueError, match="no scores by position"):
        position_heatmap(Scores("sae", scores.components, scores.samples))


def test_signed_scores_are_centred_and_counts_begin_at_zero() -> None:
    signed, counts = colours(np.array([-1.0, 3.0])), colours(np.array([0.0, 3.0]))
    assert (signed.norm.vmin, signed.norm.vmax) == (-3, 3)
    assert (counts.norm.vmin, counts.norm.vmax) == (0, 3)
    assert colours(np.array([1.0]), signed=True).norm.vmin == -1
    assert colours(np.array([])).norm.vmax == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.001, "0"), (-0.126, "−0.13"), (12.34, "12.3"), (123.4, "123"), (5e4, "5e4")]
)
def test_numbers_in_cells_are_brief(value: float, text: str) -> None:
    assert brief(value) == text


@pytest.mark.parametrize(
    ("n_layers", "n_heads", "n"),
    [(3, 6, 4), (4, 8, 11), (6, 8, 20), (12, 12, 42), (12, 12, 100), (2, 64, 90)],
)
def test_a_drawing_names_every_node_and_is_well_formed(n_layers: int, n_heads: int, n: int) -> None:
    graph, scores = scored(n_layers, n_heads)
    circuit = top(graph, scores, n)
    found = words(drawing(graph, circuit, scores, title="a < b & c"))
    assert {"input", "logits", *circuit.nodes, "a < b & c"} <= set(found)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("n", [0, 1, 20, 60, 156])
def test_nodes_stand_apart_and_links_run_upwards(n: int, parallel: bool) -> None:
    graph, scores = scored(12, 12, parallel)
    circuit = top(graph, scores, n)
    links = list(graph.links(circuit.nodes))
    placed = layout(graph, circuit.nodes, links)
    assert set(placed.places) == {"input", "logits", *circuit.nodes}
    for (x0, y0), (x1, y1) in combinations(placed.places.values(), 2):
        assert abs(x0 - x1) >= NODE_WIDTH or abs(y0 - y1) >= NODE_HEIGHT
    for link in links[:200]:
        start, *_, end = curve(placed, link)
        assert end[1] > start[1]


def test_a_link_makes_way_for_a_node() -> None:
    graph = Graph(3, 1, 1)
    placed = layout(graph, ("m0", "m1", "m2"), [("m0", "m2")])
    _, leave, arrive, _ = curve(placed, ("m0", "m2"))
    assert leave[0] != placed.places["m1"][0] or arrive[0] != placed.places["m1"][0]


def test_linked_heads_stand_near_each_other() -> None:
    graph = Graph(2, 4, 4)
    links = [(f"a0.h{i}", f"a1.h{3 - i}") for i in range(4)]
    placed = layout(graph, graph.heads, links)
    x = {name: place[0] for name, place in placed.places.items()}
    first = sorted((f"a0.h{i}" for i in range(4)), key=x.__getitem__)
    second = sorted((f"a1.h{i}" for i in range(4)), key=x.__getitem__)
    assert [int(name[-1]) for name in first] == [3 - int(name[-1]) for name in second]


def test_measured_links_are_coloured_by_sign_and_the_others_grey() -> None:
    graph, scores = scored(2, 2)
    links = {("a0.h0", "a1.h0"): 1.0, ("a1.h0", "logits"): -0.5, ("input", "a0.h0"): None}
    text = svg(drawing(graph, Circuit(("a0.h0", "a1.h0"), "x", "y"), scores, links)).decode()
    assert all(colour in text for colour in ("#2166ac", "#b2182b", "#9a9a9a"))


def test_links_outside_the_circuit_are_left_out() -> None:
    graph, scores = scored(2, 2)
    figure = drawing(graph, Circuit(("a0.h0",), "x", "y"), scores, {("a0.h1", "logits"): 1.0})
    assert "a0.h1" not in words(figure)


def test_what_is_not_drawn_is_said() -> None:
    graph, scores = scored(12, 12)
    found = " ".join(words(drawing(graph, top(graph, scores, 60), scores)))
    assert "unmeasured links between distant rows are not drawn" in found


def test_the_same_run_gives_the_same_bytes() -> None:
    graph, scores = scored(4, 4)
    circuit = top(graph, scores, 8)
    for save in (png, svg):
        assert save(drawing(graph, circuit, scores)) == save(drawing(graph, circuit, scores))
        assert save(heatmap(graph, scores, circuit)) == save(heatmap(graph, scores, circuit))
    text = svg(drawing(graph, circuit, scores)).decode()
    assert "dc:date" not in text
    assert "matplotlib.org" not in text
    assert b"Software" not in png(heatmap(graph, scores))
