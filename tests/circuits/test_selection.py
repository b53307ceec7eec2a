"""Selection: five rules, each on scores whose right answer is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.scores import Scores
from circuits.selection import Choice, Selection, select

NAMES = tuple(f"a{layer}.h{head}" for layer in range(3) for head in range(4))
VALUES = st.lists(st.floats(-5, 5).map(lambda x: round(x, 2)), min_size=len(NAMES), max_size=len(NAMES))


def _scores(values: Sequence[float]) -> Scores:
    return Scores("made-up", NAMES[: len(values)], np.array([values], dtype=float))


def _never(circuits: Sequence[Sequence[str]]) -> list[float]:
    raise AssertionError("this rule needs no faithfulness")


def _select(scores: Scores, faithfulness=_never, **settings: object) -> Choice:
    return select(scores, Selection(**settings), graph=Graph(1, 1, 1), seed=0, faithfulness=faithfulness)  # type: ignore[arg-type]


@given(VALUES)
def test_top_n_lies_in_top_n_plus_one_and_holds_the_largest(values: list[float]) -> None:
    scores = _scores(values)
    chosen = [set(_select(scores, rule="top", n=n).circuit.nodes) for n in range(1, len(NAMES) + 1)]
    assert [len(nodes) for nodes in chosen] == list(range(1, len(NAMES) + 1))
    assert all(small < large for small, large in pairwise(chosen))
    size = dict(zip(NAMES, np.abs(values), strict=True))
    for nodes in chosen[:-1]:
        assert min(size[c] for c in nodes) >= max(size[c] for c in NAMES if c not in nodes)


@given(VALUES, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_higher_threshold_keeps_no_more(values: list[float], a: float, b: float) -> None:
    scores, size = _scores(values), np.abs(values)
    low, high = (_select(scores, rule="threshold", share=share) for share in sorted((a, b)))
    assert set(high.circuit.nodes) <= set(low.circuit.nodes)
    for choice, share in ((low, min(a, b)), (high, max(a, b))):
        kept = {c for c, s in zip(NAMES, size, strict=True) if s > 0 and s >= share * size.max()}
        assert set(choice.circuit.nodes) == kept
        assert choice.reached == (size.max() > 0)


def test_size_counts_and_the_circuit_is_in_the_order_of_the_graph() -> None:
    choice = _select(_scores([0.1, -3.0, 0.2, 2.0]), rule="top", n=2)
    assert choice.circuit.nodes == ("a0.h1", "a0.h3")
    assert choice.circuit.method == "made-up"
    assert choice.circuit.selection == "top 2 by size of score"
    assert _select(_scores([1.0] * 4), rule="top", n=2).circuit.nodes == ("a0.h0", "a0.h1")


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(CircuitError, match=r"--top 5 .*made-up scores \(4\)"):
        _select(_scores([1, 2, 3, 4]), rule="top", n=5)


def _prompts(strong: set[str], n: int = 40, width: int = len(NAMES)) -> Scores:
    """Scores of n prompts: noise of mean zero, not by luck but exactly, and 1.5 for the strong components."""
    samples = np.random.default_rng(0).standard_normal((n, width))
    samples -= samples.mean(0)
    names = tuple(f"a{i // 8}.h{i % 8}" for i in range(width))
    samples[:, [i for i, name in enumerate(names) if name in strong]] += 1.5
    return Scores("made-up", names, samples)


@pytest.mark.parametrize("correction", ["holm", "bonferroni", "benjamini-hochberg"])
def test_significance_finds_the_components_with_a_mean(correction: str) -> None:
    strong = {"a0.h2", "a1.h1"}
    choice = _select(_prompts(strong), rule="significance", correction=correction)
    assert set(choice.circuit.nodes) == strong
    assert choice.reached
    assert choice.note == ""


def test_significance_finds_nothing_in_noise_and_says_so() -> None:
    choice = _select(_prompts(set()), rule="significance")
    assert choice.circuit.nodes == ()
    assert not choice.reached
    assert choice.note == "no component is significant"


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_significance_can_be_reached_among_many_components(correction: str) -> None:
    """GPT-2 medium has 408: of 5000 permutations not even the strongest would survive the correction."""
    strong = {"a0.h2", "a20.h5"}
    choice = _select(_prompts(strong, width=408), rule="significance", correction=correction)
    assert set(choice.circuit.nodes) == strong


def test_significance_needs_a_score_for_each_prompt() -> None:
    trials = Scores("sae", NAMES, np.ones((3, len(NAMES))), unit="trial")
    with pytest.raises(CircuitError, match="sae has no score for each prompt"):
        _select(trials, rule="significance")


def _as_faithful_as(values: Sequence[float]):
    """Faithfulness by size of circuit, and a check that prefixes are asked for in order."""

    def faithfulness(circuits: Sequence[Sequence[str]]) -> list[float]:
        assert [len(c) for c in circuits] == list(range(1, len(circuits) + 1))
        assert all(tuple(b[: len(a)]) == tuple(a) for a, b in pairwise(circuits))
        return list(values[: len(circuits)])

    return faithfulness


def test_smallest_takes_the_shortest_prefix_that_is_faithful_enough() -> None:
    scores = _scores([5, 1, 4, 2, 3])
    choice = _select(scores, _as_faithful_as([0.2, 0.95, 0.5, 0.99]), rule="smallest", most=0.8)
    assert choice.circuit.nodes == ("a0.h0", "a0.h2")
    assert choice.reached
    assert choice.curve == (0.2, 0.95, 0.5, 0.99)


def test_smallest_keeps_the_best_where_none_is_faithful_enough_and_says_so() -> None:
    choice = _select(_scores([5, 1, 4, 2, 3]), _as_faithful_as([0.2, 0.5, 0.4]), rule="smallest", most=0.6)
    assert choice.circuit.nodes == ("a0.h0", "a0.h2")
    assert not choice.reached
    assert choice.note == "no prefix of up to 3 components reaches 0.9; the best (0.50) is kept"


def _worth(values: dict[str, float]) -> Callable[[Sequence[Sequence[str]]], list[float]]:
    """Faithfulness that adds up over components."""
    return lambda circuits: [sum(values.get(c, 0.0) for c in circuit) for circuit in circuits]


def test_pruning_leaves_out_what_the_prompts_do_not_need() -> None:
    """Scores rank a0.h0 to a0.h4; only the second and the fourth carry anything."""
    worth = _worth({"a0.h1": 0.5, "a0.h3": 0.5})
    choice = _select(_scores([5, 4, 3, 2, 1]), worth, rule="pruned", target=0.9, most=1)
    assert choice.circuit.nodes == ("a0.h1", "a0.h3")
    assert choice.prefix == 4
    assert choice.curve == (0, 0.5, 0.5, 1, 1)
    assert choice.reached
    assert choice.note == ""


def test_pruning_tries_the_weakest_first() -> None:
    """Either of two equal components would do: the one with the larger score stays."""

    def one_of_two(circuits: Sequence[Sequence[str]]) -> list[float]:
        return [float(bool({"a0.h0", "a0.h2"} & set(c)) and "a0.h1" in c) for c in circuits]

    choice = _select(_scores([3, 1, 2]), one_of_two, rule="pruned")
    assert choice.circuit.nodes == ("a0.h0", "a0.h1")


@given(VALUES, st.lists(st.floats(0, 1), min_size=len(NAMES), max_size=len(NAMES)), st.floats(0.1, 0.99))
def test_a_pruned_circuit_is_faithful_and_needs_each_of_its_components(
    values: list[float], worths: list[float], target: float
) -> None:
    total = sum(worths)
    assume(total > 0.1)
    worth = _worth({c: w / total for c, w in zip(NAMES, worths, strict=True)})
    choice = _select(_scores(values), worth, rule="pruned", target=target)
    (whole,) = worth([choice.circuit.nodes])
    assert whole >= target
    if len(choice.circuit) > 1:
        assert all(
            worth([choice.circuit.without([c]).nodes])[0] < target + 1e-9 for c in choice.circuit.nodes
        )


def test_a_target_that_nothing_reaches_keeps_everything_and_says_so() -> None:
    choice = _select(_scores([3, 1, 2]), _worth({"a0.h0": 1.0}), rule="pruned", target=1.5)
    assert choice.circuit.nodes == ("a0.h0", "a0.h1", "a0.h2")
    assert not choice.reached
    assert "spread over 3 of 3 components" in choice.note


def test_progress_of_pruning_ends_where_it_says() -> None:
    seen: list[tuple[str, int, int]] = []
    select(
        _scores([5, 4, 3]),
        Selection(),
        graph=Graph(1, 1, 1),
        seed=0,
        faithfulness=_worth({"a0.h1": 1.0}),
        progress=lambda *step: seen.append(step),
    )
    assert seen == [("pruning", 1, 2), ("pruning", 2, 2)]


@pytest.mark.parametrize(
    "settings",
    [{"n": 0}, {"share": 0}, {"share": 1.5}, {"alpha": 1}, {"target": 0}, {"rule": "best"}, {"N": 1}],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Selection(**settings)  # type: ignore[arg-type]


GRAPH = Graph(2, 2, 1)


def _edges(values: dict[str, float]) -> Scores:
    """Scores of all edges, tiny where not given."""
    size = [values.get(edge, 0.001 / n) for n, edge in enumerate(GRAPH.places, 1)]
    edges = Scores("made-up", tuple(GRAPH.places), np.array([size]))
    return Scores("made-up", GRAPH.components, np.zeros((1, len(GRAPH.components))), edges=edges)


PATH = {"a1.h0->logits": 5.0, "m0->a1.h0<v>": -4.0, "input->m0": 3.0}


def test_top_edges_grow_from_the_logits_and_nothing_hangs_in_the_air() -> None:
    far = _edges({**PATH, "input->a0.h0<q>": 9.0})
    chosen = [
        select(far, Selection(rule="top", n=n), graph=GRAPH, seed=0, faithfulness=_as_faithful_as([])).circuit
        for n in (1, 2, 3)
    ]
    assert [circuit.edges for circuit in chosen[:2]] == [(), ()]  # no path from the input yet
    assert set(chosen[2].kept) == set(PATH)
    assert chosen[2].nodes == ("m0", "a1.h0")


def test_pruned_edges_are_those_that_are_needed() -> None:
    def worth(circuits: Sequence[Sequence[str]]) -> list[float]:
        return [sum(edge in circuit for edge in PATH) / 3 for circuit in circuits]

    scores = _edges(
        {**PATH, "input->logits": 20.0, "m1->logits": 19.0, "a0.h0->m1": 18.0, "input->a0.h0<q>": 9.0}
    )
    choice = select(scores, Selection(rule="pruned", target=0.99), graph=GRAPH, seed=0, faithfulness=worth)
    assert set(choice.circuit.kept) == set(PATH)
    assert choice.prefix in choice.sizes
    assert choice.prefix is not None
    assert choice.prefix >= 7
    assert len(choice.sizes) == len(choice.curve) < len(GRAPH.places)


def test_too_many_edges_are_refused_as_edges() -> None:
    with pytest.raises(CircuitError, match=r"--top 999 asks for more edges than made-up scores"):
        select(
            _edges(PATH), Selection(rule="top", n=999), graph=GRAPH, seed=0, faithfulness=_as_faithful_as([])
        )
