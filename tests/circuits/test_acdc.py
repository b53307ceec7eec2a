"""ACDC: a circuit worked out by hand, the algorithm as written down, and one circuit however it is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hand_network import HandModel, hand_problem
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.circuit import edge_circuit, ends
from circuits.donors import resample_donor
from circuits.edge_patches import EdgeBench
from circuits.engine.cuts import cut_masks, kept_masks
from circuits.engine.edges import EdgeRun
from circuits.engine.exact import ExactRun
from circuits.errors import CircuitError, ModelError
from circuits.graph import Graph
from circuits.methods import METHODS
from circuits.methods.acdc import AcdcOptions, Search
from circuits.methods.method import Problem
from circuits.metrics import Closeness, logit_difference
from circuits.models.bridge import BridgeModel, load_model
from circuits.patches import ReplacementOptions
from circuits.readout import Readout
from circuits.scores import Scores

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]


def _score(model: Any, problem: Problem, **options: object) -> Scores:
    method = METHODS.load("acdc")
    scores = method.score(model, problem, method.configure(options))
    assert isinstance(scores, Scores)
    return scores


# From the logits down, on t = 1. First the direct edges to the logits go (the answer is then 66 + 14 = 80), but
# m1's, worth 260. m1 reads b and d: with a0.h0 cut, (8 + 1)^2 instead of 8^2, so 17; and so on. a1.h1 feeds nothing.
PATHS = {
    "input->a0.h0<v>",
    "input->a0.h1<v>",
    "a0.h0->m0",
    "a0.h1->a1.h0<v>",
    "m0->m1",
    "a1.h0->m1",
    "m1->logits",
}


@pytest.mark.parametrize("at_once", [1, 2, 64])
@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (10, {*PATHS, "a0.h0->m1"}),
        # Beside the cut of a0.h0->m1 that of m0->m1 makes 12^2 of 9^2, which is 63; alone it would make 57.
        (60, PATHS),
        (10_000, set()),
    ],
)
def test_a_circuit_worked_out_by_hand(threshold: float, kept: set[str], at_once: int) -> None:
    scores = _score(
        HandModel(), hand_problem(), metric_change="absolute", threshold=threshold, at_once=at_once
    )
    assert set(_kept(scores)) == kept
    assert scores.edges is not None
    assert scores.edges.of("a1.h0->logits") == 74 - 80
    assert scores.edges.of("m1->logits") == 80 - 340
    if threshold == 60:
        assert scores.edges.of("m0->m1") == 9**2 - 12**2
    if threshold == 10_000:
        # Only the edges into the logits were tested; nothing else was left to feed.
        assert scores.details["n_untested"] == len(HandModel.graph.places) - 7


def test_what_raises_the_metric_is_cut_where_drops_count() -> None:
    assert _kept(_score(HandModel(), hand_problem(), metric_change="drop", threshold=1)) == []


def _kept(scores: Scores) -> list[str]:
    kept = scores.details["kept_edges"]
    assert isinstance(kept, list)
    return kept


def _as_written(model: BridgeModel, problem: Problem, threshold: float, change: str) -> set[str]:
    """Algorithm 1 of Conmy et al.; one pass over all prompts an edge. Of edges into what feeds nothing, it sees that
    cutting them changes nothing."""
    assert model.weights is not None
    graph, runs = model.graph, []
    for batch in problem.batches:
        own = model.run(batch.clean).logits
        metric = Closeness(own) if change == "kl" else problem.metric
        run = ExactRun(model.weights, batch.clean, resample_donor(batch.corrupt), 2**28)
        runs.append((EdgeRun(run, graph), Readout(batch, metric)))

    def value(kept: set[str]) -> float:
        metrics = [run.measure(kept_masks(graph, [kept]), readout).metric[0] for run, readout in runs]
        return float(torch.cat(metrics).mean())

    kept = set(graph.places)
    targets = ["logits"]
    for layer in reversed(range(graph.n_layers)):
        targets += [f"m{layer}", *(f"a{layer}.h{head}" for head in range(graph.n_heads))]
    now = value(kept)
    for target in targets:
        for edge in [edge for edge in graph.places if ends(edge)[1] == target]:
            less = value(kept - {edge})
            if (abs(now - less) if change == "absolute" else now - less) < threshold:
                kept, now = kept - {edge}, less
    return kept


@pytest.mark.slow
@pytest.mark.parametrize(("change", "threshold"), [("kl", 0.005)])
def test_it_is_the_algorithm_as_it_is_written_down(
    change: str, threshold: float, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny("tiny-llama")
    asked = problem(model, 2)
    found = _score(model, asked, metric_change=change, threshold=threshold)
    assert set(_kept(found)) == _as_written(model, asked, threshold, change)
    assert 5 < len(_kept(found)) < 100


@pytest.mark.parametrize(
    ("name", "change", "order"),
    [
        ("tiny-gpt2", "kl", "graph"),
        ("tiny-gpt2", "absolute", "graph"),
        ("tiny-neox", "drop", "graph"),
        ("tiny-gemma", "kl", "weakest-first"),
    ],
)
def test_the_circuit_does_not_depend_on_how_many_are_tested_at_once(
    name: str, change: str, order: str, tiny: Tiny
) -> None:
    model = tiny(name)
    asked = Problem(make_batches(model, prompt_pairs(3, templates=1)), logit_difference)
    one, *others = (
        _score(model, asked, metric_change=change, order=order, threshold=0.02, at_once=n) for n in (1, 64)
    )
    assert one.edges is not None
    assert one.details["forwards"] == one.details["rows"]
    for other in others:
        assert _kept(other) == _kept(one)
        assert other.edges is not None
        np.testing.assert_allclose(other.edges.samples, one.edges.samples, atol=2e-5)
        assert other.details["n_untested"] == one.details["n_untested"]
        assert _count(other, "forwards") < _count(one, "forwards") / 2
    assert 0 < len(_kept(one)) < len(model.graph.places)


def _count(scores: Scores, what: str) -> int:
    count = scores.details[what]
    assert isinstance(count, int)
    return count


@pytest.mark.slow
def test_on_a_trained_model_few_forwards_find_the_circuit_of_many() -> None:
    from cli.prompt_source import sample_task
    from tasks import TASKS

    model = load_model("plain-4l")
    drawn = sample_task(model, TASKS.load("ioi"), form="plain", corruption="swap", n=2, seed=3)
    asked = Problem(make_batches(model, drawn.pairs), logit_difference)
    one, many = (_score(model, asked, threshold=0.05, at_once=n) for n in (1, 32))
    assert _kept(one) == _kept(many)
    assert 10 * _count(many, "forwards") < _count(one, "forwards") < _count(many, "rows")
    assert _count(one, "rows") + _count(one, "n_untested") == 1 + len(model.graph.places)


def test_what_is_left_standing_is_the_circuit_that_was_measured(tiny: Tiny, problem: MakeProblem) -> None:
    """The divergence of the circuit is the sum of the changes of all edges that were cut."""
    model = tiny("tiny-gpt2")
    asked = problem(model)
    scores = _score(model, asked, threshold=0.01)
    circuit = scores.circuit
    assert circuit is not None
    assert circuit == edge_circuit(model.graph, _kept(scores), "acdc", circuit.selection)
    assert "0.01" in circuit.selection
    bench = EdgeBench(model, asked, ReplacementOptions(), "test", closeness=True)
    left = bench.measure(kept_masks(model.graph, [_kept(scores)]))[0]
    assert scores.edges is not None
    cut = [i for i, edge in enumerate(scores.edges.components) if edge not in set(_kept(scores))]
    np.testing.assert_allclose(scores.edges.samples[:, cut].sum(1), -left, atol=1e-4)
    assert left.mean() < -0.01


def test_closeness_is_the_divergence_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    own, runs = torch.randn(3, 7, generator=generator), torch.randn(2, 3, 7, generator=generator)
    found = Closeness(own)(runs, [(0,)] * 3, [(1,)] * 3)
    for run, values in zip(runs, found, strict=True):
        each = torch.nn.functional.kl_div(
            run.log_softmax(-1), own.log_softmax(-1), reduction="none", log_target=True
        )
        torch.testing.assert_close(values, -each.sum(-1))
    torch.testing.assert_close(Closeness(own)(own, [(0,)] * 3, [(1,)] * 3), torch.zeros(3))


def test_surprises_cost_rows_and_change_nothing() -> None:
    """On any measure, however rough: decisions are those of one at a time."""
    graph = Graph(2, 2, 1)
    weights = (
        torch.rand(len(graph.sources), len(graph.readers), generator=torch.Generator().manual_seed(0)) - 0.3
    )

    def rough(cut: torch.Tensor) -> np.ndarray:
        total = (cut * weights).sum((1, 2))
        return -(total + torch.sin(17 * total))[:, None].double().numpy()

    def found(at_once: int, order: str) -> Search:
        options = AcdcOptions(threshold=0.1, at_once=at_once, order=order, metric_change="drop")
        search = Search(graph, rough, options)
        assert list(search.run())[-1] <= len(graph.places)
        return search

    for order in ("graph", "weakest-first"):
        one = found(1, order)
        assert 0 < len(one.kept) < len(graph.places)
        for at_once in (2, 7, 100):
            other = found(at_once, order)
            assert other.kept == one.kept
            assert {e: float(c[0]) for e, c in other.changes.items()} == pytest.approx(
                {e: float(c[0]) for e, c in one.changes.items()}
            )
            assert torch.equal(other.cut, one.cut)


def test_prompts_worked_one_by_one_have_their_own_divergence(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    assert model.weights is not None
    batch = problem(model).batches[0]
    readout = Readout(batch, Closeness(model.run(batch.clean).logits))
    out = [[edge for edge in model.graph.places if edge.startswith(f"{node}->")] for node in ("input", "m1")]
    cut = cut_masks(model.graph, out)
    large, small = (
        EdgeRun(ExactRun(model.weights, batch.clean, resample_donor(batch.corrupt), memory), model.graph)
        .measure(cut, readout)
        .metric
        for memory in (2**28, 1)
    )
    torch.testing.assert_close(large, small, atol=1e-5, rtol=1e-4)
    assert large.std(1).min() > 1e-5


@pytest.mark.parametrize("options", [{"threshold": "-1"}, {"threshold": "nan"}, {"at_once": "0"}])
def test_settings_that_cannot_be_are_refused(options: dict[str, str]) -> None:
    name = next(iter(options))
    with pytest.raises(CircuitError, match=rf"acdc\.{name}: Input should be .*, got '{options[name]}'"):
        METHODS.load("acdc").configure(options)


def test_a_model_that_the_engine_does_not_cover_is_refused(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gemma2")
    with pytest.raises(ModelError, match="acdc needs the exact engine"):
        _score(model, problem(model))
