"""Path patching: numbers worked out by hand, cut edges where they must agree, and two passes with plain hooks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_network import CLEAN, CORRUPT, HandModel, hand_problem
from tiny_models import prompt_pairs
from torch import Tensor

from circuits.batches import make_batches
from circuits.edge_patches import cut_effects, fitting_readers
from circuits.errors import CircuitError, ModelError
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.model import Site
from circuits.models.bridge import BridgeModel
from circuits.patches import ReplacementOptions
from circuits.scores import Scores

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]


def _score(model: Any, problem: Problem, **options: object) -> Scores:
    method = METHODS.load("path-patching")
    scores = method.score(model, problem, method.configure(options))
    assert isinstance(scores, Scores)
    return scores


@pytest.mark.parametrize(
    ("receivers", "freeze_mlps", "answers"),
    [
        # m0 sees b = 2 and writes d = 4, so m1 sees b = 8 and d = 4; a1.h0 goes through m1 too: (13 + 1)^2.
        ("logits", False, {"a0.h0": 1 + 12**2 + 8, "m0": 1 + 11**2 + 7, "a1.h0": 1 + 14**2 + 13, "m1": 332}),
        ("logits", True, {"a0.h0": 73, "a1.h0": 78, "m1": 332}),
        ("m1", False, {"a0.h0": 1 + 12**2 + 7, "m0": 1 + 11**2 + 7, "a1.h0": 1 + 14**2 + 7}),
        ("m1", True, {"a0.h0": 1 + 9**2 + 7, "m0": 1 + 11**2 + 7, "a1.h0": 1 + 14**2 + 7}),
        ("a1.h0<v>", False, {"a0.h1": 1 + 14**2 + 13}),
        ("a1.*", True, {"a0.h1": 1 + 14**2 + 13}),
        # The logits read a, b and m1 as frozen heads leave them, and m1's answer to b is not passed on.
        ("m1, logits", True, {"a0.h0": 73, "m0": 72, "a1.h0": 78, "m1": 332}),
    ],
)
def test_a_hand_computed_model(receivers: str, freeze_mlps: bool, answers: dict[str, float]) -> None:
    scores = _score(HandModel(), hand_problem(), receivers=receivers, freeze_mlps=freeze_mlps)
    for component, value in zip(scores.components, scores.values, strict=True):
        expected = (CLEAN - answers.get(component, CLEAN)) / abs(CLEAN - CORRUPT)
        assert value == pytest.approx(expected, abs=1e-7), component


@pytest.mark.parametrize("receivers", ["logits", "m1", "a2.h0", "a1.*<v>", "a1.h0<k>, a1.*<q>"])
def test_direct_paths_at_all_positions_are_cut_edges(
    covered: str, receivers: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(covered)
    asked, graph = problem(model), model.graph
    paths = _score(model, asked, receivers=receivers, freeze_mlps=True, position="all")
    readers = fitting_readers(graph, receivers)
    into = [[e for r in readers if (e := f"{sender}->{r}") in graph.places] for sender in graph.components]
    cut = cut_effects(model, asked, ReplacementOptions(), "cut", into)
    np.testing.assert_allclose(paths.samples * abs(_whole(paths)), cut, atol=2e-5)
    assert np.abs(cut).max() > 1e-3
    assert (paths.edges is not None) == (len(readers) == 1)
    if paths.edges is not None:
        assert paths.edges.components == tuple(edge for (edge,) in filter(None, into))


def _whole(scores: Scores) -> float:
    whole = scores.details["whole_effect"]
    assert isinstance(whole, float)
    return whole


@pytest.mark.parametrize("freeze_mlps", [False, True])
@pytest.mark.parametrize("position", ["last", "all"])
def test_paths_to_the_logits_are_one_pass_with_all_else_held(
    family: str, freeze_mlps: bool, position: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(family)
    asked = problem(model)
    if model.weights is None:
        with pytest.raises(ModelError, match="path-patching needs the exact engine"):
            _score(model, asked)
        return
    scores = _score(model, asked, freeze_mlps=freeze_mlps, position=position)
    where = slice(None) if position == "all" else slice(-1, None)
    layers, graph = range(model.graph.n_layers), model.graph
    frozen = [Site("z", layer) for layer in layers] + [Site("mlp", layer) for layer in layers] * freeze_mlps
    for batch in asked.batches:
        clean = model.run(batch.clean, capture=[Site(k, n) for k in ("z", "mlp") for n in layers])
        corrupt = model.run(batch.corrupt, capture=list(clean.captured)).captured
        before = logit_difference(clean.logits, batch.answers, batch.distractors)
        for column, sender in enumerate(map(graph.node, graph.components)):
            values = {site: clean.captured[site].clone() for site in frozen}
            own = Site("z" if sender.kind == "head" else "mlp", sender.layer)
            if own not in values:  # an unfrozen MLP: only its patched columns are set
                values[own] = clean.captured[own].clone()
            units = sender.index if sender.kind == "head" else slice(None)
            values[own][:, where, units] = corrupt[own][:, where, units]
            edits = {site: (lambda x, v=value: v) for site, value in values.items()}
            logits = model.run(batch.clean, edit=edits).logits
            after = logit_difference(logits, batch.answers, batch.distractors)
            found = scores.samples[list(batch.index), column] * abs(_whole(scores))
            np.testing.assert_allclose(found, (before - after).numpy(), atol=1e-4)
    assert np.abs(scores.values).max() > 1e-3


@pytest.mark.parametrize("position", ["last", "all"])
@pytest.mark.parametrize(
    "receivers", [("a2.h1<q>",), ("a1.h3<v>", "a2.h0<k>", "a2.h2<v>"), ("m1", "a2.h3<q>")]
)
def test_two_passes_with_transformer_lens_hooks(
    gpt2: BridgeModel,
    directory: Callable[[str], Path],
    receivers: Collection[str],
    position: str,
) -> None:
    """Pass 1 holds all heads but the sender, and notes what receivers read; pass 2 sets it. MLPs are free."""
    from transformer_lens.model_bridge import TransformerBridge

    (batch,) = make_batches(gpt2, prompt_pairs(4, templates=1))
    bridge: Any = TransformerBridge.boot_transformers(str(directory("tiny-gpt2")), device="cpu").eval()
    places: dict[str, list[int | None]] = {}
    for name in receivers:
        node = gpt2.graph.node(name.split("<")[0])
        hook = f"blocks.{node.layer}." + (f"attn.hook_{name[-2]}" if "<" in name else "hook_mlp_out")
        places.setdefault(hook, []).append(node.index if "<" in name else None)
    where = slice(None) if position == "all" else slice(-1, None)

    def metric(logits: Tensor) -> Tensor:
        return logit_difference(logits[:, -1], batch.answers, batch.distractors)

    def patched(layer: int, head: int) -> Tensor:
        noted: dict[str, Tensor] = {}

        def hold(name: str, z: Tensor, hook: Any) -> Tensor:
            z = clean[name].clone()
            if name == f"blocks.{layer}.attn.hook_z":
                z[:, where, head] = corrupt[name][:, where, head]
            return z

        def note(name: str, x: Tensor, hook: Any) -> None:
            noted[name] = x.clone()

        def put(name: str, x: Tensor, hook: Any) -> Tensor:
            for index in places[name]:
                part = (slice(None), slice(None)) if index is None else (slice(None), slice(None), index)
                x[part] = noted[name][part]
            return x

        def hooks(names: Collection[str], what: Callable[..., Any]) -> list[tuple[str, Any]]:
            return [(name, partial(what, name)) for name in names]

        bridge.run_with_hooks(batch.clean, fwd_hooks=hooks(z_names, hold) + hooks(places, note))
        return metric(bridge.run_with_hooks(batch.clean, fwd_hooks=hooks(places, put)))

    z_names = [f"blocks.{layer}.attn.hook_z" for layer in range(3)]
    scores = _score(
        gpt2, Problem((batch,), logit_difference), receivers=",".join(receivers), position=position
    )
    with torch.inference_mode():
        (_, clean), (_, corrupt) = (bridge.run_with_cache(side) for side in (batch.clean, batch.corrupt))
        before = metric(bridge(batch.clean))
        for sender in map(gpt2.graph.node, gpt2.graph.heads):
            column = scores.components.index(sender.name)
            ours = scores.samples[:, column] * abs(_whole(scores))
            theirs = before - patched(sender.layer, sender.index)
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
    assert np.abs(scores.values).max() > 1e-4


@pytest.mark.parametrize(
    ("receivers", "says"),
    [
        ("a9.h1", "'a9.h1' fits no receiver of this model, which has 3 layers x 4 heads"),
        ("logits, a0.h0<z>", "'a0.h0<z>' fits no receiver"),
        ("a0.h0<q>", "No component that is scored feeds a0.h0<q>"),
    ],
)
def test_receivers_that_cannot_be_are_named(
    gpt2: BridgeModel, problem: MakeProblem, receivers: str, says: str
) -> None:
    with pytest.raises(CircuitError) as refusal:
        _score(gpt2, problem(gpt2), receivers=receivers)
    assert says in str(refusal.value)


def test_a_metric_that_does_not_tell_clean_from_corrupt_has_no_shares(
    gpt2: BridgeModel, problem: MakeProblem
) -> None:
    flat = Problem(problem(gpt2).batches, lambda logits, answers, distractors: 0 * logits[..., 0])
    with pytest.raises(CircuitError, match="same on clean and corrupt"):
        _score(gpt2, flat)
