"""Edge patching: numbers worked out by hand, TransformerLens's own, and what it says of wrong names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_network import HandModel, hand_problem
from tiny_models import prompt_pairs
from torch import Tensor

from circuits.batches import make_batches
from circuits.edge_patches import fitting_readers
from circuits.errors import CircuitError, ModelError
from circuits.graph import Graph
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel
from circuits.scores import Scores

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]


def _score(model: Any, problem: Problem, **options: object) -> Scores:
    method = METHODS.load("edge-patching")
    scores = method.score(model, problem, method.configure(options))
    assert scores.edges is not None
    return scores


BY_HAND = {
    "input->logits": 2 + 64 + 7,
    "input->a0.h0<v>": 1 + (8 + 4) ** 2 + 8,  # b = 2 + 6, d = 4
    "input->a0.h1<v>": 1 + (13 + 1) ** 2 + 13,  # c = 4, b = 1 + 12
    "a0.h0->m0": 1 + (7 + 4) ** 2 + 7,  # d = 4, but b = 7
    "a0.h0->m1": 1 + (8 + 1) ** 2 + 7,  # m1 alone sees b = 8
    "a0.h0->logits": 65 + 8,
    "a0.h1->a1.h0<v>": 1 + (13 + 1) ** 2 + 13,
    "m0->m1": 1 + (7 + 4) ** 2 + 7,
    "a1.h0->m1": 1 + (1 + 12 + 1) ** 2 + 7,
    "a1.h0->logits": 65 + 13,
    "m1->logits": 1 + 18**2 + 7,
}
"""Edge -> the answer's logit where it alone carries what it carries on the corrupt prompt; elsewhere it stays 72."""


def test_a_hand_computed_model() -> None:
    scores = _score(HandModel(), hand_problem()).edges
    assert scores is not None
    found = dict(zip(scores.components, scores.values, strict=True))
    assert found == {edge: 72 - BY_HAND.get(edge, 72) for edge in HandModel.graph.edges()}


def test_restoring_an_edge_of_the_hand_computed_model() -> None:
    scores = _score(HandModel(), hand_problem(), direction="denoising")
    assert scores.edges is not None
    # On t = 2 with m0 seen by m1 as on t = 1: a = 2 + (14 + 1)^2, b = 14.
    assert scores.edges.of("m0->m1") == 2 + 15**2 + 14 - 340
    assert scores.of("m0") == scores.edges.of("m0->m1")  # m0 feeds nothing else that reads d


def test_zeroing_an_edge_of_the_hand_computed_model() -> None:
    scores = _score(HandModel(), hand_problem(), ablation="zero", edges="m0->m1, *->logits").edges
    assert scores is not None
    assert scores.of("m0->m1") == 72 - (1 + 7**2 + 7)
    assert scores.of("m1->logits") == 64


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_every_head_to_head_edge_is_transformer_lens_own(
    gpt2: BridgeModel, directory: Callable[[str], Path], kind: Any
) -> None:
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.patching import get_act_patch_direct_path_all_sources

    (batch,) = make_batches(gpt2, prompt_pairs(6, templates=1))
    bridge: Any = TransformerBridge.boot_transformers(str(directory("tiny-gpt2")), device="cpu").eval()

    def metric(logits: Tensor) -> Tensor:
        return logit_difference(logits[:, -1], batch.answers, batch.distractors).mean()

    with torch.inference_mode():
        (_, clean), (_, corrupt) = (bridge.run_with_cache(side) for side in (batch.clean, batch.corrupt))
        unpatched = metric(bridge(batch.clean))
        theirs = unpatched - get_act_patch_direct_path_all_sources(
            bridge, batch.clean, corrupt, clean, metric, kind, verbose=False
        )
    edges = _score(gpt2, Problem((batch,), logit_difference), edges=f"a*->*<{kind}>").edges
    assert edges is not None
    for edge in edges.components:
        source, target = (gpt2.graph.node(end.split("<")[0]) for end in edge.split("->"))
        expected = float(theirs[source.layer, source.index, target.layer, target.index])
        assert edges.of(edge) == pytest.approx(expected, abs=1e-4)
    assert np.abs(edges.values).max() > 0.005
    assert len(edges.components) == 48


def test_some_edges_have_the_scores_that_they_have_among_all(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-llama")
    asked = problem(model)
    some, whole = (_score(model, asked, edges=edges) for edges in ("a0.*->a1.*<k>, m2->logits", "*"))
    assert some.edges is not None
    assert whole.edges is not None
    assert len(some.edges.components) == 4 * 2 + 1
    columns = [whole.edges.components.index(edge) for edge in some.edges.components]
    np.testing.assert_allclose(some.edges.samples, whole.edges.samples[:, columns], atol=1e-6)
    assert some.of("m2") == some.edges.of("m2->logits")
    assert some.of("m1") == 0


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        ("a9.*->*", "'a9.\\*->\\*' fits no edge of this model, which has 3 layers x 4 heads"),
        ("m0->m1,m2->m0", "m2 does not write before m0 reads"),
        ("", "'' is no edge name"),
    ],
)
def test_edges_that_do_not_exist_are_named(tiny: Tiny, problem: MakeProblem, edges: str, says: str) -> None:
    model = tiny("tiny-gpt2")
    with pytest.raises(CircuitError, match=says):
        _score(model, problem(model), edges=edges)


def test_receivers_by_name_and_pattern() -> None:
    graph = Graph(2, 4, 2)
    assert fitting_readers(graph, "m*, logits") == ("m0", "m1", "logits")
    assert fitting_readers(graph, "a1.h0") == ("a1.h0<q>", "a1.h0<k>", "a1.h0<v>")
    assert fitting_readers(graph, "a1.h1,a0.*<v>") == ("a0.h0<v>", "a0.h2<v>", "a1.h1<q>")
    with pytest.raises(CircuitError, match=r"'a1\.h1<k>' fits no receiver"):
        fitting_readers(graph, "a1.h1<k>")


def test_a_metric_that_is_no_number_names_the_prompt(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    asked = problem(model)
    bad = asked.batches[1].index[2]

    def metric(logits: Tensor, answers: Any, distractors: Any) -> Tensor:
        values = logit_difference(logits, answers, distractors)
        if answers == asked.batches[1].answers:
            values[..., 2] = torch.nan
        return values

    with pytest.raises(CircuitError, match=rf"no finite number on prompt {bad + 1} \('"):
        _score(model, Problem(asked.batches, metric), edges="*->logits")


def test_a_model_that_the_engine_does_not_cover_is_refused(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gemma2")
    with pytest.raises(ModelError, match="edge-patching needs the exact engine"):
        _score(model, problem(model))
