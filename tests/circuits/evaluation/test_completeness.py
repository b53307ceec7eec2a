"""Completeness: no gap where there can be none, the planted backup found, figures on the faithfulness scale."""

from __future__ import annotations

import numpy as np
import pytest
from made_bench import made_bench
from test_edges import MakeProblem, Tiny

from circuits.circuit import Circuit, edge_circuit
from circuits.evaluation.completeness import completeness
from circuits.evaluation.faithfulness import Bench, donor_maker, edge_bench
from circuits.graph import Graph
from circuits.metrics import logit_difference

GRAPH = Graph(2, 3, 3)
PROMPTS = np.array([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("granularity", ["node", "edge"])
def test_the_whole_model_is_complete(granularity: str, tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-llama")
    batches = problem(model, 4).batches
    at = Bench(
        model,
        batches,
        logit_difference,
        "resample",
        model.graph.components,
        donor_maker(model, "resample", batches),
    )
    whole = Circuit(model.graph.components, "test", "all")
    if granularity == "edge":
        at, whole = edge_bench(at), edge_circuit(model.graph, model.graph.places, "test", "all")
    found = completeness(at, whole, seed=0, n_random=3)
    assert found.mean_gap.value == 0
    assert {k.gap.value for k in (found.nothing_removed, *found.random, *found.greedy)} == {0}
    assert found.n_prompts == 4


def test_a_backup_outside_the_circuit_is_found() -> None:
    """Head a1.h0 works, and a1.h1 only where it is gone: faithful without the backup, and incomplete."""

    def worth(kept: frozenset[str]) -> np.ndarray:
        return PROMPTS * bool({"a1.h0", "a1.h1"} & kept)

    at = made_bench(GRAPH, worth)
    circuit = Circuit(("a0.h0", "a1.h0", "m1"), "test", "by hand")
    found = completeness(at, circuit, seed=1)
    assert found.nothing_removed.gap.value == 0
    first = found.greedy[0]
    assert first.removed == ("a1.h0",)
    assert (first.circuit.value, first.model.value, first.gap.value) == (0, 1, -1)
    assert (first.gap.low, first.gap.high) == pytest.approx((-1, -1))
    assert found.worst.gap.value == -1
    # A random half lacks a1.h0 half of the time.
    hit = np.mean(["a1.h0" in k.removed for k in found.random])
    assert found.mean_gap.value == pytest.approx(hit)
    assert 0.2 < hit < 0.8
    complete = Circuit(("a0.h0", "a1.h0", "a1.h1"), "test", "by hand")
    assert completeness(at, complete, seed=0).worst.gap.value == 0


def test_greedy_sets_grow_one_by_one_within_the_circuit(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    batches = problem(model, 4).batches
    played = model.graph.components
    at = Bench(model, batches, logit_difference, "resample", played, donor_maker(model, "resample", batches))
    circuit = Circuit(("a0.h1", "m0", "a1.h3", "m1"), "test", "by hand")
    found = completeness(at, circuit, seed=0, n_random=2)
    assert [len(k.removed) for k in found.greedy] == [1, 2, 3, 4]
    assert all(a.removed == b.removed[:-1] for a, b in zip(found.greedy, found.greedy[1:], strict=False))
    # The first step tries every member, so no other single knock-out is worse.
    for member in circuit.nodes:
        inside = [c for c in circuit.nodes if c != member]
        outside = [c for c in played if c != member]
        f = at.faithfulness([inside, outside])
        assert abs(f[0] - f[1]) <= abs(found.greedy[0].gap.value) + 1e-5


def test_the_empty_circuit_has_nothing_to_remove() -> None:
    at = made_bench(GRAPH, lambda kept: PROMPTS * ("m0" in kept))
    found = completeness(at, Circuit((), "test", "none"), seed=0, n_random=2)
    assert found.greedy == ()
    assert found.nothing_removed.gap.value == -1
