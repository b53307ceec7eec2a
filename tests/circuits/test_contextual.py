"""Contextual decomposition beside its rules written out as pairs, where it is exact, and the planted circuit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circuits.batches import make_batches
from circuits.donors import all_but_one, zero_donor
from circuits.engine.contextual import Decomposition, Parts, settled, through_affine, through_norm
from circuits.engine.exact import ExactRun
from circuits.engine.forward import Attention, Outputs, Trace, trace
from circuits.engine.weights import Affine, Layer, Norm, Weights
from circuits.errors import ModelError
from circuits.graph import Graph, Node
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel, load_model
from circuits.readout import Readout
from circuits.scores import Scores
from cli.prompt_source import sample_task
from tasks import TASKS

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]
Pair = tuple[Tensor, Tensor]
"""(b, g): what stems from the source, and the rest; both carried, so that their sum says something."""


def _linear(affine: Affine, pair: Pair) -> Pair:
    b, g = (x @ affine.weight for x in pair)
    if affine.bias is None:
        return b, g
    sizes = b.abs() + g.abs() + 1e-38
    return b + affine.bias * b.abs() / sizes, g + affine.bias * g.abs() / sizes


def _normed(norm: Norm, pair: Pair) -> Pair:
    b, g = pair
    total = b + g
    if norm.centres:
        scale = (total.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        b, g = b - b.mean(-1, keepdim=True), g - g.mean(-1, keepdim=True)
    else:
        scale = (total.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    b, g = b / scale * norm.gain, g / scale * norm.gain
    if norm.bias is None:
        return b, g
    sizes = pair[0].abs() + pair[1].abs() + 1e-38
    return b + norm.bias * pair[0].abs() / sizes, g + norm.bias * pair[1].abs() / sizes


def _signs(pair: Pair) -> Pair:
    b, g = pair
    opposite, b_wins = b * g < 0, b.abs() >= g.abs()
    return (
        torch.where(opposite, torch.where(b_wins, b + g, 0.0), b),
        torch.where(opposite, torch.where(b_wins, 0.0, b + g), g),
    )


def _added(*pairs: Pair) -> Pair:
    return _signs((sum(p[0] for p in pairs), sum(p[1] for p in pairs)))  # type: ignore[arg-type]


def _attended(weights: Weights, depth: int, normed: Pair) -> Pair:
    """z by head, and nothing from the heads of this layer."""
    length = normed[0].shape[1]
    layer = weights.layers[depth]
    at = Attention(weights, depth, weights.rotation(length) if weights.rotation else None)
    parts = [_linear(affine, normed) for affine in (layer.query, layer.key, layer.value)]
    b, g = ([part[i] for part in parts] for i in (0, 1))
    q, k, v = at.turned(*(x[None] for x in b), 0, 0)
    total = at.turned(*(x[None] + y[None] for x, y in zip(b, g, strict=True)), 0, 0)
    z_b = at.mix(at.pattern(q, k, None), v, None)[0]
    return z_b, at.mix(at.pattern(*total[:2], None), total[2], None)[0] - z_b


def _mlp(layer: Layer, pair: Pair) -> Pair:
    normed, act = _normed(layer.mlp_norm, pair), layer.activation
    b, g = _signs(_linear(layer.mlp_in, normed))
    if layer.gate is None:
        return _signs(_linear(layer.mlp_out, (act(b + g) - act(g), act(g))))
    gate_b, gate_g = _signs(_linear(layer.gate, normed))
    rest = act(gate_g) * g
    return _signs(_linear(layer.mlp_out, (act(gate_b + gate_g) * (b + g) - rest, rest)))


def _by_hand(
    weights: Weights, tokens: Tensor, source: Node, given: Tensor
) -> tuple[list[dict[str, Pair]], Pair]:
    """Sites of every layer, and the last logits; given: what the source is compared with."""
    x, sites = weights.embed(tokens), []
    pair = (torch.zeros_like(x), x)
    for depth, layer in enumerate(weights.layers):
        z = _attended(weights, depth, _normed(layer.attention_norm, pair))
        here = {"before": pair, "z": z}
        if source.kind == "head" and source.layer == depth:
            b, g = z[0].clone(), z[1].clone()
            b[:, :, source.index] = (z[0] + z[1])[:, :, source.index] - given
            g[:, :, source.index] = given
            z = (b, g)
        wrote = _linear(layer.out, (z[0].flatten(2), z[1].flatten(2)))
        between = pair if weights.parallel else _added(pair, wrote)
        mlp = _mlp(layer, between)
        here["mlp"] = mlp
        if source.kind == "mlp" and source.layer == depth:
            mlp = (mlp[0] + mlp[1] - given, given.expand_as(mlp[0]))
        pair = _added(pair, wrote, mlp) if weights.parallel else _added(between, mlp)
        sites.append(here)
    last = (pair[0][:, -1], pair[1][:, -1])
    return sites, _linear(weights.unembed, _normed(weights.final_norm, last))


def _zero_outputs(base: Trace) -> Outputs:
    outputs = base.outputs()
    return Outputs(tuple(map(torch.zeros_like, outputs.z)), tuple(map(torch.zeros_like, outputs.mlp)))


def _close(ours: Tensor, theirs: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)


def _follows(ours: Tensor, theirs: Tensor, most: float = 1e-4) -> None:
    """Where a part is nearly nothing, or nearly all, the rules jump, so that rounding decides a few numbers."""
    gap = (ours - theirs).abs()
    assert gap.median() < most
    assert gap.square().mean().sqrt() <= 1e-2 * theirs.square().mean().sqrt()


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-neox", "tiny-neox-serial", "tiny-llama"])
@pytest.mark.parametrize("source", [Node("head", 0, 2), Node("head", 1, 1), Node("mlp", 0)])
def test_parts_follow_the_rules_and_part_plus_rest_is_the_activation(
    name: str, source: Node, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(name)
    weights, tokens = model.weights, problem(model).batches[0].clean
    assert weights is not None
    with torch.no_grad():
        base = trace(weights, weights.embed(tokens))
        outputs = base.outputs()
        means = Outputs(
            *(tuple(x.mean(0, keepdim=True).expand_as(x) for x in kind) for kind in (outputs.z, outputs.mlp))
        )
        given = (
            means.z[source.layer][:, :, source.index] if source.kind == "head" else means.mlp[source.layer]
        )
        sites, logits = _by_hand(weights, tokens, source, given)
        # With a second source beside it, which must not be felt.
        among = [source, Node("head", 1, 3)] if source.layer == 0 else [Node("head", 0, 0), source]
        parts = Decomposition(weights, base, means, among)
        *layers, final = parts.climb()
        assert isinstance(final, Tensor)
        row = among.index(source)
        _follows(parts.logits(final)[row], logits[0])
    plain = model.run(tokens).logits
    _close(logits[0] + logits[1], plain, 1e-4)
    for at in layers:
        assert isinstance(at, Parts)
        for kind, (part, whole) in (("z", at.z), ("mlp", at.mlp)):
            b, g = sites[at.layer][kind]
            _close(b + g, whole, 1e-4)
            if len(part) > row and not (kind == "mlp" and source.layer == at.layer and source.kind == "mlp"):
                _follows(part[row], b)
    assert logits[0].abs().max() > 0.05, "a source without a part would test nothing"


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-neox", "tiny-llama", "tiny-gemma", "tiny-qwen3"])
def test_all_is_all_and_nothing_is_nothing(name: str, tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny(name)
    weights, tokens = model.weights, problem(model).batches[0].clean
    assert weights is not None
    with torch.no_grad():
        base = trace(weights, weights.embed(tokens))
        parts = Decomposition(weights, base, _zero_outputs(base), [])
        x = torch.stack([base.before[0], torch.zeros_like(base.before[0])])
        for depth in range(model.graph.n_layers):
            (_, _, z, mlp), x = parts._layer(depth, x)
            for part, whole in (z, mlp):
                _follows(part[0], whole, 1e-3)
                assert part[1].abs().max() == 0
        logits = parts.logits(x)
    _follows(logits[0], model.run(tokens).logits, 1e-3)
    assert logits[1].abs().max() == 0


def _linear_network() -> Weights:
    """Two layers without bends: attention looks everywhere alike, activations are themselves, norms do nothing."""
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Affine:
        return Affine(0.4 * torch.randn(*shape, generator=generator))

    # With so large an eps the scale is the same whatever passes.
    norm = Norm(torch.full((8,), 1e4), None, 1e8, False)
    layers = [
        Layer(
            attention_norm=norm,
            query=Affine(torch.zeros(8, 8)),
            key=Affine(torch.zeros(8, 8)),
            value=drawn(8, 8),
            out=drawn(8, 8),
            mlp_norm=norm,
            mlp_in=drawn(8, 12),
            mlp_out=drawn(12, 8),
            activation=lambda x: x,
            scale=1.0,
        )
        for _ in range(2)
    ]
    table = torch.randn(5, 8, generator=generator)
    return Weights(tuple(layers), 2, 2, 8, 4, False, 8, lambda ids: table[ids], None, norm, drawn(8, 5))


def test_a_linear_model_is_decomposed_exactly() -> None:
    """A part of the logits is what zero ablation takes away, by the exact engine."""
    weights, graph = _linear_network(), Graph(2, 2, 2)
    tokens = torch.tensor([[0, 3, 1, 4], [2, 2, 0, 1]])
    base = trace(weights, weights.embed(tokens))
    nodes = [graph.node(name) for name in graph.components]
    parts = Decomposition(weights, base, _zero_outputs(base), nodes, by_sign=False)
    *_, final = parts.climb()
    assert isinstance(final, Tensor)
    ours = parts.logits(final)
    run = ExactRun(weights, tokens, zero_donor(), 2**28)
    assert run.base is not None
    pair = _pair_of_logits()
    readout = Readout(pair(tokens), lambda logits, answers, distractors: logits[..., 0] - logits[..., 3])
    ablated = run.measure(all_but_one(graph, graph.components), readout).metric
    effect = run.unpatched(readout).metric - ablated
    _close(ours[..., 0] - ours[..., 3], effect, 1e-4)
    assert effect.abs().max() > 0.1
    by_sign = Decomposition(weights, base, _zero_outputs(base), nodes)
    *_, final = by_sign.climb()
    assert isinstance(final, Tensor)
    assert (by_sign.logits(final) - ours).abs().max() > 0.01, "the sign rule is what is not linear"


def _pair_of_logits() -> Callable[[Tensor], Any]:
    from circuits.batches import Batch, TokenPair

    def batch(tokens: Tensor) -> Batch:
        rows = [tuple(row) for row in tokens.tolist()]
        pairs = tuple(TokenPair(row, row, (0,), (3,), {}, row) for row in rows)
        return Batch(tuple(range(len(rows))), tokens, tokens, pairs)

    return batch


def test_the_rules_alone() -> None:
    part, whole = torch.tensor([[3.0, 1.0, -1.0, 2.0]]), torch.tensor([1.0, -1.0, -3.0, 3.0])
    # Rests are -2, -2, -2 and 1: the first part wins, the second loses, the others have the rest's sign.
    assert settled(part, whole).tolist() == [[1.0, 0.0, -1.0, 2.0]]
    affine = Affine(torch.eye(4), torch.tensor([4.0, 4.0, 4.0, 4.0]))
    shared = through_affine(affine, part, whole)
    _close(shared, part + 4 * torch.tensor([3 / 5, 1 / 3, 1 / 3, 2 / 3]))
    norm = Norm(torch.ones(4), torch.zeros(4), 0.0, True)
    _close(through_norm(norm, whole[None], whole), torch.nn.functional.layer_norm(whole, (4,))[None], 1e-4)


def _score(model: BridgeModel, problem: Problem, **options: object) -> Scores:
    method = METHODS.load("cd-t")
    return method.score(model, problem, method.configure(options))


@pytest.fixture(scope="module")
def planted() -> tuple[BridgeModel, Problem]:
    model = load_model("planted-ioi")
    drawn = sample_task(model, TASKS.load("ioi"), form="plain", corruption="swap", n=12, seed=0)
    return model, Problem(make_batches(model, drawn.pairs), logit_difference)


PLANTED = {"share": 0.12, "by_layer": False, "sign_rule": False, "targets": "inputs"}


def test_the_planted_circuit_is_found_from_the_logits_down(planted: tuple[BridgeModel, Problem]) -> None:
    scores = _score(*planted, **PLANTED)
    assert scores.circuit is not None
    assert scores.circuit.nodes == ("a0.h2", "a1.h4", "a2.h1", "a2.h3")
    first, second = scores.details["steps"]  # type: ignore[misc]
    assert list(first["joined"]) == ["a2.h1", "a2.h3"]  # type: ignore[index]
    assert second["targets"] == ["a2.h1", "a2.h3"]  # type: ignore[index]
    own, none = (float(scores.details[key]) for key in ("metric", "metric_of_none"))  # type: ignore[arg-type]
    assert abs(float(scores.details["metric_of_circuit"]) - own) < 0.05 * own  # type: ignore[arg-type]
    assert none < 0
    assert min(scores.of(head) for head in scores.circuit.nodes) > 0.05
    others = [abs(scores.of(h)) for h in scores.components if h not in scores.circuit]
    assert max(others) < 0.01


def test_what_tells_a_head_where_to_look_is_seen_at_its_inputs_alone(
    planted: tuple[BridgeModel, Problem],
) -> None:
    """a1.h4 writes where a2.h1 shall look: it has no part of what a2.h1 puts out, and one of its query."""
    model, problem = planted
    few, seen = replace(problem, batches=problem.batches[:1]), {}
    for targets in ("inputs", "outputs"):
        scores = _score(model, few, **PLANTED | {"targets": targets, "steps": 2})
        seen[targets] = "a1.h4" in dict(scores.details["steps"][1]["joined"])  # type: ignore[index]
    assert seen == {"inputs": True, "outputs": False}


def test_scores_do_not_change_with_the_batch_size_or_the_memory(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    one = _score(model, problem(model), steps=2)
    before, model.memory = model.memory, 2**19
    try:
        other = _score(model, problem(model, batch_size=3), steps=2)
    finally:
        model.memory = before
    np.testing.assert_allclose(one.samples, other.samples, atol=1e-3)
    assert one.circuit == other.circuit


@pytest.mark.parametrize("options", [{"ablation": "resample"}, {"ablation": "zero"}, {"components": "all"}])
def test_references_and_components(options: dict[str, str], tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-llama")
    scores = _score(model, problem(model, 4), steps=2, **options)
    assert scores.circuit is not None
    assert len(scores.circuit) <= len(scores.components)
    assert np.isclose(np.abs(scores.values).max(), 1)


def test_a_model_that_the_engine_does_not_know_is_refused_by_name(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-mixtral")
    with pytest.raises(ModelError, match="cd-t needs the exact engine"):
        _score(model, problem(model))
