"""What is read from a run folder, and what is asked of it before anything is divided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_bench import made_bench

from circuits.circuit import Circuit
from circuits.errors import CircuitError, RunFolderError, UnknownNameError
from circuits.evaluation.appraisal import require_difference, require_numbers
from circuits.evaluation.recorded import recorded, recorded_methods
from circuits.evaluation.run_evaluation import own_prompts, prompts_of
from circuits.graph import Graph
from circuits.runs import RunFolder

GRAPH = Graph(2, 4, 2)
NODES = pd.DataFrame(
    [
        ("eap", "a0.h1", "all", 2.0),
        ("eap", "m1", "all", -1.0),
        ("eap", "a0.h1", "S2", 9.0),
        ("sae", "a1.h0", "all", 1.0),
    ],
    columns=["method", "component", "position", "score"],
)
EDGES = pd.DataFrame(
    [
        ("eap", "m0", "logits", None, -0.5, 0.1, False),
        ("eap", "a0.h1", "a1.h2", "q", 2.0, 0.1, True),
        ("eap", "input", "m0", None, None, None, True),
        ("sae", "a0.h0", "m1", None, 1.0, 0.1, False),
    ],
    columns=["method", "source", "target", "input", "score", "stderr", "in_circuit"],
)


def _run(*circuits: dict[str, object], edges: pd.DataFrame = EDGES) -> RunFolder:
    return RunFolder(Path("made-up"), {}, (), NODES, edges, {"circuits": list(circuits)}, {})


def _node(name: str) -> dict[str, object]:
    return {"name": name, "score": 1.0, "stderr": 0.1}


def _edge(source: str, target: str, entry: str | None = "") -> dict[str, object]:
    return {"source": source, "target": target, "input": entry, "score": 1.0, "stderr": 0.1}


def test_a_circuit_of_nodes_with_its_scores() -> None:
    run = _run({"method": "eap", "selection": "top 1", "nodes": [_node("m1")], "edges": []})
    found = recorded(run, "eap", GRAPH)
    assert found.circuit == Circuit(("m1",), "eap", "top 1")
    assert found.scores is not None
    assert found.played == found.scores.components == ("a0.h1", "m1")
    assert found.scores.values.tolist() == [2.0, -1.0]
    assert not found.edges


def test_a_circuit_of_edges_with_those_that_are_scored() -> None:
    kept = [_edge("a0.h1", "a1.h2", "q"), _edge("input", "m0", None), _edge("m0", "logits")]
    run = _run({"method": "eap", "granularity": "edge", "nodes": [], "edges": kept})
    found = recorded(run, "eap", GRAPH)
    assert found.edges
    assert set(found.circuit.kept) == {"a0.h1->a1.h2<q>", "input->m0", "m0->logits"}
    assert found.circuit.nodes == ("a0.h1", "m0", "a1.h2")
    # Edges that are neither scored nor kept stay in every circuit.
    assert set(found.played) == {"a0.h1->a1.h2<q>", "input->m0", "m0->logits"}
    assert found.scores is not None
    assert dict(zip(found.scores.components, found.scores.values.tolist(), strict=True)) == {
        "m0->logits": -0.5,
        "a0.h1->a1.h2<q>": 2.0,
    }


def test_what_does_not_fit_the_model_is_named_the_first() -> None:
    bad = [_edge("m0", "logits"), _edge("a0.h1", "a1.h3", "k"), _edge("m5", "logits")]
    with pytest.raises(CircuitError, match=r"a0\.h1->a1\.h3<k> is no edge"):
        recorded(_run({"method": "eap", "granularity": "edge", "nodes": [], "edges": bad}), "eap", GRAPH)
    with pytest.raises(CircuitError, match=r"a7\.h0"):
        recorded(_run({"method": "eap", "nodes": [_node("a7.h0"), _node("m9")], "edges": []}), "eap", GRAPH)


def test_damage_is_named() -> None:
    with pytest.raises(RunFolderError, match="no circuit"):
        recorded_methods(_run())
    with pytest.raises(RunFolderError, match="lacks 'name'"):
        recorded(_run({"method": "eap", "nodes": [{}], "edges": []}), "eap", GRAPH)
    with pytest.raises(UnknownNameError, match="eapp"):
        recorded(_run({"method": "eap", "nodes": [], "edges": []}), "eapp", GRAPH)
    old = EDGES.drop(columns="input")
    run = _run({"method": "eap", "granularity": "edge", "nodes": [], "edges": []}, edges=old)
    with pytest.raises(RunFolderError, match="no column input"):
        recorded(run, "eap", GRAPH)
    broken = RunFolder(Path("x"), {"prompts": {"judged": [3]}}, (), NODES, EDGES, {}, {})
    with pytest.raises(RunFolderError, match="judged prompts"):
        own_prompts(broken, None)


def test_a_run_without_prompts_has_none_of_its_own() -> None:
    run = _run({"method": "eap", "nodes": [], "edges": []})
    assert own_prompts(run, None) is None
    assert prompts_of(run, "discovery") == ()


def test_a_metric_that_is_no_number_names_the_prompt() -> None:
    def worth(kept: frozenset[str]) -> np.ndarray:
        return np.array([1.0, 2.0, np.nan if kept else 1.0, 4.0]) * bool(kept)

    at = made_bench(GRAPH, worth)
    with pytest.raises(CircuitError, match=r"^prompt 7: the metric is nan with all kept"):
        require_numbers(at, Circuit((), "x", "y"), ["prompt 1", "prompt 4", "prompt 7", "prompt 9"])


def test_a_scale_that_may_have_no_length_leaves_faithfulness_undefined() -> None:
    noise = np.array([1.0, -1.1, 0.9, -0.9, 1.2, -1.0])
    at = made_bench(GRAPH, lambda kept: noise * len(kept))
    with pytest.raises(CircuitError, match="faithfulness is undefined"):
        require_difference(at, "made-up prompts", 0)
    require_difference(made_bench(GRAPH, lambda kept: (noise + 2) * len(kept)), "made-up prompts", 0)
