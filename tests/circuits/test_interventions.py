"""Interventions: they are what TransformerLens's hooks give, they touch nothing else, and chance stays chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import prompt_pairs
from torch import Tensor

from circuits.batches import Batch, make_batches
from circuits.donors import mean_donor
from circuits.errors import CircuitError, ModelError
from circuits.interventions.downstream import attention, downstream
from circuits.interventions.effect import Answers, answers, controls, effect, random_heads
from circuits.interventions.intervention import Attend, Mean, Scale, edits, require_possible
from circuits.interventions.positions import Elsewhere, Named, Side, require_named
from circuits.methods.logit_attribution import attribute
from circuits.metrics import logit_difference
from circuits.model import Site
from circuits.models.bridge import BridgeModel

Tiny = Callable[[str], BridgeModel]
HEADS = ("a0.h1", "a0.h3", "a1.h2", "a2.h0")
S2 = Named(("S2",))


@pytest.fixture(scope="module")
def batch(gpt2: BridgeModel) -> Batch:
    (only,) = make_batches(gpt2, prompt_pairs(6, templates=1))
    return only


@pytest.fixture(scope="module")
def bridge(directory: Callable[[str], Path]) -> Any:
    """TransformerLens's own model of the same files, loaded without our adapter."""
    from transformer_lens.model_bridge import TransformerBridge

    model: Any = TransformerBridge.boot_transformers(str(directory("tiny-gpt2")), device="cpu")
    return model.eval()


def _run(model: BridgeModel, batch: Batch, *interventions: Any) -> Tensor:
    return model.run(batch.clean, edit=edits(model, batch, interventions)).logits


# Two routes to one number


def _by_layer(model: BridgeModel, heads: tuple[str, ...]) -> dict[int, list[int]]:
    nodes = [model.graph.node(head) for head in heads]
    return {n.layer: [m.index for m in nodes if m.layer == n.layer] for n in nodes}


def test_attention_is_what_transformer_lens_makes_of_a_pattern(
    gpt2: BridgeModel, bridge: Any, batch: Batch
) -> None:
    onto = Named(("S2", "END"))
    rows = onto(batch).float() / 2

    def told(heads: list[int], pattern: Tensor, hook: Any) -> Tensor:
        pattern = pattern.clone()
        pattern[:, heads, -1] = rows[:, None]
        return pattern

    hooks = [
        (f"blocks.{layer}.attn.hook_pattern", lambda p, hook, heads=heads: told(heads, p, hook))
        for layer, heads in _by_layer(gpt2, HEADS).items()
    ]
    with torch.inference_mode():
        theirs = bridge.run_with_hooks(batch.clean, fwd_hooks=hooks)[:, -1]
    ours = _run(gpt2, batch, Attend(HEADS, onto))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours - _run(gpt2, batch)).abs().max() > 0.05


@pytest.mark.parametrize("factor", [0.0, -2.0, 0.5])
def test_scaling_is_what_transformer_lens_makes_of_values(
    gpt2: BridgeModel, bridge: Any, batch: Batch, factor: float
) -> None:
    def scaled(heads: list[int], v: Tensor, hook: Any) -> Tensor:
        v = v.clone()
        v[:, :, heads] *= factor
        return v

    hooks = [
        (f"blocks.{layer}.attn.hook_v", lambda v, hook, heads=heads: scaled(heads, v, hook))
        for layer, heads in _by_layer(gpt2, HEADS).items()
    ]
    with torch.inference_mode():
        theirs = bridge.run_with_hooks(batch.clean, fwd_hooks=hooks)[:, -1]
    ours = _run(gpt2, batch, Scale(HEADS, factor))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours - _run(gpt2, batch)).abs().max() > 0.05


def test_values_are_the_models_own_in_every_family(covered: str, tiny: Tiny) -> None:
    """The first token can look at itself alone, so what its heads put out are its values: groups, norms, biases."""
    model = tiny(covered)
    for batch in make_batches(model, prompt_pairs(4)):
        length = batch.clean.shape[1]

        def first(some: Batch, length: int = length) -> Tensor:
            return torch.nn.functional.one_hot(torch.zeros(len(some)).long(), length).bool()

        own = model.run(batch.clean, capture=[Site("z", 1)]).captured[Site("z", 1)]
        heads = tuple(h for h in model.graph.heads if h.startswith("a1."))
        changed = edits(model, batch, [Attend(heads, first)])
        told = model.run(batch.clean, edit=changed, capture=[Site("z", 1)]).captured[Site("z", 1)]
        torch.testing.assert_close(told[:, -1], own[:, 0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(told[:, :-1], own[:, :-1], atol=0, rtol=0)


def test_only_the_named_heads_change_and_only_in_the_last_row(gpt2: BridgeModel, batch: Batch) -> None:
    sites = [Site("z", layer) for layer in range(3)]
    own = gpt2.run(batch.clean, capture=sites).captured
    changed = edits(gpt2, batch, [Attend(("a1.h2",), S2)])
    told = gpt2.run(batch.clean, edit=changed, capture=sites).captured
    assert set(changed) == {Site("input", 1), Site("z", 1)}
    assert torch.equal(own[sites[0]], told[sites[0]])
    differs = (own[sites[1]] != told[sites[1]]).any(0).any(-1)
    assert differs.nonzero().tolist() == [[batch.clean.shape[1] - 1, 2]]
    later = (own[sites[2]] != told[sites[2]]).any(0).any(-1)
    assert set(later.nonzero()[:, 0].tolist()) == {batch.clean.shape[1] - 1}


def test_several_at_once_are_felt_by_each_other(gpt2: BridgeModel, bridge: Any, batch: Batch) -> None:
    """Attention that is told in layer 2 finds the values of a run in which a head of layer 0 is knocked out."""

    def none(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()
        z[:, :, 1] = 0
        return z

    def told(pattern: Tensor, hook: Any) -> Tensor:
        pattern = pattern.clone()
        pattern[:, 0, -1] = S2(batch).float()
        return pattern

    hooks = [("blocks.0.attn.hook_z", none), ("blocks.2.attn.hook_pattern", told)]
    with torch.inference_mode():
        theirs = bridge.run_with_hooks(batch.clean, fwd_hooks=hooks)[:, -1]
    both = _run(gpt2, batch, Scale(("a0.h1",)), Attend(("a2.h0",), S2))
    torch.testing.assert_close(both, theirs, atol=1e-4, rtol=0)
    assert (both - _run(gpt2, batch, Attend(("a2.h0",), S2))).abs().max() > 0.01


def test_factor_one_changes_nothing_and_zero_is_zero_ablation(gpt2: BridgeModel, batch: Batch) -> None:
    assert torch.equal(_run(gpt2, batch, Scale(HEADS, 1.0)), _run(gpt2, batch))

    def zero(z: Tensor) -> Tensor:
        z[:, :, 2] = 0
        return z

    torch.testing.assert_close(
        _run(gpt2, batch, Scale(("a1.h2",))), gpt2.run(batch.clean, edit={Site("z", 1): zero}).logits
    )


def test_mean_is_the_mean_over_prompts_at_each_position(gpt2: BridgeModel, batch: Batch) -> None:
    donor = mean_donor(gpt2, (batch,))
    both = torch.cat([batch.clean, batch.corrupt])
    mean = gpt2.run(both, capture=[Site("z", 1)]).captured[Site("z", 1)].mean(0)
    changed = edits(gpt2, batch, [Mean(("a1.h2",), donor)])
    z = gpt2.run(batch.clean, edit=changed, capture=[Site("z", 1)]).captured[Site("z", 1)]
    torch.testing.assert_close(z[:, :, 2], mean[None, :, 2].expand(len(batch), -1, -1))


def test_attribution_of_an_edited_run_sums_to_its_logit_difference(gpt2: BridgeModel, batch: Batch) -> None:
    changed = edits(gpt2, batch, [Scale(("a0.h1",), 3.0)])
    parts = attribute(gpt2, batch, batch.clean, changed)
    logits = gpt2.run(batch.clean, edit=changed).logits
    expected = logit_difference(logits, batch.answers, batch.distractors)
    torch.testing.assert_close(parts[:, :-1].sum(1), expected, atol=1e-4, rtol=0)
    own = attribute(gpt2, batch, batch.clean, {Site("final"): lambda value: value})
    torch.testing.assert_close(own, attribute(gpt2, batch, batch.clean), atol=1e-4, rtol=0)
    assert (own - parts).abs().max() > 0.01


def test_attention_read_in_an_edited_run_is_transformer_lenses(
    gpt2: BridgeModel, bridge: Any, batch: Batch
) -> None:
    def zero(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()
        z[:, :, 1] = 0
        return z

    seen = {}

    def keep(pattern: Tensor, hook: Any) -> None:
        seen[0] = pattern[:, :, -1].clone()

    with torch.inference_mode():
        hooks = [("blocks.0.attn.hook_z", zero), ("blocks.2.attn.hook_pattern", keep)]
        bridge.run_with_hooks(batch.clean, fwd_hooks=hooks)
    assert gpt2.weights is not None
    heads = tuple(f"a2.h{head}" for head in range(4))
    ours = attention(gpt2, gpt2.weights, batch, heads, [Scale(("a0.h1",))])
    torch.testing.assert_close(ours, seen[0], atol=1e-5, rtol=0)


# Where


def test_wrong_and_right_positions_are_found_by_name_and_by_token(gpt2: BridgeModel, batch: Batch) -> None:
    assert Side(gpt2).names([batch]) == ("S2",)
    assert Side(gpt2, right=True).names([batch]) == ()
    mask = Side(gpt2)(batch)
    tokens = [gpt2.token_string(int(t)) for t in batch.clean[mask]]
    assert tokens == [gpt2.token_string(pair.distractors[0]) for pair in batch.pairs]


def test_random_positions_are_as_many_unnamed_and_the_same_in_any_batches(gpt2: BridgeModel) -> None:
    pairs = prompt_pairs(6, templates=1)
    elsewhere = Elsewhere(S2, 3, 0)
    (whole,) = make_batches(gpt2, pairs)
    mask = dict(zip(whole.index, elsewhere(whole).tolist(), strict=True))
    assert all(sum(row) == 1 for row in mask.values())
    for pair, row in zip(whole.pairs, elsewhere(whole), strict=True):
        assert not set(row.nonzero()[:, 0].tolist()) & set(pair.positions.values())
    for batch in make_batches(gpt2, pairs, batch_size=2):
        assert elsewhere(batch).tolist() == [mask[index] for index in batch.index]
    assert Elsewhere(S2, 3, 1)(whole).tolist() != elsewhere(whole).tolist()


# Effects and controls


def _said(correct: list[int]) -> Answers:
    column = np.array(correct, dtype=float)
    return Answers(column * 2, column, column, 1 - column)


def test_fixed_and_new_errors_are_counted_prompt_by_prompt() -> None:
    found = effect(_said([1, 1, 0, 0, 0]), _said([1, 0, 1, 1, 0]), seed=0)
    assert (found.fixed, found.new_errors, found.n_prompts) == (2, 1, 5)
    assert found.correct.change.value == pytest.approx(0.2)
    assert found.metric.change.value == pytest.approx(0.4)
    assert found.correct.change.low < 0.2 < found.correct.change.high
    assert found.distracted.change.value == pytest.approx(-0.2)


def test_the_paired_interval_is_narrower_than_prompts_are_spread() -> None:
    spread = np.arange(50.0)
    one = Answers(spread, spread, spread, spread)
    other = Answers(spread + 1, spread, spread, spread)
    found = effect(one, other, seed=0).metric
    assert found.change.low == pytest.approx(1)
    assert found.change.high == pytest.approx(1)
    assert found.before.high - found.before.low > 5


def test_answers_come_in_the_order_of_the_prompts(gpt2: BridgeModel) -> None:
    pairs = prompt_pairs(6)
    whole = answers(gpt2, make_batches(gpt2, pairs), logit_difference)
    split = answers(gpt2, make_batches(gpt2, pairs, batch_size=1), logit_difference)
    np.testing.assert_allclose(whole.metric, split.metric, atol=1e-5)
    one = answers(gpt2, make_batches(gpt2, pairs[3:4]), logit_difference)
    assert whole.metric[3] == pytest.approx(one.metric[0], abs=1e-5)


def test_random_heads_keep_layers_and_avoid_the_circuit(gpt2: BridgeModel) -> None:
    named = ("a0.h0", "a0.h1", "a2.h3")
    drawn = random_heads(gpt2.graph, named, {"a2.h0"}, 50, seed=1)
    assert len(drawn) == len({frozenset(other.values()) for other in drawn}) == 50
    assert not {head for other in drawn for head in other.values()} & {*named, "a2.h0"}
    for other in drawn[
        :2
    ]:  # {h2, h3} of layer 0, and h1 or h2 of layer 2: there are no more of the same layers
        assert {other["a0.h0"], other["a0.h1"]} == {"a0.h2", "a0.h3"}
        assert other["a2.h3"] in ("a2.h1", "a2.h2")
    assert any(not other["a2.h3"].startswith("a2") for other in drawn[2:])
    # Where nothing lies outside the circuit, its own heads are drawn; where nothing is left, nothing.
    assert len(random_heads(gpt2.graph, ("a2.h3",), gpt2.graph.heads, 50, seed=1)) == 11
    assert random_heads(gpt2.graph, gpt2.graph.heads, (), 50, seed=1) == []


def test_a_control_as_good_as_the_intervention_is_called_so(gpt2: BridgeModel, batch: Batch) -> None:
    """Heads that are scaled by one do nothing, wherever they are."""
    (control,) = controls(gpt2, [batch], logit_difference, [Scale(("a0.h1",), 1.0)], n=3)
    assert control.metric.own == 0
    assert control.metric.reached == 3
    assert control.metric.p_value == 1
    assert control.as_good
    assert [c.kind for c in controls(gpt2, [batch], logit_difference, [Attend(("a0.h1",), S2)], n=2)] == [
        "random heads",
        "random positions",
    ]


def test_downstream_is_later_heads_that_are_not_touched(gpt2: BridgeModel, batch: Batch) -> None:
    scores = {f"a2.h{i}": float(i) for i in range(1, 4)}
    found = downstream(gpt2, [batch], [Scale(("a1.h2", "a2.h0"))], scores, seed=0)
    assert found is not None
    assert [head.name for head in found.heads] == ["a2.h1", "a2.h2", "a2.h3"]
    assert found.heads[0].score == 1
    assert found.sizes is not None
    parts = [
        attribute(gpt2, batch, batch.clean, edits(gpt2, batch, some))
        for some in ((), [Scale(("a1.h2", "a2.h0"))])
    ]
    column = gpt2.graph.components.index("a2.h1")
    assert found.heads[0].attribution.before.value == pytest.approx(
        float(parts[0][:, column].mean()), abs=1e-4
    )
    assert found.heads[0].attribution.after.value == pytest.approx(
        float(parts[1][:, column].mean()), abs=1e-4
    )
    assert downstream(gpt2, [batch], [Scale(("a2.h0",))], scores, seed=0) is None


# Mistakes


def test_what_cannot_be_done_is_named(gpt2: BridgeModel, batch: Batch, tiny: Tiny) -> None:
    with pytest.raises(CircuitError, match=r"a7\.h0 is not in this model.*\nm1 is no head"):
        require_possible(gpt2, [batch], [Scale(("a7.h0", "m1"))])
    with pytest.raises(CircuitError, match=r"a0\.h1 would be changed twice"):
        require_possible(gpt2, [batch], [Scale(("a0.h1",)), Attend(("a0.h1",), S2)])
    with pytest.raises(CircuitError, match="no head to intervene on"):
        require_possible(gpt2, [batch], [Scale(())])
    with pytest.raises(CircuitError, match="names IO: they name S2, END"):
        require_named([batch], ["IO"], "prompts of tiny")
    phi = tiny("tiny-phi")
    (own,) = make_batches(phi, prompt_pairs(4, templates=1))
    require_possible(phi, [own], [Scale(("a0.h1",))])
    with pytest.raises(ModelError, match="needs the exact engine, which does not serve tiny-phi"):
        require_possible(phi, [own], [Attend(("a0.h1",), S2)])
