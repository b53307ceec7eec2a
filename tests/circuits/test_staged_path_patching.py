"""Staged path patching: a circuit known by construction, and stages that are runs of path-patching put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hand_network import CLEAN, CORRUPT, HandModel, hand_problem

from circuits.batches import make_batches
from circuits.errors import CircuitError, ModelError
from circuits.graph import Graph
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.methods.staged_path_patching import _inputs
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel, load_model
from circuits.scores import Scores
from cli.prompt_source import sample_task
from tasks import TASKS

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]


def _score(model: Any, problem: Problem, method: str = "staged-path-patching", **options: object) -> Scores:
    entry = METHODS.load(method)
    scores = entry.score(model, problem, entry.configure(options))
    assert isinstance(scores, Scores)
    return scores


def _stages(scores: Scores) -> Any:
    return scores.details["stages"]


@pytest.fixture(scope="module")
def planted() -> BridgeModel:
    return load_model("planted-ioi")


def test_the_planted_circuit_is_found_stage_by_stage(planted: BridgeModel) -> None:
    drawn = sample_task(planted, TASKS.load("ioi"), form="plain", corruption="swap", n=16, seed=0)
    problem = Problem(make_batches(planted, drawn.pairs), logit_difference)
    scores = _score(planted, problem, share=0.12)  # two of eighteen
    first, second, third = _stages(scores)
    assert first["receivers"] == ["logits"]
    assert list(first["kept"]) == ["a2.h1", "a2.h3"]
    assert second["receivers"] == ["a2.h1<q>", "a2.h3<q>"]
    assert list(second["kept"]) == ["a1.h4"]
    assert third["receivers"] == ["a1.h4<v>"]
    assert list(third["kept"]) == ["a0.h2"]
    assert [stage["position"] for stage in (first, second, third)] == ["last", "last", "all"]
    assert scores.circuit is not None
    assert scores.circuit.nodes == ("a0.h2", "a1.h4", "a2.h1", "a2.h3")
    assert "no component that is scored feeds k of a0.h2" in str(scores.details["notes"])
    assert [scores.of(head) for head in ("a0.h2", "a1.h4", "a2.h1")] == pytest.approx([1, 1, 1])
    assert scores.of("a2.h3") == pytest.approx(0.44 / 0.56, abs=0.01)
    # What stands at S2 cannot be seen by a patch at the last token.
    last = _score(planted, problem, share=0.12, position="last")
    assert _stages(last)[2]["largest_effect"] < 1e-5
    # Without the floor a stage fills up with heads that do nothing.
    full = _score(planted, problem, share=0.12, least=0)
    assert [len(stage["kept"]) for stage in _stages(full)] == [2, 2, 2]


def test_stages_of_a_hand_computed_model() -> None:
    """The logits read b, which a0.h0 and a1.h0 change through m1; a0.h1 feeds a1.h0's value alone."""
    scores = _score(HandModel(), hand_problem(), stages="logits,v", share=0.25, components="heads")
    (stage, after), whole = _stages(scores), abs(CLEAN - CORRUPT)
    assert list(stage["kept"]) == ["a1.h0"]
    into_logits = {"a0.h0": 72 - (1 + 12**2 + 8), "a1.h0": 72 - (1 + 14**2 + 13)}
    assert stage["kept"]["a1.h0"] == pytest.approx(into_logits["a1.h0"] / whole)
    assert after["receivers"] == ["a1.h0<v>"]
    assert after["kept"] == {"a0.h1": pytest.approx((72 - (1 + 14**2 + 13)) / whole)}
    expected = {
        "a0.h0": into_logits["a0.h0"] / abs(into_logits["a1.h0"]),
        "a0.h1": -1,
        "a1.h0": -1,
        "a1.h1": 0,
    }
    assert dict(zip(scores.components, scores.values, strict=True)) == pytest.approx(expected)


@pytest.mark.parametrize("options", [{}, {"position": "all", "freeze_mlps": True, "components": "all"}])
def test_a_stage_is_a_run_of_path_patching(
    covered: str, options: dict[str, Any], tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(covered)
    asked = problem(model)
    scores = _score(model, asked, stages="logits,q,k", share=0.25, **options)
    most = round(0.25 * len(scores.components))
    best, receiving = np.zeros(scores.samples.shape), set[str]()
    for stage, position in zip(_stages(scores), ("last", "last", "all"), strict=False):
        single = {"receivers": ",".join(stage["receivers"]), "position": position, "components": "heads"}
        alone = _score(model, asked, "path-patching", **{**single, **options})
        effects = [
            0 if c in receiving else v for c, v in zip(alone.components, alone.values.tolist(), strict=True)
        ]
        order = sorted(range(len(effects)), key=lambda i: -abs(effects[i]))[:most]
        kept = [alone.components[i] for i in order if abs(effects[i]) >= 0.01 * np.abs(effects).max()]
        assert list(stage["kept"]) == kept
        assert stage["kept"] == pytest.approx({name: alone.of(name) for name in kept}, rel=1e-3, abs=1e-5)
        mine = alone.samples * [c not in receiving for c in alone.components] / np.abs(effects).max()
        receiving = set(kept)
        best = np.where(np.abs(mine.mean(0)) > np.abs(best.mean(0)), mine, best)
    assert len(_stages(scores)) > 1 or "no component that is scored feeds q" in str(scores.details["notes"])
    np.testing.assert_allclose(scores.samples, best, atol=1e-3)
    assert scores.circuit is not None
    assert set(scores.circuit.nodes) == {name for stage in _stages(scores) for name in stage["kept"]}


def test_keys_of_grouped_heads_are_those_of_their_group() -> None:
    graph = Graph(2, 4, 2)
    assert list(_inputs(graph, ("a1.h3", "m0"), "k")) == ["m0", "a1.h2<k>"]
    assert list(_inputs(graph, ("a1.h3", "m0"), "q")) == ["m0", "a1.h3<q>"]


def test_scores_do_not_change_with_the_batch_size(gpt2: BridgeModel, problem: MakeProblem) -> None:
    one, two = (_score(gpt2, problem(gpt2, batch_size=size), share=0.25) for size in (64, 3))
    np.testing.assert_allclose(one.samples, two.samples, atol=1e-3)
    assert one.circuit == two.circuit


@pytest.mark.parametrize(
    ("option", "value"),
    [("stages", "q,v"), ("stages", "logits,z"), ("stages", ""), ("share", "0"), ("least", "2")],
)
def test_settings_that_cannot_be_are_refused(option: str, value: str) -> None:
    with pytest.raises(CircuitError, match=rf"staged-path-patching\.{option}: .* got '{value}'"):
        METHODS.load("staged-path-patching").configure({option: value})


def test_a_model_that_the_engine_does_not_cover_is_refused(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gemma2")
    with pytest.raises(ModelError, match="staged-path-patching needs the exact engine"):
        _score(model, problem(model))


def test_the_forecast_runs_the_method_on_few_prompts(gpt2: BridgeModel, problem: MakeProblem) -> None:
    asked, method = problem(gpt2), METHODS.load("staged-path-patching")
    forecast = method.work(gpt2, asked, method.configure({}))
    assert forecast is not None
    assert forecast.components == gpt2.graph.heads
    (rehearsal,) = forecast.rehearsals
    few = rehearsal.piece()
    assert isinstance(few, Scores)
    assert len(few.samples) == 2
    tokens = sum(batch.clean.numel() for batch in asked.batches)
    assert rehearsal.times == tokens / (2 * max(batch.clean.shape[1] for batch in asked.batches))
