"""Precise fine-tuning: gradients by finite differences, files against the engine, and no bit beside the heads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from circuits.engine.weights import Weights
from circuits.errors import ModelError
from circuits.graph import Node
from circuits.methods.method import Problem
from circuits.models.bridge import BridgeModel, load_model
from circuits.models.tuned_copy import entry, write_tuned
from circuits.tuning.head_weights import Changes, changed, learned_changes, places, tuned_parts
from circuits.tuning.training import Example, Schedule, examples, final_state, surprise

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]
HEADS = ("a2.h2", "a0.h3", "a2.h0")


def _weights(model: BridgeModel) -> Weights:
    assert model.weights is not None
    return model.weights


def _random_changes(weights: Weights, heads: list[Node]) -> Changes:
    generator = torch.Generator().manual_seed(3)
    changes = {}
    for layer in {head.layer for head in heads}:
        n = len(places(heads, layer, weights.d_head))
        for part in tuned_parts(weights):
            shape = (n, weights.d_model) if part == "out" else (weights.d_model, n)
            changes[layer, part] = 0.3 * torch.randn(shape, generator=generator)
    return changes


def _loss(weights: Weights, taught: tuple[Example, ...]) -> float:
    said = [surprise(weights.logits(final_state(weights, e)), e.answers).sum() for e in taught]
    return float(torch.stack(said).sum())


def test_what_is_written_is_what_was_trained_and_nothing_else_differs_in_a_bit(
    covered: str, tiny: Tiny, problem: MakeProblem, directory: Callable[[str], Path], tmp_path: Path
) -> None:
    model = tiny(covered)
    weights, nodes = _weights(model), [model.graph.node(head) for head in HEADS]
    changes = _random_changes(weights, nodes)
    write_tuned(directory(covered), tmp_path, nodes, changes, weights.d_head)
    told = changed(weights, nodes, changes)
    again = load_model(str(tmp_path))
    for example in examples(problem(model, 4).batches):
        own = model.run(example.prompts.clean).logits
        written = again.run(example.prompts.clean).logits
        torch.testing.assert_close(written, told.logits(final_state(told, example)), atol=1e-4, rtol=1e-4)
        assert (written - own).abs().max() > 1e-2
    before, after = (load_file(place / "model.safetensors") for place in (directory(covered), tmp_path))
    assert set(before) == set(after)
    layers = {node.layer for node in nodes}
    model_type = {"tiny-gpt2": "gpt2"}.get(covered, "gpt_neox" if "neox" in covered else "llama")
    endings = {entry(model_type, layer, part) for layer in layers for part in tuned_parts(weights)}
    differing = {name: int((before[name] != after[name]).sum()) for name in before}
    touched = {name for name, n in differing.items() if n}
    assert {name for name in before if any(name.endswith(f".{e}") for e in endings)} == touched
    # As many numbers as the slices hold: none beside them.
    assert sum(differing.values()) == sum(change.numel() for change in changes.values())


def test_heads_learn_and_the_gradient_is_that_of_finite_differences(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    """Of many rows, so that products take the fast path that knows no gradient of weights."""
    model = tiny(covered)
    weights, taught = _weights(model), examples(problem(model, 12).batches)
    nodes = [model.graph.node("a1.h1")]
    zero = {
        (1, part): torch.zeros(
            (weights.d_head, weights.d_model) if part == "out" else (weights.d_model, weights.d_head),
            requires_grad=True,
        )
        for part in tuned_parts(weights)
    }
    told = changed(weights, nodes, zero)
    total = torch.stack([surprise(told.logits(final_state(told, e)), e.answers).sum() for e in taught]).sum()
    slopes = torch.autograd.grad(total, list(zero.values()))
    for (key, _), slope in zip(zero.items(), slopes, strict=True):
        way = slope / slope.norm()
        rest = {k: v.detach() for k, v in zero.items() if k != key}
        ends = [_loss(changed(weights, nodes, rest | {key: step * way}), taught) for step in (1e-2, -1e-2)]
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(float(slope.norm()), rel=3e-2)
        assert slope.norm() > 1e-3
    changes = learned_changes(weights, nodes, taught, Schedule(1e-2, 3), 0)
    assert _loss(changed(weights, nodes, changes), taught) < _loss(weights, taught) - 0.1


def test_layouts_that_are_not_known_are_refused_and_files_that_lack_heads(
    gpt2: BridgeModel, directory: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="models of type bloom lay out their heads is not known"):
        entry("bloom", 0, "query")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ModelError, match="holds no safetensors file"):
        write_tuned(tmp_path, tmp_path, [], {}, 8)
    nodes = [Node("head", 9, 0)]
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"holds no h.9.attn.c_attn.weight"):
        write_tuned(directory("tiny-gpt2"), tmp_path / "out", nodes, {(9, "query"): torch.zeros(32, 8)}, 8)
