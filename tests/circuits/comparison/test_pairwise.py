"""Circuits of run folders compared: what is planted is what is found, and what cannot be compared is named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import edge_scores, made_run, node_scores

from circuits.circuit import Circuit, edge_circuit
from circuits.comparison.gates import Limits, check_gates
from circuits.comparison.pairwise import Comparison, compare, jaccard
from circuits.comparison.sides import Side, granularities, notes, read_sides
from circuits.errors import CircuitError, RunFolderError
from circuits.graph import Graph
from circuits.scored_circuit import Measured, ScoredCircuit

GRAPH = Graph(4, 8, 8)


def _side(name: str, nodes: tuple[str, ...], scores: dict[str, Measured] | None = None) -> Side:
    kept = Circuit(tuple(c for c in GRAPH.components if c in nodes), "made", "by hand")
    scores = node_scores(GRAPH, nodes) if scores is None else scores
    return Side(name, ScoredCircuit(GRAPH, kept, scores, model="one"), "ioi", 1, {})


def _edge_side(name: str, edges: tuple[str, ...]) -> Side:
    kept = edge_circuit(GRAPH, edges, "made", "by hand")
    scored = ScoredCircuit(GRAPH, kept, {}, {}, edge_scores(GRAPH, edges), "one")
    return Side(name, scored, "ioi", 1, {})


def _only(*sides: Side) -> Comparison:
    (found,) = compare(sides, "node")
    return found


@pytest.mark.parametrize("k", [0, 1, 4, 7])
def test_k_of_n_that_are_planted_are_found(k: int) -> None:
    heads = np.random.default_rng(k).permutation(GRAPH.heads).tolist()
    first, second = tuple(heads[:7]), tuple(heads[7 - k : 14 - k])
    found = _only(_side("a", first), _side("b", second))
    assert (found.overlap.shared, found.union) == (k, 14 - k)
    assert found.overlap.jaccard == k / (14 - k)
    assert found.overlap.overlap_coefficient == found.overlap.share_of_first == k / 7
    assert set(found.shared) == set(first) & set(second)
    assert set(found.only_first) == set(first) - set(second)
    assert set(found.only_second) == set(second) - set(first)


def test_the_figure_of_the_paper() -> None:
    """25 shared of 32 in the union, as 78% reads."""
    graph = Graph(24, 16, 16)
    heads = list(graph.heads)
    scores = dict.fromkeys(graph.heads, (1.0, None))
    first, second = (
        Side(n, ScoredCircuit(graph, Circuit(tuple(h), "m", "r"), scores), "", 1, {})
        for n, h in (("ioi", heads[:28]), ("co", heads[3:32]))
    )
    (found,) = compare([first, second], "node")
    assert (found.overlap.shared, found.union) == (25, 32)
    assert found.overlap.jaccard == pytest.approx(0.78125)
    assert found.ranking is None  # all scores are one


def test_a_circuit_against_itself_is_one_and_every_p_is_at_its_floor() -> None:
    side = _side("a", GRAPH.heads[3:20:2])
    found = _only(side, replace(side, name="b"))
    assert found.overlap.jaccard == 1.0
    assert found.within.p_value == pytest.approx(found.within.floor)
    assert found.within.floor < 1e-4
    assert found.ranking is not None
    for figure in (
        found.ranking.rank_correlation,
        found.ranking.rank_biased_overlap,
        found.ranking.weighted_jaccard,
    ):
        assert figure.value == pytest.approx(1.0)
        assert figure.p_value == 1 / (1 + found.ranking.permutations)


def test_disjoint_circuits_share_nothing() -> None:
    found = _only(_side("a", GRAPH.heads[:9]), _side("b", GRAPH.heads[9:20]))
    assert found.overlap.jaccard == 0.0
    assert found.within.p_value == 1.0
    assert found.shared == ()


def test_it_is_the_same_the_other_way_round() -> None:
    a, b = _side("a", GRAPH.heads[:9]), _side("b", GRAPH.heads[4:20])
    there, back = _only(a, b), _only(b, a)
    assert there.within == back.within
    assert there.overlap.share_of_first == back.overlap.share_of_second
    assert there.only_first == back.only_second


def test_heads_against_heads_and_mlps_are_compared_on_what_both_score() -> None:
    heads_only = {name: (1.0 + i, 0.1) for i, name in enumerate(GRAPH.heads)}
    a, b = _side("a", ("a0.h1", "a1.h2"), heads_only), _side("b", ("a0.h1", "m2", "m3"))
    found = _only(a, b)
    assert found.overlap.universe == 32
    assert found.overlap.jaccard == jaccard(a, b, "node") == 1 / 2
    assert found.left_out == ("m2", "m3")
    assert any("heads alone" in note for note in notes((a, b), ("node",)))
    assert notes((b, replace(b, name="c")), ("node",)) == ()
    nothing = {"m0": (1.0, None), "m1": (2.0, None)}
    with pytest.raises(CircuitError, match="a and c score no node in common"):
        compare((a, _side("c", ("m0",), nothing)), "node")


def test_edges_are_compared_with_their_inputs_apart() -> None:
    a = _edge_side("a", ("a0.h1->a1.h2<q>", "a0.h1->a1.h2<k>", "m0->logits"))
    b = _edge_side("b", ("a0.h1->a1.h2<q>", "a0.h1->a1.h2<v>", "m0->logits", "input->m3"))
    assert granularities((a, b)) == ("node", "edge")
    (edges,) = compare((a, b), "edge")
    assert edges.overlap.jaccard == jaccard(a, b, "edge") == 2 / 5
    assert edges.shared == ("a0.h1->a1.h2<q>", "m0->logits")
    assert edges.overlap.universe == len(GRAPH.places)
    (nodes,) = compare((a, b), "node")
    assert nodes.shared == ("a0.h1", "m0", "a1.h2")
    assert nodes.only_second == ("m3",)
    assert nodes.overlap.universe == len(GRAPH.components)
    assert nodes.ranking is None  # no node is scored
    assert nodes.largest is None


def test_the_interval_is_narrow_where_scores_are_sure_and_wide_where_they_are_noise() -> None:
    kept = GRAPH.heads[:10]
    widths = []
    for error in (1e-6, 0.3, 30.0):
        scores = {n: (s, error) for n, (s, _) in node_scores(GRAPH, kept).items()}
        found = _only(_side("a", kept, scores), _side("b", kept, scores)).largest
        assert found is not None
        assert found.jaccard == 1.0
        widths.append((found.low, found.high))
    assert widths[0] == (1.0, 1.0)
    assert 0.3 < widths[1][0] <= widths[1][1] < 1.0
    assert widths[2][1] < 0.6  # of noise alone, as many are shared as chance gives
    bare = {n: (s, None) for n, (s, _) in node_scores(GRAPH, kept).items()}
    assert _only(_side("a", kept, bare), _side("b", kept, bare)).largest is None


def test_a_circuit_that_was_not_chosen_by_size_is_told_from_its_largest_scores() -> None:
    scores = {name: (float(i), 1e-6) for i, name in enumerate(GRAPH.components)}
    found = _only(_side("a", ("a0.h1", "a0.h2"), scores), _side("b", ("m2", "m3"), scores))
    assert found.overlap.jaccard == 0.0
    assert found.largest is not None
    assert (found.largest.jaccard, found.largest.low, found.largest.high) == (1.0, 1.0, 1.0)


def test_the_seed_decides_and_the_pairs_do_not() -> None:
    sides = [_side(n, GRAPH.heads[i : i + 9]) for i, n in enumerate("abc")]
    assert compare(sides, "node", 3) == compare(sides, "node", 3)
    first, *_ = compare(sides, "node", 3)
    assert first == compare(sides[:2], "node", 3)[0]
    assert [(c.first, c.second) for c in compare(sides, "node")] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_what_cannot_be_compared_is_named() -> None:
    a, edges = _side("a", ("m1",)), _edge_side("e", ("m1->logits",))
    with pytest.raises(CircuitError, match="one run only"):
        granularities((a,))
    with pytest.raises(CircuitError, match="a keeps nodes and e keeps edges"):
        granularities((a, edges))
    assert granularities((a, edges), nodes_only=True) == ("node",)
    other = replace(a, name="b", scored=replace(a.scored, graph=Graph(4, 8, 4)))
    with pytest.raises(CircuitError, match=r"4 layers x 8 heads, b of one of 4 layers x 8 heads \(4 kv\)"):
        granularities((a, other))
    with pytest.raises(RunFolderError, match="format versions 1 and 2"):
        granularities((a, replace(a, name="b", format_version=2)))
    named = replace(a, name="b", scored=replace(a.scored, model="another"))
    assert "matched by index" in notes((a, named), ("node",))[0]


def test_gates_hold_at_their_bound() -> None:
    a = replace(_side("a", GRAPH.heads[:9]), faithfulness={"resample": 0.9, "mean": 0.1})
    b = replace(_side("b", GRAPH.heads[3:12]), faithfulness={"mean": 0.3, "resample": 0.75})
    overlap, faithful, drift = check_gates(a, b, Limits(0.5, 0.3, 0.1))
    assert (overlap.value, overlap.passed) == (0.5, True)
    assert (faithful.value, faithful.passed) == (0.3, True)  # the run's own first ablation
    assert drift.value == pytest.approx(0.15)  # the baseline's first, resample
    assert not drift.passed
    assert not check_gates(a, b, Limits(min_overlap=0.51))[0].passed
    with pytest.raises(CircuitError, match="No gate is given"):
        check_gates(a, b, Limits())
    with pytest.raises(CircuitError, match="c holds no faithfulness of made"):
        check_gates(a, _side("c", ("m1",)), Limits(min_faithfulness=0.5))
    with pytest.raises(CircuitError, match="under resample ablation, b under mean"):
        check_gates(a, replace(b, faithfulness={"mean": 0.3}), Limits(max_drift=0.5))


def test_runs_are_read_under_names_of_their_own(tmp_path: Path) -> None:
    for folder in ("x/run", "y/run", "z"):
        made_run(tmp_path / folder, GRAPH, nodes=("a0.h1", "m1"))
    names = [side.name for side in read_sides([str(tmp_path / n) for n in ("x/run", "z")])]
    assert names == ["run", "z"]
    names = [side.name for side in read_sides([str(tmp_path / n) for n in ("x/run", "y/run")])]
    assert names == ["1:run", "2:run"]
    (side,) = read_sides([f"{tmp_path / 'z'}:made"])
    assert (side.name, side.method, side.scored.circuit.nodes) == ("z:made", "made", ("a0.h1", "m1"))


def test_no_torch_is_needed() -> None:
    code = "import sys, circuits.comparison.pairwise, circuits.comparison.gates; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
