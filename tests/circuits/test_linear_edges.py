"""Edges to first order: against exact cuts of small changes, against attribution patching, and on each other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from linear_network import NoNorm, network, one_prompt
from tiny_models import COVERED, prompt_pairs
from torch import Tensor

from circuits.attribution import prompt_bytes
from circuits.batches import make_batches
from circuits.donors import resample_donor, zero_donor
from circuits.edge_attribution import points_of
from circuits.engine.cuts import cut_masks, legal_edges
from circuits.engine.edges import EdgeRun
from circuits.engine.exact import ExactRun
from circuits.engine.linear_edges import OWN_RUN, Ends, embedding_path_edges, output_path_edges
from circuits.engine.receiver_edges import receiver_edges
from circuits.engine.weights import Affine, Weights
from circuits.errors import ModelError
from circuits.graph import INPUT, Graph
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import METRICS, logit_difference
from circuits.model import Model
from circuits.models.bridge import BridgeModel, load_model
from circuits.patching import measure
from circuits.readout import Readout
from circuits.scores import Scores

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]

ROOM = 2**28
BY_GRADIENT = ("eap", "clean-corrupted", "eap-ig-inputs", "eap-ig-activations", "relp")
THROUGH_ENGINE = (*BY_GRADIENT, "receiver-exact", "information-flow")


def run_method(name: str, model: Model, problem: Problem, **options: object) -> Scores:
    method = METHODS.load(name)
    return method.score(model, problem, method.configure(options))


def by_edge(name: str, model: Model, problem: Problem, **options: object) -> Scores:
    edges = run_method(name, model, problem, **options).edges
    assert edges is not None
    return edges


# Against exact cuts.


def _towards(weights: Weights, clean: Tensor, corrupt: Tensor, share: float) -> Weights:
    """The same, where the corrupt prompts' embedding lies a share of the way from the clean ones'."""

    def embed(tokens: Tensor) -> Tensor:
        whole = weights.embed(tokens)
        return torch.lerp(weights.embed(clean), whole, share) if torch.equal(tokens, corrupt) else whole

    return replace(weights, embed=embed)


def _all_edges(graph: Graph) -> Tensor:
    return cut_masks(graph, [[edge] for edge in graph.places])


def _listed(graph: Graph, matrix: Tensor) -> Tensor:
    """Entries of a matrix [prompt, source, reader] at the edges: [edge, prompt]."""
    return torch.stack([matrix[:, row, column] for row, column in graph.places.values()])


def test_eap_and_exact_receivers_are_the_limit_of_exact_cuts_for_small_changes(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    """Steps of one size there and back, so that what is left is of third order."""
    model, step = tiny(covered), 0.004
    assert model.weights is not None
    batch = problem(model, 4).batches[-1]
    readout, donor = Readout(batch, logit_difference), resample_donor(batch.corrupt)
    ways: list[list[Tensor]] = [[], [], []]
    for share in (step, -step):
        weights = _towards(model.weights, batch.clean, batch.corrupt, share)
        run = EdgeRun(ExactRun(weights, batch.clean, donor, ROOM), model.graph)
        unpatched = run.unpatched(readout).metric
        ways[0].append(run.measure(_all_edges(model.graph), readout).metric - unpatched)
        ends = Ends(weights, batch.clean, donor, readout)
        ways[1].append(_listed(model.graph, embedding_path_edges(ends, OWN_RUN, 1, ROOM)))
        ways[2].append(_listed(model.graph, receiver_edges(ends, ROOM)))
    expected, *slopes = ((there - back) / (2 * step) for there, back in ways)
    for slope in slopes:
        torch.testing.assert_close(slope, expected, atol=2e-3, rtol=5e-3)
    assert expected.abs().max() > 0.1


def test_on_a_linear_network_every_way_is_exact() -> None:
    """m0 reads the input, m1 both, the answer all: no norm, no bend, so no integral has anything to add."""
    weights = network([[(0, 1, 2.0)], [(0, 2, 3.0), (1, 2, -1.0)]], answer=(1, 4, 5, 0))
    graph, readout = Graph(2, 1, 1), one_prompt(3, 5)
    clean, donor = readout.batch.clean, resample_donor(readout.batch.corrupt)
    run = EdgeRun(ExactRun(weights, clean, donor, ROOM), graph)
    expected = run.measure(_all_edges(graph), readout).metric - run.unpatched(readout).metric
    # The token goes from 3 to 5: m0 from 6 to 10, m1 from 9 - 6 = 3 to 5.
    by_hand = {"input->m0": 2 * (2 * 4 - 2 * 5), "input->m1": 2 * 3 * 5, "m0->m1": -4 * 5}
    by_hand |= {"input->logits": 2, "m0->logits": 4 * 4, "m1->logits": 2 * 5}
    for edge, change in zip(graph.places, expected[:, 0].tolist(), strict=True):
        assert change == pytest.approx(by_hand.get(edge, 0), abs=1e-4)
    ends = Ends(weights, clean, donor, readout)
    for points in (OWN_RUN, points_of("trapezoid", 1), points_of("left", 3), points_of("midpoint", 2)):
        for path in (embedding_path_edges, output_path_edges):
            torch.testing.assert_close(_listed(graph, path(ends, points, 2, ROOM)), expected)
    torch.testing.assert_close(_listed(graph, receiver_edges(ends, ROOM)), expected)


@pytest.mark.parametrize("kind", ["resample", "zero"])
def test_receivers_are_exact_where_nothing_bends_behind_them(
    covered: str, kind: str, tiny: Tiny, problem: MakeProblem
) -> None:
    """Into the logits always; where no norm follows, into the last MLP, and where that is silent, into its heads."""
    model = tiny(covered)
    assert model.weights is not None
    batch, last = problem(model, 4).batches[-1], model.weights.layers[-1]
    readout = Readout(batch, logit_difference)
    donor = resample_donor(batch.corrupt) if kind == "resample" else zero_donor()
    no_norm = NoNorm(torch.ones(model.weights.d_model), None, 1e-5, False)
    flat = replace(model.weights, final_norm=no_norm)
    silent = replace(last, mlp_out=Affine(torch.zeros_like(last.mlp_out.weight)))
    quiet = replace(flat, layers=(*flat.layers[:-1], silent))
    for weights, into in ((model.weights, "logits"), (flat, "m2"), (quiet, "a2.")):
        edges = [edge for edge in model.graph.places if edge.split("->")[1].startswith(into)]
        run = EdgeRun(ExactRun(weights, batch.clean, donor, ROOM), model.graph)
        expected = run.measure(cut_masks(model.graph, [[edge] for edge in edges]), readout).metric
        expected = expected - run.unpatched(readout).metric
        matrix = receiver_edges(Ends(weights, batch.clean, donor, readout), ROOM)
        places = [model.graph.places[edge] for edge in edges]
        found = torch.stack([matrix[:, row, column] for row, column in places])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert expected.abs().max() > 0.05


def test_exact_receivers_come_nearer_to_exact_cuts_than_eap(tiny: Tiny, problem: MakeProblem) -> None:
    """Over all families; on a single one either may be lucky."""
    errors = np.zeros(2)
    for name in COVERED:
        model = tiny(name)
        assert model.weights is not None
        batch = problem(model, 4).batches[-1]
        readout, donor = Readout(batch, logit_difference), resample_donor(batch.corrupt)
        run = EdgeRun(ExactRun(model.weights, batch.clean, donor, ROOM), model.graph)
        exact = run.measure(_all_edges(model.graph), readout).metric - run.unpatched(readout).metric
        ends = Ends(model.weights, batch.clean, donor, readout)
        for i, found in enumerate((receiver_edges(ends, ROOM), embedding_path_edges(ends, OWN_RUN, 1, ROOM))):
            errors[i] += (_listed(model.graph, found) - exact).norm() / exact.norm()
    receiver, linear = errors
    assert receiver < 0.8 * linear


# What is known of sums of edges.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"direction": "denoising"},
        {"ablation": "mean"},
        pytest.param({"ablation": "zero"}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("edges", "nodes"), [("eap", "attribution-patching"), ("relp", "relevance-patching")]
)
def test_what_leaves_a_node_sums_to_its_attribution(
    covered: str, edges: str, nodes: str, options: dict[str, object], tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(covered)
    summed, whole = (run_method(name, model, problem(model), **options) for name in (edges, nodes))
    assert summed.components == whole.components
    np.testing.assert_allclose(summed.samples, whole.samples, atol=2e-5)
    assert np.abs(whole.samples).max() > 0.05


def _differences(model: BridgeModel, problem: Problem) -> np.ndarray:
    """Clean minus corrupt metric of every prompt."""
    found = np.zeros(sum(len(batch) for batch in problem.batches))
    for batch in problem.batches:
        clean, corrupt = (
            logit_difference(model.run(side).logits, batch.answers, batch.distractors)
            for side in (batch.clean, batch.corrupt)
        )
        found[list(batch.index)] = (clean - corrupt).numpy()
    return found


def test_what_leaves_the_input_integrates_to_the_whole_difference(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model, task = tiny(covered), problem(tiny(covered))
    expected = _differences(model, task)
    errors = {}
    for rule, steps in (("midpoint", 40), ("trapezoid", 40), ("left", 5)):
        edges = by_edge("eap-ig-inputs", model, task, rule=rule, steps=steps)
        leaving = [name.startswith(f"{INPUT}->") for name in edges.components]
        errors[rule] = np.abs(edges.samples[:, leaving].sum(1) - expected).max()
    assert errors["midpoint"] < 0.01 * np.abs(expected).max()
    assert errors["trapezoid"] < 0.01 * np.abs(expected).max()
    assert errors["left"] > errors["midpoint"]


def test_what_leaves_an_mlp_integrates_to_its_exact_effect(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    """And what leaves all heads of a layer, which move together, to that of patching them together."""
    model, task = tiny(covered), problem(tiny(covered))
    scores = run_method("eap-ig-activations", model, task, rule="midpoint", steps=40)
    groups = []
    for layer in range(model.graph.n_layers):
        groups += [[name for name in model.graph.heads if name.startswith(f"a{layer}.")], [f"m{layer}"]]
    keep = torch.tensor([[name not in group for name in scores.components] for group in groups])
    for batch in task.batches:
        donor = resample_donor(batch.corrupt)
        effects = measure(model, batch, logit_difference, keep=keep, donor=donor).metric
        clean = logit_difference(model.run(batch.clean).logits, batch.answers, batch.distractors)
        for group, effect in zip(groups, clean - effects, strict=True):
            columns = [scores.components.index(name) for name in group]
            summed = scores.samples[list(batch.index)][:, columns].sum(1)
            np.testing.assert_allclose(summed, effect.numpy(), atol=5e-3)
    assert np.abs(scores.samples).max() > 0.1


# Methods on each other.


def test_one_step_is_eap_at_that_point(covered: str, tiny: Tiny, problem: MakeProblem) -> None:
    model, task = tiny(covered), problem(tiny(covered))
    clean, corrupt = (by_edge("eap", model, task, direction=d) for d in ("noising", "denoising"))
    same = [
        (by_edge("eap-ig-inputs", model, task, steps=1), corrupt.samples),
        (by_edge("eap-ig-inputs", model, task, steps=1, rule="right"), clean.samples),
        (by_edge("eap-ig-activations", model, task, steps=1), clean.samples),
        (by_edge("clean-corrupted", model, task), (clean.samples + corrupt.samples) / 2),
        (by_edge("relp", model, task, norms=False, activations=False, gates=False), clean.samples),
    ]
    for found, expected in same:
        np.testing.assert_allclose(found.samples, expected, atol=2e-5)
    assert np.abs(clean.samples - corrupt.samples).max() > 1e-2


def test_the_published_rule_never_sees_the_clean_end() -> None:
    assert [p.share for p in points_of("left", 5)] == [0, 0.2, 0.4, 0.6, 0.8]
    assert [p.share for p in points_of("right", 2)] == [0.5, 1]
    assert [p.share for p in points_of("midpoint", 2)] == [0.25, 0.75]
    assert sorted(points_of("trapezoid", 2)) == [(0, 0.25), (0.5, 0.5), (1, 0.25)]
    assert all(sum(p.weight for p in points_of(rule, 4)) == 1 for rule in ("left", "midpoint", "trapezoid"))


def test_with_patterns_held_nothing_enters_queries_and_keys(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(covered)
    held = by_edge("relp", model, problem(model), attention=True)
    into = np.array([name.endswith(("<q>", "<k>")) for name in held.components])
    assert np.abs(held.samples[:, into]).max() == 0
    assert np.abs(held.samples[:, ~into]).max() > 0.01
    assert np.abs(by_edge("relp", model, problem(model)).samples[:, into]).max() > 0.01


# Information flow.


def test_flow_is_what_the_formula_says(covered: str, tiny: Tiny, problem: MakeProblem) -> None:
    """Each write by itself, through the model's own hooks and matrices."""
    model = tiny(covered)
    batch = problem(model).batches[-1]
    task = Problem((replace(batch, index=tuple(range(len(batch)))),), logit_difference)
    scores, graph = by_edge("information-flow", model, task), model.graph
    writes, biases = _writes(model, batch.clean)
    for reader in graph.readers:
        place = graph.node(reader.split("<")[0])
        below = [name for name in graph.sources if f"{name}->{reader}" in graph.places]
        read = sum(writes[name] for name in below)
        layers = place.layer + (place.kind == "mlp" and not graph.parallel)
        read = read + sum(biases[:layers], torch.zeros(()))
        near = {n: (read.abs().sum(-1) - (read - writes[n]).abs().sum(-1)).clamp_min(0) for n in below}
        total = sum(near.values())
        for name in below:
            expected = (near[name] / total.clamp_min(1e-30)).mean(1)
            column = scores.components.index(f"{name}->{reader}")
            np.testing.assert_allclose(scores.samples[:, column], expected.numpy(), atol=1e-4)


def _writes(model: BridgeModel, tokens: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
    from circuits.donors import component_sites
    from circuits.model import Site

    captured = model.run(tokens, capture=[Site("input", 0), *component_sites(model.graph)]).captured
    writes, biases = {INPUT: captured[Site("input", 0)]}, []
    for layer in range(model.graph.n_layers):
        weight, bias = model.head_writer(layer)
        for head in range(model.graph.n_heads):
            writes[f"a{layer}.h{head}"] = captured[Site("z", layer)][:, :, head] @ weight[head]
        writes[f"m{layer}"] = captured[Site("mlp", layer)]
        biases.append(bias)
    return writes, biases


def test_flow_into_a_reader_sums_to_one_and_has_no_sign(gpt2: BridgeModel, problem: MakeProblem) -> None:
    scores = run_method("information-flow", gpt2, problem(gpt2))
    assert scores.details["signed"] is False
    assert scores.edges is not None
    for reader in gpt2.graph.readers:
        into = [name.endswith(f"->{reader}") for name in scores.edges.components]
        np.testing.assert_allclose(scores.edges.samples[:, into].sum(1), 1, atol=1e-4)
    assert scores.edges.samples.min() >= 0


# Chance.


def test_random_scores_hang_on_the_seed_alone(gpt2: BridgeModel, tiny: Tiny, problem: MakeProblem) -> None:
    first, again, other = (by_edge("random", gpt2, problem(gpt2, seed=seed), trials=50) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert np.abs(np.corrcoef(first.values, other.values)[0, 1]) < 0.2
    assert first.unit == "trial"
    assert first.samples.shape == (50, len(gpt2.graph.places))
    assert np.abs(first.samples.mean()) < 0.05
    assert first.samples.std() == pytest.approx(1, abs=0.05)
    assert by_edge("random", tiny("tiny-gemma2"), problem(tiny("tiny-gemma2"))).samples.shape[0] == 10


# Contracts.


@pytest.mark.parametrize("name", THROUGH_ENGINE)
def test_scores_do_not_change_with_batch_size_batch_order_or_memory(
    name: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = copy.copy(tiny("tiny-llama"))
    options = {"steps": 2} if "steps" in METHODS.load(name).options.model_fields else {}
    whole = by_edge(name, model, problem(model, 8), **options)
    threes = problem(model, 8, batch_size=3)
    reversed_ = replace(threes, batches=threes.batches[::-1])
    for other, memory in ((threes, 2**30), (reversed_, prompt_bytes(model, 15))):
        model.memory = memory
        again = by_edge(name, model, other, **options)
        np.testing.assert_allclose(again.samples, whole.samples, atol=1e-5, rtol=2e-5)
    assert np.ptp(whole.samples, axis=0).max() > 1e-3


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_edges(gpt2: BridgeModel, problem: MakeProblem, metric: str) -> None:
    task = replace(problem(gpt2), metric=METRICS[metric])
    summed, whole = (run_method(name, gpt2, task) for name in ("eap", "attribution-patching"))
    np.testing.assert_allclose(summed.samples, whole.samples, atol=1e-5)


def test_half_precision_is_near_full_precision(directory: Callable[[str], object]) -> None:
    @cache
    def scored(name: str, dtype: str) -> Scores:
        model = load_model(str(directory("tiny-llama")), dtype=dtype)
        return by_edge(name, model, Problem(make_batches(model, prompt_pairs(8)), logit_difference))

    for name in THROUGH_ENGINE:
        size = np.abs(scored(name, "float32").values).max()
        half = scored(name, "bfloat16").values
        np.testing.assert_allclose(half, scored(name, "float32").values, atol=0.1 * size)


@pytest.mark.parametrize("name", THROUGH_ENGINE)
def test_a_model_that_the_engine_does_not_cover_is_refused_by_name(
    name: str, tiny: Tiny, problem: MakeProblem
) -> None:
    with pytest.raises(ModelError, match=rf"{name} needs the exact engine.*tiny-gemma2"):
        run_method(name, tiny("tiny-gemma2"), problem(tiny("tiny-gemma2"), 2))


def test_gpt2_small_has_32491_edges_and_every_one_gets_a_score() -> None:
    graph = Graph(12, 12, 12)
    assert len(graph.places) == int(legal_edges(graph).sum()) == 32_491
