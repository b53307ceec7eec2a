"""The audit: exact scores pass it, wrong signs and idle edges are named, and its settings are the scores' own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hand_network import HandModel, hand_problem
from test_edge_patching import MakeProblem, Tiny
from test_edge_patching import _score as edge_patching

from circuits.audit import verify
from circuits.edge_scores import edge_scores
from circuits.errors import CircuitError
from circuits.methods import METHODS
from cli.wording import audit_words


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_exact_scores_agree_with_themselves(direction: str, tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    asked = problem(model)
    scores = edge_patching(model, asked, direction=direction)
    audit = verify(model, asked, scores, 12)
    assert (audit.direction, audit.ablation, audit.n_prompts) == (direction, "resample", 8)
    assert audit.spearman.value == pytest.approx(1)
    assert audit.pearson.value == pytest.approx(1)
    assert audit.spearman.low is not None
    assert audit.spearman.low < 1
    assert not audit.sign_errors
    assert scores.edges is not None
    assert [edge.edge for edge in audit.edges] == list(scores.edges.ranking()[:12])
    for edge in audit.edges:
        assert edge.exact == pytest.approx(edge.score, abs=1e-5)
        assert edge.low <= edge.exact <= edge.high
    assert verify(model, asked, scores, 12) == audit
    assert json.loads(json.dumps(audit.record()))["edges"][0]["edge"] == audit.edges[0].edge


def test_wrong_signs_and_idle_edges_are_named() -> None:
    model, asked = HandModel(), hand_problem()
    scores = edge_patching(model, asked)
    assert scores.edges is not None
    first, second = scores.edges.ranking()[:2]  # m1->logits -260, then -138 twice
    idle = scores.edges.components.index("m0->logits")
    samples = scores.edges.samples.copy()
    samples[:, idle] = -150
    samples[:, scores.edges.components.index(second)] = 138
    audit = verify(model, asked, replace(scores, edges=replace(scores.edges, samples=samples)), 4)
    assert audit.edges[0].edge == first
    assert audit.sign_errors == (second,)
    assert audit.false_positives == ("m0->logits",)
    words = audit_words(audit)
    assert f"wrong sign: 1 ({second})" in words
    assert "1 (m0->logits)" in words
    assert "below 1% of the largest" in words


def test_fewer_than_three_edges_have_no_correlation() -> None:
    audit = verify(HandModel(), hand_problem(), edge_patching(HandModel(), hand_problem()), 2)
    assert audit.spearman.value is None
    assert "rank correlation undefined" in audit_words(audit)


def test_correlations_are_those_of_scipy(tiny: Tiny, problem: MakeProblem) -> None:
    from scipy.stats import pearsonr, spearmanr

    model = tiny("tiny-llama")
    asked, graph = problem(model), model.graph
    noise = np.random.default_rng(0).normal(size=(8, len(graph.sources), len(graph.readers)))
    audit = verify(model, asked, edge_scores("noise", graph, noise), 30)
    scores, exact = ([getattr(edge, name) for edge in audit.edges] for name in ("score", "exact"))
    assert audit.spearman.value == pytest.approx(spearmanr(scores, exact).statistic)
    assert audit.pearson.value == pytest.approx(pearsonr(scores, exact).statistic)
    assert audit.sign_errors


def test_what_cannot_be_verified_is_refused(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    asked, method = problem(model), METHODS.load("activation-patching")
    nodes = method.score(model, asked, method.configure({}))
    with pytest.raises(CircuitError, match="activation-patching scores no edges"):
        verify(model, asked, nodes, 3)
    with pytest.raises(CircuitError, match="0 edges cannot be verified"):
        verify(model, asked, edge_patching(model, asked, edges="*->logits"), 0)
