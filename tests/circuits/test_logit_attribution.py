"""Logit attribution: the parts add up to the logit difference, on every model whose writes add up."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from tiny_models import Hooked

from circuits.engine.forward import Step, steps
from circuits.errors import ModelError
from circuits.methods import logit_attribution
from circuits.methods.logit_attribution import METHOD, attribute
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel, load_model

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]


def _score(model: BridgeModel, problem: Problem, **options: object):
    return METHOD.score(model, problem, METHOD.configure(options))


@pytest.mark.parametrize("contrast", [False, True])
def test_parts_sum_to_the_plain_models_logit_difference(
    family: str, tiny: Tiny, plain: Callable[[str], Hooked], problem: MakeProblem, contrast: bool
) -> None:
    model, task = tiny(family), problem(tiny(family))
    scores = _score(model, task, contrast=contrast)
    expected = []
    for batch in task.batches:
        clean, corrupt = (
            logit_difference(plain(family).logits(side), batch.answers, batch.distractors)
            for side in (batch.clean, batch.corrupt)
        )
        expected += zip(batch.index, (clean - corrupt if contrast else clean).tolist(), strict=True)
    mean = np.mean([value for _, value in expected])
    parts = scores.details["parts"]
    assert isinstance(parts, dict)
    assert scores.values.sum() + parts["input"] + parts["biases"] == pytest.approx(mean, abs=1e-4)
    assert scores.details["logit_difference"] == pytest.approx(mean, abs=1e-4)
    assert scores.details["largest_gap"] < 1e-4  # type: ignore[operator]
    assert np.abs(scores.values).max() > 0.01


def test_biases_cancel_between_clean_and_corrupt_but_for_the_norm(
    gpt2: BridgeModel, problem: MakeProblem
) -> None:
    """What the unembedding adds is the same for both; only the scale of the last norm may differ."""
    plain_parts, contrast = (_score(gpt2, problem(gpt2), contrast=c).details["parts"] for c in (False, True))
    assert abs(contrast["biases"]) < 0.2 * abs(plain_parts["biases"])


def test_each_part_is_what_the_logit_difference_loses_without_it(
    gpt2: BridgeModel, plain: Callable[[str], Hooked], problem: MakeProblem
) -> None:
    """The definition, by hand: subtract a write from the last residual, keep the norm's centring and scale."""
    batch, by_hand = problem(gpt2).batches[0], plain("tiny-gpt2")
    parts, values = attribute(gpt2, batch, batch.clean), by_hand.values(batch.clean)
    network = by_hand.model.transformer
    with torch.no_grad():
        final = network(batch.clean, output_hidden_states=True)
        seen: list[torch.Tensor] = []
        handle = network.ln_f.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        network(batch.clean)
        handle.remove()
        last = seen[0][:, -1]
        scale = (last.var(-1, unbiased=False) + network.ln_f.eps).sqrt()

        def difference(x: torch.Tensor) -> torch.Tensor:
            normed = (x - x.mean(-1, keepdim=True)) / scale[:, None] * network.ln_f.weight + network.ln_f.bias
            return logit_difference(by_hand.model.lm_head(normed), batch.answers, batch.distractors)

        torch.testing.assert_close(
            difference(last),
            logit_difference(
                by_hand.model.lm_head(final.last_hidden_state[:, -1]), batch.answers, batch.distractors
            ),
        )
        for column, name in enumerate(gpt2.graph.components):
            node = gpt2.graph.node(name)
            if node.kind == "mlp":
                write = values["mlp", node.layer][:, -1]
            else:
                rows = network.h[node.layer].attn.c_proj.weight[8 * node.index : 8 * node.index + 8]
                write = values["z", node.layer][:, -1, node.index] @ rows
            lost = difference(last) - difference(last - write)
            torch.testing.assert_close(parts[:, column], lost, atol=1e-4, rtol=0)


@pytest.mark.parametrize("contrast", [False, True])
def test_engine_and_hooks_say_the_same(
    covered: str, tiny: Tiny, problem: MakeProblem, contrast: bool
) -> None:
    hooks = copy.copy(tiny(covered))
    hooks.weights = None
    ours, theirs = (
        _score(model, problem(tiny(covered)), contrast=contrast) for model in (tiny(covered), hooks)
    )
    assert tiny(covered).weights
    np.testing.assert_allclose(ours.samples, theirs.samples, atol=1e-5)
    for scores in (ours, theirs):
        assert set(scores.details["parts"]) == {"input", "biases"}  # type: ignore[call-overload]
    for part, value in ours.details["parts"].items():  # type: ignore[attr-defined]
        assert value == pytest.approx(theirs.details["parts"][part], abs=1e-5)  # type: ignore[index]


def test_what_a_layer_put_out_is_not_held_behind_it(
    gpt2: BridgeModel, problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weak references to what earlier layers put out are dead when a later one runs."""
    held: list[list[weakref.ref[torch.Tensor]]] = []

    def watched(*args: object, **settings: object) -> Iterator[Step]:
        seen: list[weakref.ref[torch.Tensor]] = []
        for step in steps(*args, **settings):  # type: ignore[arg-type]
            held.append([alive for alive in seen[:-2] if alive() is not None])
            seen += [weakref.ref(step.z), weakref.ref(step.between)]
            yield step

    monkeypatch.setattr(logit_attribution, "steps", watched)
    _score(gpt2, problem(gpt2))
    assert len(held) == 2 * gpt2.graph.n_layers
    assert not any(held)


def test_links_are_what_reaches_the_logits(gpt2: BridgeModel, problem: MakeProblem) -> None:
    scores = _score(gpt2, problem(gpt2))
    parts = scores.details["parts"]
    assert isinstance(parts, dict)
    assert {target for _, target in scores.links} == {"logits"}
    assert scores.links["input", "logits"] == parts["input"]
    for component in scores.components:
        assert scores.links[component, "logits"] == pytest.approx(scores.of(component))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tiny-gemma2", "changes what its components write.*gap"),
        ("tiny-olmo2", "changes what its components write.*gap"),
        ("tiny-cohere", "logits are not its final norm times its unembedding"),
    ],
)
def test_models_that_do_not_add_up_are_refused_by_name(
    name: str, reason: str, tiny: Tiny, problem: MakeProblem
) -> None:
    with pytest.raises(ModelError, match=f"{name}.*{reason}") as refusal:
        _score(tiny(name), problem(tiny(name)))
    assert "Use activation-patching instead" in str(refusal.value)


def test_capped_logits_are_refused_by_name(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match="tiny-gemma2 caps its logits"):
        tiny("tiny-gemma2").unembedding()


def test_half_precision_is_no_reason_to_refuse(
    directory: Callable[[str], object], problem: MakeProblem
) -> None:
    model = load_model(str(directory("tiny-gpt2")), dtype="bfloat16")
    scores = _score(model, problem(model))
    full = _score(load_model(str(directory("tiny-gpt2"))), problem(model))
    np.testing.assert_allclose(scores.values, full.values, atol=0.05)
