"""Minimality: the planted needless member is found, needed ones are shown to be, and chance decides nothing."""

from __future__ import annotations

import numpy as np
import pytest
from made_bench import made_bench
from test_edges import MakeProblem, Tiny

from circuits.circuit import Circuit, edge_circuit
from circuits.edge_selection import connected
from circuits.evaluation.faithfulness import Bench, donor_maker, edge_bench
from circuits.evaluation.minimality import _out_edges, binomial_tails, minimality, random_path
from circuits.graph import Graph
from circuits.metrics import logit_difference

GRAPH = Graph(3, 4, 4)
PROMPTS = np.array([1.0, 2.0, 3.0])


def test_a_needless_component_is_told_from_needed_ones() -> None:
    """Strangers move a prompt by up to a hundredth; a0.h0 and m1 by a half, a2.h3 by next to nothing."""
    rng = np.random.default_rng(0)
    weight = {c: rng.random() / 100 for c in GRAPH.components} | {"a0.h0": 0.5, "m1": 0.5, "a2.h3": 1e-5}
    at = made_bench(GRAPH, lambda kept: PROMPTS * sum(weight[c] for c in kept))
    found = minimality(at, Circuit(("a0.h0", "m1", "a2.h3"), "test", "by hand"), seed=0)
    assert found is not None
    assert found.named("needed") == ("a0.h0", "m1")
    assert found.named("needless") == ("a2.h3",)
    total = sum(weight.values())
    assert found.members[0].change.value == pytest.approx(0.5 / total)
    assert found.stranger_largest <= 0.01 / total
    assert found.members[0].beats == found.n_inflated == 100


def test_an_edge_that_hangs_in_the_air_is_needless(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    batches = problem(model, 6).batches
    at = edge_bench(
        Bench(model, batches, logit_difference, "resample", (), donor_maker(model, "resample", batches))
    )
    path = ("input->a0.h1<v>", "a0.h1->m1", "m1->logits", "a0.h1->logits")
    dangling = "input->a2.h3<q>"
    assert dangling not in connected(model.graph, (*path, dangling))
    found = minimality(at, edge_circuit(model.graph, (*path, dangling), "test", "by hand"), seed=0)
    assert found is not None
    member = {m.name: m for m in found.members}
    assert member[dangling].verdict == "needless"
    assert member[dangling].change.value < 1e-5
    assert member["a0.h1->logits"].beats > member[dangling].beats
    # What one removal does, by itself.
    rest = [e for e in (*path, dangling) if e != "a0.h1->logits"]
    both = at.outcome([(*path, dangling), rest]).metric.double().numpy()
    nothing, everything = at.ends.metric.double().numpy().mean(1)
    by_hand = np.abs(both[0] - both[1]).mean() / abs(everything - nothing)
    assert member["a0.h1->logits"].change.value == pytest.approx(by_hand, rel=1e-3)


def test_a_member_like_any_stranger_is_never_called_needed() -> None:
    """All members are draws of the same law as the strangers: over many circuits hardly any stands out."""
    needed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weight = {c: rng.random() for c in GRAPH.components}
        at = made_bench(GRAPH, lambda kept, weight=weight: PROMPTS * sum(weight[c] for c in kept))
        some = tuple(str(c) for c in rng.permutation(GRAPH.components)[:3])
        found = minimality(at, Circuit(some, "test", "drawn"), seed=seed)
        assert found is not None
        needed += len(found.named("needed"))
    # Three of twenty strangers and more may lie below nine tenths of them: a tenth of 60 members, at most.
    assert needed <= 10


def test_there_are_no_strangers_to_the_whole_model() -> None:
    at = made_bench(GRAPH, lambda kept: PROMPTS * len(kept))
    assert minimality(at, Circuit(GRAPH.components, "test", "all"), seed=0) is None
    assert minimality(at, Circuit((), "test", "none"), seed=0) is None


def test_random_paths_lead_from_the_input_to_the_logits() -> None:
    graph = Graph(3, 4, 2)
    rng, out_of, seen = np.random.default_rng(0), _out_edges(graph), set()
    for _ in range(1000):
        path = random_path(graph, out_of, rng)
        assert connected(graph, path) == tuple(path)
        seen |= set(path)
    assert len(seen) > 0.9 * len(graph.places)


def test_tails_are_exact() -> None:
    less, more = binomial_tails(np.array([0, 2]), 2, 0.9)
    np.testing.assert_allclose(less, [0.01, 1.0])
    np.testing.assert_allclose(more, [1.0, 0.81])
