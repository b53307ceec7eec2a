"""Attention moved to a token itself, and away from sinks: by rows that are worked out here, and by two routes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circuits.engine.head_runs import HeadRuns, look
from circuits.engine.patterns import evenly, itself, looking
from circuits.errors import CircuitError, ModelError
from circuits.interventions import sinks as sinks_module
from circuits.interventions.choice import choose_heads
from circuits.interventions.intervention import Calibrate, Interpolate, edits, require_possible
from circuits.interventions.sinks import calibrated, received, sinks
from circuits.methods.method import Problem
from circuits.models.bridge import BridgeModel
from circuits.roles.attention import pattern

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]
HEADS = ("a0.h1", "a1.h3", "a1.h0", "a2.h2")


def _random_pattern(n: int = 12, heads: int = 3) -> Tensor:
    scores = torch.randn(2, heads, n, n, generator=torch.Generator().manual_seed(0))
    return scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def test_targets_are_rows_of_attention() -> None:
    torch.testing.assert_close(evenly(3, 3), torch.tensor([[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3] * 3]))
    torch.testing.assert_close(itself(3, 3), torch.eye(3))
    for target in (evenly, itself):
        torch.testing.assert_close(target(2, 5), target(5, 5)[-2:])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_interpolation_by_hooks_is_interpolation_of_the_pattern(
    covered: str, share: float, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(covered)
    assert model.weights is not None
    nodes = [model.graph.node(head) for head in HEADS]
    for batch in problem(model, 4).batches:
        own = model.run(batch.clean).logits
        hooked = model.run(batch.clean, edit=edits(model, batch, [Interpolate(HEADS, share)])).logits
        runs = HeadRuns(model.weights, batch.clean)
        told = model.weights.logits(runs.final(nodes, look(itself, share)))
        torch.testing.assert_close(hooked, told, atol=1e-4, rtol=0)
        assert ((hooked - own).abs().max() < 1e-5) == (share == 0)


def test_a_head_that_looks_elsewhere_leaves_the_others_their_pattern(
    gpt2: BridgeModel, problem: MakeProblem
) -> None:
    assert gpt2.weights is not None
    (batch, *_) = problem(gpt2, 4).batches
    stream = HeadRuns(gpt2.weights, batch.clean).base.before[1]
    told = looking(gpt2.weights, [gpt2.graph.node("a1.h2")], evenly)
    own, changed = (pattern(weights, 1, stream) for weights in (gpt2.weights, told))
    length = batch.clean.shape[1]
    torch.testing.assert_close(changed[:, 2], evenly(length, length).expand(len(batch), -1, -1))
    torch.testing.assert_close(changed[:, [0, 1, 3]], own[:, [0, 1, 3]])
    assert told.layers[0] is gpt2.weights.layers[0]


# Sinks


def test_calibration_takes_from_sinks_and_keeps_rows_whole() -> None:
    own = _random_pattern()
    own[:, 0] = 0.2 * own[:, 0]
    own[:, 0, :, 4] += 0.8 * (torch.arange(12) >= 4)
    own[:, 0, :4, 0] += 0.8
    at = sinks(own)
    assert at[:, 0].nonzero()[:, 1].unique().tolist() == [4]
    told = calibrated(own)
    torch.testing.assert_close(told.sum(-1), torch.ones_like(told[..., 0]))
    torch.testing.assert_close(told[:, 0, 1:, 4], 0.4 * own[:, 0, 1:, 4])
    ratio = told[:, 0, 6, [1, 2, 3, 5]] / own[:, 0, 6, [1, 2, 3, 5]]
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert ratio.min() > 1


def test_without_a_sink_behind_the_first_position_nothing_changes_but_row_0() -> None:
    own = torch.zeros(1, 1, 12, 12)
    own[..., 0] = 1
    assert received(own)[0, 0].tolist() == [1] + [0] * 11
    torch.testing.assert_close(calibrated(own), own)
    even = evenly(40, 40)[None, None]
    at = sinks(even)
    torch.testing.assert_close(calibrated(even), torch.where(at.any(), calibrated(even), even))
    assert not at[..., :8].any()


def test_a_row_that_looks_at_a_sink_alone_keeps_it() -> None:
    own = torch.zeros(1, 1, 8, 8)
    own[0, 0, :2, 0] = 1
    own[0, 0, 2:, 2] = 1
    torch.testing.assert_close(calibrated(own), own)
    assert sinks(own)[0, 0].tolist() == [False, False, True] + [False] * 5


def test_calibrated_heads_read_what_their_new_pattern_weighs(gpt2: BridgeModel, problem: MakeProblem) -> None:
    """With every bound on sinks passed by none or all, the run is the model's own or another."""
    (batch, *_) = problem(gpt2, 4).batches
    own = gpt2.run(batch.clean).logits
    same = gpt2.run(batch.clean, edit=edits(gpt2, batch, [Calibrate(HEADS, factor=1.0)])).logits
    torch.testing.assert_close(same, own, atol=1e-4, rtol=0)


def test_what_reads_patterns_needs_the_engine(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gptj")
    for done in (Interpolate(HEADS, 0.5), Calibrate(HEADS)):
        with pytest.raises(ModelError, match="Changing where heads attend needs the exact engine"):
            require_possible(model, problem(model, 4).batches, [done])


def test_heads_are_chosen_by_what_they_gain_alone(
    gpt2: BridgeModel, problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sinks are made common, as tiny prompts have none; gains are worked out anew, prompt by prompt."""
    monkeypatch.setattr(sinks_module, "LEAST", 1.1)
    batches, heads = problem(gpt2, 6).batches, gpt2.graph.heads
    found = choose_heads(gpt2, batches, heads)

    def surprise(head: str | None) -> float:
        total = []
        for batch in batches:
            done = edits(gpt2, batch, [Calibrate((head,))] if head else [])
            log_p = gpt2.run(batch.clean, edit=done).logits.log_softmax(-1)
            total += [float(row[token]) for row, (token,) in zip(log_p, batch.answers, strict=True)]
        return sum(total) / len(total)

    gains = {head: surprise(head) - surprise(None) for head in heads}
    assert found.gains == pytest.approx(gains, abs=1e-5)
    assert set(found.chosen) == {head for head, gain in gains.items() if gain > 1e-5}
    assert 0 < len(found.chosen) < len(heads)
    assert list(found.chosen) == sorted(found.chosen, key=lambda head: -found.gains[head])
    assert found.n_prompts == 6


def test_where_no_head_has_a_sink_there_is_nothing_to_choose(
    gpt2: BridgeModel, problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks_module, "LEAST", 1e6)
    with pytest.raises(CircuitError, match="Of 12 heads none raises the answer's log-probability"):
        choose_heads(gpt2, problem(gpt2, 4).batches, gpt2.graph.heads)
