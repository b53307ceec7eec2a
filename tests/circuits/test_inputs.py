"""What heads read, patched exactly and to first order, beside TransformerLens's own hooks on the same files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from micro_model import Micro, micro_problem
from torch import Tensor

from circuits.batches import Batch
from circuits.engine.inputs import head_part_names, part_names
from circuits.engine.linear_inputs import one_logit_moved
from circuits.errors import CircuitError, ModelError
from circuits.graph import Graph
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel
from circuits.scores import Scores

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]
Bridge = Callable[[str], Any]

HOOKS = {"q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v", "pattern": "attn.hook_pattern"}
"""Before rotation, which turns both runs' queries and keys of a position alike."""


@pytest.fixture(scope="module")
def bridge(directory: Callable[[str], Path]) -> Bridge:
    """TransformerLens's own model of the same files, loaded without our adapter."""
    from transformer_lens.model_bridge import TransformerBridge

    return cache(lambda name: TransformerBridge.boot_transformers(str(directory(name)), device="cpu").eval())


def _score(name: str, model: Any, problem: Problem, **options: object) -> Scores:
    method = METHODS.load(name)
    return method.score(model, problem, method.configure({"inputs": True, **options}))


def _patched(
    bridge: Any, part: str, base: Tensor, cache: Any, where: int | None, read: str | None = None
) -> Tensor:
    """Last logits, or what passes at the hook `read`, where one part is the donor's, at one position or at all."""
    hook, unit = _place(part)
    seen: list[Tensor] = []
    positions = slice(None) if where is None else slice(where, where + 1)

    def change(value: Tensor, hook: Any) -> Tensor:
        value = value.clone()
        given = cache[hook.name]
        if part.startswith("resid"):
            value[:, positions] = given[:, positions]
        elif hook.name.endswith("pattern"):
            value[:, unit, positions] = given[:, unit, positions]
        else:
            value[:, positions, unit] = given[:, positions, unit]
        return value

    hooks: list[Any] = [(hook, change)]
    if read is not None:
        hooks.append((read, lambda value, hook: seen.append(value.clone())))
    with torch.inference_mode():
        logits = bridge.run_with_hooks(base, fwd_hooks=hooks)[:, -1]
    return logits if read is None else seen[0]


def _place(part: str) -> tuple[str, int]:
    """Hook and the head, or the kv head, of a part."""
    if part.startswith("resid"):
        return f"blocks.{part[5:]}.hook_resid_pre", 0
    layer, rest = part[1:].split(".h")
    head, kind = rest[:-1].split("<")
    return f"blocks.{layer}.{HOOKS[kind]}", int(head)


def _unit(model: BridgeModel, part: str) -> str:
    """The part as TransformerLens counts: k and v by kv head."""
    group = model.graph.n_heads // model.graph.n_kv_heads
    if part[-3:] not in ("<k>", "<v>") or group == 1:
        return part
    layer, rest = part.split(".h")
    head, kind = rest.split("<")
    return f"{layer}.h{int(head) // group}<{kind}"


def _run_with_cache(bridge: Any, tokens: Tensor) -> Any:
    with torch.inference_mode():
        return bridge.run_with_cache(tokens)[1]


@pytest.mark.parametrize("direction", [pytest.param("noising", marks=pytest.mark.slow), "denoising"])
def test_exact_patches_are_those_by_transformer_lens_hooks(
    covered: str, tiny: Tiny, bridge: Bridge, problem: MakeProblem, direction: str
) -> None:
    model, theirs, batch = tiny(covered), bridge(covered), problem(tiny(covered), 6).batches[-1]
    task, sign = Problem((batch,), logit_difference), -1 if direction == "noising" else 1
    scores = _score("activation-patching", model, task, direction=direction, positions="named").parts
    assert scores
    assert scores.components == part_names(model.graph)
    base, donor = (batch.clean, batch.corrupt)[:: 1 if direction == "noising" else -1]
    given, rows = _run_with_cache(theirs, donor), np.argsort(batch.index)
    with torch.inference_mode():
        unpatched = _read(theirs(base)[:, -1], batch)
    for column, part in enumerate(scores.components):
        unit = _unit(model, part)
        effect = sign * (_read(_patched(theirs, unit, base, given, None), batch) - unpatched)
        np.testing.assert_allclose(scores.samples[:, column], effect[rows], atol=1e-4)
        for name, values in scores.by_position.items():
            position = batch.pairs[0].positions[name]
            effect = sign * (_read(_patched(theirs, unit, base, given, position), batch) - unpatched).mean()
            assert values[column] == pytest.approx(float(effect), abs=1e-4)
    assert list(scores.by_position) == ["S2", "END"]
    for kind in HOOKS:
        sizes = [abs(scores.of(c)) for c in scores.components if c.endswith(f"<{kind}>")]
        assert max(sizes) > 1e-3, kind


def _read(logits: Tensor, batch: Batch) -> Tensor:
    return logit_difference(logits, batch.answers, batch.distractors)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gemma"])
def test_queries_and_keys_are_those_behind_rotation(
    name: str, tiny: Tiny, bridge: Bridge, problem: MakeProblem
) -> None:
    """The same effects where TransformerLens's hooks behind rotation are patched."""
    model, theirs, batch = tiny(name), bridge(name), problem(tiny(name), 6).batches[0]
    scores = _score("activation-patching", model, Problem((batch,), logit_difference)).parts
    given, rows = _run_with_cache(theirs, batch.corrupt), np.argsort(batch.index)
    group = model.graph.n_heads // model.graph.n_kv_heads
    assert scores
    with torch.inference_mode():
        unpatched = _read(theirs(batch.clean)[:, -1], batch)
        for hook, kind, unit, head in (("hook_rot_q", "q", 3, 3), ("hook_rot_k", "k", 0, 0 * group)):

            def change(value: Tensor, hook: Any, unit: int = unit) -> Tensor:
                value = value.clone()
                value[:, :, unit] = given[hook.name][:, :, unit]
                return value

            logits = theirs.run_with_hooks(batch.clean, fwd_hooks=[(f"blocks.1.attn.{hook}", change)])[:, -1]
            column = scores.components.index(f"a1.h{head}<{kind}>")
            effect = unpatched - _read(logits, batch)
            np.testing.assert_allclose(scores.samples[:, column], effect[rows], atol=1e-4)
            assert effect.abs().max() > 1e-3


def test_the_residual_stream_at_all_positions_is_the_other_prompt(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model, task = tiny(covered), problem(tiny(covered))
    scores = _score("activation-patching", model, task).parts
    assert scores
    for batch in task.batches:
        clean, corrupt = (_read(model.run(side).logits, batch) for side in (batch.clean, batch.corrupt))
        for layer in range(model.graph.n_layers):
            column = scores.components.index(f"resid{layer}")
            np.testing.assert_allclose(scores.samples[list(batch.index), column], clean - corrupt, atol=1e-4)


def test_names_of_parts_are_those_of_edges() -> None:
    graph = Graph(2, 4, 2)
    named = set(head_part_names(graph, 1))
    assert {entry for head in graph.heads[4:] for entry in graph.inputs(head)} <= named
    assert named - {entry for head in graph.heads for entry in graph.inputs(head)} == {
        f"a1.h{head}<pattern>" for head in range(4)
    }
    assert part_names(graph)[0] == "resid0"
    assert len(set(part_names(graph))) == 2 * (1 + 4 + 2 + 2 + 4)


# To first order.


def _slopes(bridge: Any, hooks: list[str], batch: Batch) -> dict[str, Tensor]:
    """Gradient of the metric at hooks of TransformerLens's model."""
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> Tensor:
        seen[hook.name] = value
        return value

    logits = bridge.run_with_hooks(batch.clean, fwd_hooks=[(name, keep) for name in hooks])[:, -1]
    found = torch.autograd.grad(_read(logits, batch).sum(), list(seen.values()))
    return dict(zip(seen, found, strict=True))


def test_the_qk_fix_is_an_exact_patch_up_to_the_heads_output_and_a_slope_behind_it(
    covered: str, tiny: Tiny, bridge: Bridge, problem: MakeProblem
) -> None:
    """Brute force: what every head puts out under an exact patch by hooks, times the gradient there."""
    model, theirs, batch = tiny(covered), bridge(covered), problem(tiny(covered), 4).batches[-1]
    task = Problem((batch,), logit_difference)
    scores = _score("attribution-patching", model, task, positions="named").parts
    assert scores
    given, own = (_run_with_cache(theirs, side) for side in (batch.corrupt, batch.clean))
    slopes = _slopes(theirs, [f"blocks.{layer}.attn.o.hook_in" for layer in range(3)], batch)
    rows = np.argsort(batch.index)
    for column, part in enumerate(scores.components):
        hook, unit = f"blocks.{part[1]}.attn.o.hook_in", _unit(model, part)

        def effect(position: int | None, unit: str = unit, hook: str = hook) -> Tensor:
            z = _patched(theirs, unit, batch.clean, given, position, hook)
            return -((z - own[hook]) * slopes[hook]).flatten(1).sum(1)

        np.testing.assert_allclose(scores.samples[:, column], effect(None)[rows], atol=2e-5)
        for name, values in scores.by_position.items():
            theirs_there = effect(batch.pairs[0].positions[name]).mean()
            assert values[column] == pytest.approx(float(theirs_there), abs=2e-5)


def test_without_the_fix_q_and_k_are_taken_by_their_slopes(
    covered: str, tiny: Tiny, bridge: Bridge, problem: MakeProblem
) -> None:
    model, theirs = tiny(covered), bridge(covered)
    batch = problem(model, 4).batches[-1]
    task = Problem((batch,), logit_difference)
    scores = _score("attribution-patching", model, task, qk_fix=False).parts
    fixed = _score("attribution-patching", model, task).parts
    assert scores
    assert fixed
    given, own = (_run_with_cache(theirs, side) for side in (batch.corrupt, batch.clean))
    hooks = {kind: [f"blocks.{layer}.attn.{kind}.hook_out" for layer in range(3)] for kind in "qkv"}
    if "blocks.0.attn.q_norm.hook_out" in theirs.hook_dict:
        pytest.skip("queries and keys are normalised behind these hooks, and linearised behind that")
    slopes = _slopes(theirs, [name for names in hooks.values() for name in names], batch)
    rows = np.argsort(batch.index)
    for kind, names in hooks.items():
        effects = [-((given[n] - own[n]) * slopes[n]).sum((1, 3)) for n in names]
        columns = [i for i, c in enumerate(scores.components) if c.endswith(f"<{kind}>")]
        np.testing.assert_allclose(scores.samples[:, columns], torch.cat(effects, 1)[rows], atol=2e-5)
        same = np.abs(fixed.samples[:, columns] - scores.samples[:, columns]).max() < 1e-6
        assert same == (kind == "v")


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_closed_form_of_one_moved_logit_is_softmax_worked_out_anew(scale: float) -> None:
    """Also where softmax is saturated, and a large move makes another source win."""
    generator = torch.Generator().manual_seed(0)
    scores, moves, slopes = (torch.randn(20, 7, generator=generator, dtype=torch.float64) for _ in range(3))
    scores, moves = scores * scale, moves * 2 * scale
    expected = torch.zeros_like(scores)
    for source in range(7):
        moved = scores.clone()
        moved[:, source] += moves[:, source]
        expected[:, source] = ((moved.softmax(-1) - scores.softmax(-1)) * slopes).sum(-1)
    scores[0, 1:] = expected[0] = -torch.inf
    expected[0] = 0
    ours = one_logit_moved(scores.float(), moves.float(), slopes.float())
    torch.testing.assert_close(ours, expected.float(), atol=1e-5 * scale, rtol=1e-4)
    assert (expected.abs() > 0.5).any()
    assert ours[0].abs().max() == 0


# What is refused.


@pytest.mark.parametrize("method", ["activation-patching", "attribution-patching"])
def test_models_without_the_engine_are_refused_by_name_and_reason(
    method: str, tiny: Tiny, problem: MakeProblem
) -> None:
    for model, task in ((tiny("tiny-gemma2"), problem(tiny("tiny-gemma2"))), (Micro(), micro_problem())):
        with pytest.raises(
            ModelError, match=f"{method}.inputs needs the exact engine.*{model.name}"
        ) as refusal:
            _score(method, model, task)
        assert model.path in str(refusal.value)
        assert "works on every model" in str(refusal.value) or "work on every model" in str(refusal.value)


def test_a_prompt_that_is_too_long_for_the_engine_is_the_reason(
    gpt2: BridgeModel, problem: MakeProblem
) -> None:
    from dataclasses import replace

    model = copy.copy(gpt2)
    assert gpt2.weights
    model.weights = replace(gpt2.weights, longest=14)
    with pytest.raises(ModelError, match="a prompt of 15 tokens is too long for it"):
        _score("activation-patching", model, problem(gpt2))


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_inputs_come_from_another_prompt(ablation: str) -> None:
    for method in ("activation-patching", "attribution-patching"):
        with pytest.raises(
            CircuitError, match=f"inputs are those of the other prompt, so ablation {ablation}"
        ):
            METHODS.load(method).configure({"inputs": True, "ablation": ablation})
