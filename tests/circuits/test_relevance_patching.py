"""Relevance patching: rules by hand on plain models, and the network that is linear where the rules say it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from linear_network import network, one_prompt
from tiny_models import FAMILIES, Hooked
from torch import Tensor, nn

from circuits.batches import Batch
from circuits.donors import resample_donor
from circuits.engine.forward import trace
from circuits.engine.linear import engine_linear
from circuits.engine.rules import TINY, Rules, SteadyNorm, proportional
from circuits.errors import ModelError
from circuits.methods.method import Problem
from circuits.methods.relevance_patching import METHOD
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel
from circuits.readout import Readout
from circuits.scores import Scores

Tiny = Callable[[str], BridgeModel]
Plain = Callable[[str], Hooked]
MakeProblem = Callable[..., Problem]

NO_RULES = {"norms": False, "activations": False, "gates": False}


def _score(model: BridgeModel, problem: Problem, **options: object) -> Scores:
    return METHOD.score(model, problem, METHOD.configure(options))


def _modules(model: nn.Module, *names: str) -> list[nn.Module]:
    """Of the classes so named; norms are found by "Norm"."""
    return [m for m in model.modules() if any(name in type(m).__name__ for name in names)]


# The rules as hooks of the plain model: what comes out is the same, what goes back is not.


def _steady(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """The norm's output at a fixed scale: output = (x - mean) * gain / scale + bias."""
    (x,) = args
    centred = x - x.mean(-1, keepdim=True) if isinstance(module, nn.LayerNorm) else x
    eps = getattr(module, "eps", None) or module.variance_epsilon
    gain = module.weight + 1 if "Gemma" in type(module).__name__ else module.weight
    result = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt().detach() * gain
    return result + module.bias if getattr(module, "bias", None) is not None else result


def _held(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return args[0] * (output / args[0]).detach()


def _halved(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (args[0] / 2 + args[0].detach() / 2,)


@contextmanager
def _rules(model: nn.Module) -> Iterator[None]:
    handles = [m.register_forward_hook(_steady) for m in _modules(model, "Norm")]
    handles += [m.register_forward_hook(_held) for m in _modules(model, "GELU", "SiLU")]
    downs = [m for name, m in model.named_modules() if name.endswith("down_proj")]
    handles += [m.register_forward_pre_hook(_halved) for m in downs]
    yield
    for handle in handles:
        handle.remove()


def _by_hand(by_hand: Hooked, batch: Batch) -> Tensor:
    """(corrupt - clean) times what the rules carry back at the clean run: [prompt, component]."""
    with _rules(by_hand.model):
        values, slopes = by_hand.gradients(
            batch.clean, lambda logits: logit_difference(logits, batch.answers, batch.distractors)
        )
    given, parts = by_hand.values(batch.corrupt), []
    for layer in range(by_hand.n_layers):
        for kind in ("z", "mlp"):
            effect = ((given[kind, layer] - values[kind, layer]) * slopes[kind, layer]).sum(-1).sum(1)
            parts.append(effect if kind == "z" else effect[:, None])
    return torch.cat(parts, -1)


def test_the_default_rules_by_hooks_on_the_plain_model_say_the_same(
    covered: str, tiny: Tiny, plain: Plain, problem: MakeProblem
) -> None:
    model = tiny(covered)
    for batch in problem(model).batches:
        task = Problem((replace(batch, index=tuple(range(len(batch)))),), logit_difference)
        theirs = -_by_hand(plain(covered), batch)
        np.testing.assert_allclose(_score(model, task).samples, theirs, atol=1e-4)
        for rule in NO_RULES:
            if rule != "gates" or covered in ("tiny-llama", "tiny-gemma"):
                without = _score(model, task, **{rule: False}).samples
                assert np.abs(without - theirs.numpy()).max() > 1e-3, rule


def test_without_rules_it_is_attribution_patching(covered: str, tiny: Tiny, problem: MakeProblem) -> None:
    from circuits.methods.attribution_patching import METHOD as ATTRIBUTION

    model, task = tiny(covered), problem(tiny(covered))
    theirs = ATTRIBUTION.score(model, task, ATTRIBUTION.configure({}))
    np.testing.assert_allclose(_score(model, task, **NO_RULES).samples, theirs.samples, atol=1e-6)
    assert np.abs(_score(model, task).samples - theirs.samples).max() > 1e-3


@contextmanager
def _frozen(by_hand: Hooked, tokens: Tensor) -> Iterator[None]:
    """GPT-2 as it is on `tokens`: scales of norms, ratios of activations, queries and keys stay theirs."""
    network, kept = by_hand.model.transformer, dict[nn.Module, Tensor]()

    def norm(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        centred = args[0] - args[0].mean(-1, keepdim=True)
        scale = kept.setdefault(module, (centred.pow(2).mean(-1, keepdim=True) + module.eps).sqrt())
        return centred / scale * module.weight + module.bias

    def activation(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return args[0] * kept.setdefault(module, output / args[0])

    def queries_and_keys(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        first = kept.setdefault(module, output[..., :64])
        return torch.cat([first, output[..., 64:]], -1)

    blocks = list(network.h)
    handles = [m.register_forward_hook(norm) for m in _modules(network, "Norm")]
    handles += [block.mlp.act.register_forward_hook(activation) for block in blocks]
    handles += [block.attn.c_attn.register_forward_hook(queries_and_keys) for block in blocks]
    by_hand.logits(tokens)
    yield
    for handle in handles:
        handle.remove()


def test_with_all_rules_it_is_exact_patching_of_the_network_that_is_frozen_so(
    gpt2: BridgeModel, plain: Plain, problem: MakeProblem
) -> None:
    """Under frozen norms, ratios and patterns GPT-2 is linear, so whole patches by plain hooks do what RelP says."""
    by_hand = Hooked(copy.deepcopy(plain("tiny-gpt2").model), FAMILIES["tiny-gpt2"])
    for batch in problem(gpt2).batches:
        task = Problem((replace(batch, index=tuple(range(len(batch)))),), logit_difference)
        scores, donor = _score(gpt2, task, attention=True), by_hand.values(batch.corrupt)
        with _frozen(by_hand, batch.clean):
            unpatched = logit_difference(by_hand.logits(batch.clean), batch.answers, batch.distractors)
            for column, name in enumerate(scores.components):
                node = gpt2.graph.node(name)
                place = ("z" if node.kind == "head" else "mlp", node.layer)

                def change(value: Tensor, given: Tensor = donor[place], node: Any = node) -> Tensor:
                    if node.kind == "mlp":
                        return given
                    value = value.clone()
                    value[:, :, node.index] = given[:, :, node.index]
                    return value

                logits = by_hand.logits(batch.clean, {place: change})
                effect = unpatched - logit_difference(logits, batch.answers, batch.distractors)
                np.testing.assert_allclose(scores.samples[:, column], effect, atol=1e-4)
        assert np.abs(scores.samples).max() > 0.05


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gemma"])
def test_relevance_is_conserved_where_nothing_has_a_bias(name: str, tiny: Tiny, problem: MakeProblem) -> None:
    """With all rules, the residual stream behind every layer, times what is carried back, is the metric."""
    weights = tiny(name).weights
    assert weights
    batch = problem(tiny(name)).batches[0]
    tokens = batch.clean.clone()
    other = tokens.clone()
    other[:, 0] = 3  # the first column differs, so that no relevance goes into columns that are not computed
    readout = Readout(batch, logit_difference)
    for rules, conserved in ((Rules(attention=True), True), (Rules(), False), (lambda same: same, False)):
        ruled = rules(weights)
        linear = engine_linear(ruled, tokens, resample_donor(other), readout)
        (slopes,) = linear.slopes
        run = trace(ruled, ruled.embed(tokens), answer_alone=True)
        metric = readout.of_residual(weights, run.after[None, :, -1]).metric[0]
        for layer, slope in enumerate(slopes.mlp[:-1]):
            relevance = (run.residual(layer + 1) * slope).sum((1, 2))
            gap = float((relevance - metric).abs().max())
            assert (gap < 1e-4) == conserved, (rules, layer, gap)


def test_a_network_of_fixed_factors_has_the_products_of_its_paths() -> None:
    """By hand, with a norm in front of each MLP that would bend: m0 carries 2 of x0, m1 takes m0's write on.

    All norms here are RMS norms with one scale each, read off the clean run.
    """
    weights = network([[(0, 1, 2.0)], [(1, 2, 3.0)]], answer=(0, 1, 1, 0))
    norm = SteadyNorm(torch.ones(4), None, 0.0, False)
    layers = tuple(replace(layer, mlp_norm=norm) for layer in weights.layers)
    readout = one_prompt(3, 5)
    donor = resample_donor(readout.batch.corrupt)
    linear = engine_linear(replace(weights, layers=layers), readout.batch.clean, donor, readout)
    # x = (3, 0, 0, 0): scale 1.5, m0 writes 4 to the second; x = (3, 4, 0, 0): scale 2.5; m1 carries 3 / 2.5.
    (slopes,) = linear.slopes
    assert slopes.mlp[0][0, 0].tolist() == pytest.approx([0, 1 + 3 / 2.5, 1, 0])
    assert slopes.mlp[1][0, 0].tolist() == pytest.approx([0, 1, 1, 0])


def test_an_activation_at_and_near_zero_keeps_its_slope() -> None:
    for activation in (nn.functional.gelu, nn.functional.silu, nn.functional.relu):
        x = torch.tensor([0.0, 1e-12, -1e-12, TINY / 2, 1.0, -2.0], requires_grad=True)
        y = proportional(activation)(x)
        torch.testing.assert_close(y, activation(x), atol=1e-6, rtol=0)
        (slope,) = torch.autograd.grad(y.sum(), x)
        assert slope.isfinite().all()
        torch.testing.assert_close(slope[4:], (activation(x) / x)[4:])
    (slope,) = torch.autograd.grad(proportional(nn.functional.gelu)(x).sum(), x)
    torch.testing.assert_close(slope[:4], torch.full((4,), 0.5), atol=1e-5, rtol=0)


def test_the_forward_pass_is_the_same_under_every_rule(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    weights, tokens = tiny(covered).weights, problem(tiny(covered)).batches[0].clean
    assert weights
    ruled = Rules(attention=True)(weights)
    runs = [trace(w, weights.embed(tokens)) for w in (weights, ruled)]
    torch.testing.assert_close(
        *(w.logits(run.after) for w, run in zip((weights, ruled), runs, strict=True)), atol=1e-4, rtol=0
    )


def test_models_without_the_engine_are_refused_by_name(tiny: Tiny, problem: MakeProblem) -> None:
    with pytest.raises(ModelError, match=r"relevance-patching needs the exact engine.*tiny-gemma2.*gemma2"):
        _score(tiny("tiny-gemma2"), problem(tiny("tiny-gemma2")))
