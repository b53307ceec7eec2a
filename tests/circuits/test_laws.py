"""The laws: two independent routes to one number, on models of several families.

Weak laws pass on wrong code, so most of these compare ours with the same thing done by hand on the plain
transformers model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import Hooked, prompt_pairs
from torch import Tensor

from circuits.batches import Batch, make_batches
from circuits.circuit import Circuit
from circuits.discovery import match
from circuits.donors import all_but_one, keep_masks, resample_donor, zero_donor
from circuits.engine.exact import ExactRun
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.model import Site
from circuits.models.bridge import BridgeModel, load_model
from circuits.models.builtin_models import builtin_names, card
from circuits.patching import measure
from circuits.probes import probe
from circuits.readout import Readout
from circuits.scores import Scores
from circuits.selection import Selection, select

Tiny = Callable[[str], BridgeModel]
Plain = Callable[[str], Hooked]
MakeProblem = Callable[..., Problem]


def run_method(name: str, model: BridgeModel, problem: Problem, **options: object) -> Scores:
    method = METHODS.load(name)
    return method.score(model, problem, method.configure(options))


def close(ours: Tensor, theirs: Tensor, atol: float) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


# Law 1: writes plus constants sum to the final residual stream.


def test_writes_and_constants_sum_to_the_final_residual(
    family: str, tiny: Tiny, plain: Plain, problem: MakeProblem
) -> None:
    model, by_hand = tiny(family), plain(family)
    tokens = problem(model).batches[-1].clean
    values, layers = by_hand.values(tokens), range(model.graph.n_layers)
    total = model.run(tokens, capture=[Site("input")]).captured[Site("input")]
    for layer in layers:
        weight, bias = model.head_writer(layer)
        # z and the MLP's writes come from transformers' own hooks, the weights from our adapter.
        for head in range(model.graph.n_heads):
            total = total + values["z", layer][:, :, head] @ weight[head]
        total = total + bias + values["mlp", layer]
    final = model.run(tokens, capture=[Site("final")]).captured[Site("final")]
    close(total, final, 1e-4)
    assert final.abs().max() > 1


def test_final_residual_through_the_unembedding_gives_the_plain_models_logits(
    family: str, tiny: Tiny, plain: Plain, problem: MakeProblem
) -> None:
    model = tiny(family)
    tokens = problem(model).batches[-1].clean
    last = model.run(tokens, capture=[Site("final")]).captured[Site("final")][:, -1]
    read = model.unembedding()
    logits = (last / read.scale(last)[:, None]) @ read.weight + read.bias
    close(logits, plain(family).logits(tokens), 1e-4)


def test_probes_agree_and_notice_models_that_change_their_writes(
    family: str, tiny: Tiny, problem: MakeProblem
) -> None:
    found = probe(tiny(family), problem(tiny(family)).batches[0].clean)
    assert found.writes_gap < 1e-5
    assert found.logits_gap is not None
    assert found.logits_gap < 1e-5
    for name in ("tiny-gemma2", "tiny-olmo2"):
        assert probe(tiny(name), problem(tiny(name)).batches[0].clean).writes_gap > 0.05


# Laws 2 and 3: the full circuit is the clean run; the empty one is the corrupt run. The input is no component,
# so an empty circuit still sees the clean embedding at the last position: there the prompts must agree.


def _metric(model: BridgeModel, batch: Batch, tokens: Tensor) -> Tensor:
    return logit_difference(model.run(tokens).logits, batch.answers, batch.distractors)


def test_full_circuit_is_clean_and_empty_circuit_is_corrupt(
    family: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(family)
    for batch in problem(model).batches:
        assert torch.equal(batch.clean[:, -1], batch.corrupt[:, -1])
        keep = keep_masks(model.graph, [model.graph.components, ()])
        donor = resample_donor(batch.corrupt)
        full, empty = measure(model, batch, logit_difference, keep=keep, donor=donor).metric
        clean, corrupt = (_metric(model, batch, side) for side in (batch.clean, batch.corrupt))
        close(full, clean, 1e-5)
        close(empty, corrupt, 1e-4)
        assert (clean - corrupt).abs().min() > 1e-3


# Law 4, node form: patching a node is replacing what it adds to the residual stream.


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_patching_a_node_is_the_same_patch_by_plain_hooks(
    family: str, tiny: Tiny, plain: Plain, problem: MakeProblem, direction: str
) -> None:
    model, by_hand, task = tiny(family), plain(family), problem(tiny(family))
    scores = run_method("activation-patching", model, task, direction=direction)
    expected = np.zeros_like(scores.samples)
    for batch in task.batches:
        base, other = (batch.clean, batch.corrupt)[:: 1 if direction == "noising" else -1]
        donor, rows = by_hand.values(other), list(batch.index)
        unpatched = _read(by_hand.logits(base), batch)
        for column, name in enumerate(scores.components):
            node = model.graph.node(name)
            kind = "z" if node.kind == "head" else "mlp"

            change = _replacing(donor[kind, node.layer], node.index if kind == "z" else None)
            patched = _read(by_hand.logits(base, {(kind, node.layer): change}), batch)
            effect = unpatched - patched if direction == "noising" else patched - unpatched
            expected[rows, column] = effect.numpy()
    np.testing.assert_allclose(scores.samples, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.05


def _replacing(donor: Tensor, head: int | None) -> Callable[[Tensor], Tensor]:
    """The whole value, or one head of z, becomes the donor's."""

    def change(value: Tensor) -> Tensor:
        if head is None:
            return donor
        value = value.clone()
        value[:, :, head] = donor[:, :, head]
        return value

    return change


def _read(logits: Tensor, batch: Batch) -> Tensor:
    return logit_difference(logits, batch.answers, batch.distractors)


def test_patching_a_head_is_adding_the_difference_of_its_writes(
    gpt2: BridgeModel, plain: Plain, problem: MakeProblem
) -> None:
    """Not z is replaced here but what the head writes, behind W_O."""
    by_hand, batch = plain("tiny-gpt2"), problem(gpt2).batches[-1]
    clean, corrupt = by_hand.values(batch.clean), by_hand.values(batch.corrupt)
    keep, donor = all_but_one(gpt2.graph, gpt2.graph.heads), resample_donor(batch.corrupt)
    ours = measure(gpt2, batch, logit_difference, keep=keep, donor=donor).metric
    for row, name in enumerate(gpt2.graph.heads):
        node = gpt2.graph.node(name)
        attention = by_hand.model.transformer.h[node.layer].attn
        written = attention.c_proj.weight[8 * node.index : 8 * node.index + 8]
        change = (corrupt["z", node.layer] - clean["z", node.layer])[:, :, node.index] @ written
        handle = attention.c_proj.register_forward_hook(lambda m, args, out, change=change: out + change)
        theirs = _read(by_hand.logits(batch.clean), batch)
        handle.remove()
        close(ours[row], theirs, 1e-4)


def test_zero_ablating_a_head_is_deleting_its_rows_of_the_output_matrix(
    gpt2: BridgeModel, plain: Plain, problem: MakeProblem
) -> None:
    by_hand, batch = plain("tiny-gpt2"), problem(gpt2).batches[-1]
    keep = all_but_one(gpt2.graph, gpt2.graph.heads)
    ours = measure(gpt2, batch, logit_difference, keep=keep, donor=zero_donor()).metric
    for row, name in enumerate(gpt2.graph.heads):
        node = gpt2.graph.node(name)
        weight = by_hand.model.transformer.h[node.layer].attn.c_proj.weight
        with torch.no_grad():
            kept = weight.clone()
            weight[8 * node.index : 8 * node.index + 8] = 0
            theirs = _read(by_hand.logits(batch.clean), batch)
            weight.copy_(kept)
        close(ours[row], theirs, 1e-4)


# Law 7: scores do not change with batch size, batch order, or how rows are packed.

SCORED = [
    ("activation-patching", {"direction": "noising"}),
    ("activation-patching", {"direction": "denoising"}),
    ("activation-patching", {"ablation": "mean", "positions": "named"}),
    ("attribution-patching", {"positions": "named"}),
    ("attribution-patching", {"direction": "denoising"}),
    ("attribution-patching", {"positions": "named", "grad_drop": True, "inputs": True}),
    ("activation-patching", {"inputs": True}),
    ("relevance-patching", {"positions": "named"}),
    ("logit-attribution", {"contrast": True}),
    ("sae", {"features": 20, "epochs": 5, "trials": 2}),
    ("edge-patching", {"edges": "*->logits, m0->a1.*"}),
    ("path-patching", {"receivers": "a2.*", "position": "all"}),
    ("acdc", {"threshold": 0.3}),
]


@pytest.mark.parametrize(("method", "options"), SCORED)
def test_scores_do_not_change_with_batch_size_or_batch_order(
    method: str, options: dict[str, object], tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny("tiny-llama")
    whole = run_method(method, model, problem(model, 14), **options)
    threes = problem(model, 14, batch_size=3)
    reversed_ = replace(threes, batches=threes.batches[::-1])
    assert len(threes.batches) > len(problem(model, 14).batches) == 2
    for other in (threes, reversed_):
        again = run_method(method, model, other, **options)
        for ours, theirs in zip((again, again.parts), (whole, whole.parts), strict=True):
            if ours is None or theirs is None:
                assert ours is theirs
                continue
            np.testing.assert_allclose(ours.samples, theirs.samples, atol=1e-5)
            assert list(ours.by_position) or not list(theirs.by_position)
            for label, values in theirs.by_position.items():
                np.testing.assert_allclose(ours.by_position[label], values, atol=1e-5)


def test_results_do_not_depend_on_how_rows_are_packed(gpt2: BridgeModel, problem: MakeProblem) -> None:
    batch = problem(gpt2).batches[0]
    keep, donor = all_but_one(gpt2.graph, gpt2.graph.components), resample_donor(batch.corrupt)
    readout = Readout(batch, logit_difference, accuracy=True)
    assert gpt2.weights
    runs = [ExactRun(gpt2.weights, batch.clean, donor, memory) for memory in (1, 2**20, 2**30)]
    assert len({run.rows_at_once(batch.clean.shape[1]) for run in runs}) == 3
    outcomes = [run.measure(keep, readout) for run in runs]
    for other in outcomes[1:]:
        close(other.metric, outcomes[0].metric, 1e-5)
        assert torch.equal(other.preferred, outcomes[0].preferred)
        assert torch.equal(other.accurate, outcomes[0].accurate)


def test_order_of_the_prompts_is_the_order_of_the_samples(gpt2: BridgeModel) -> None:
    pairs = prompt_pairs(9)
    forwards, backwards = (
        run_method(
            "activation-patching", gpt2, Problem(make_batches(gpt2, p, batch_size=2), logit_difference)
        )
        for p in (pairs, pairs[::-1])
    )
    np.testing.assert_allclose(forwards.samples, backwards.samples[::-1], atol=1e-5)
    assert np.ptp(forwards.samples, axis=0).max() > 0.01


# Laws 8 and 10: on the planted circuit causal methods rank its heads first, and chance does not.

needs_planted = pytest.mark.skipif(
    "planted-ioi" not in builtin_names(), reason="the planted model is not built in"
)


@pytest.fixture(scope="module")
def planted() -> BridgeModel:
    return load_model("planted-ioi")


@pytest.fixture(scope="module")
def planted_problem(planted: BridgeModel) -> Problem:
    from cli.prompt_source import sample_task
    from tasks import TASKS

    drawn = sample_task(planted, TASKS.load("ioi"), form="plain", corruption="swap", n=14, seed=3)
    return Problem(make_batches(planted, drawn.pairs), logit_difference)


def _auroc(scores: Scores, known: frozenset[str]) -> float:
    found = match(scores, Circuit((), "", ""), "known", known).auroc
    assert found is not None
    return found


@needs_planted
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_activation_patching_ranks_the_planted_heads_first(
    planted: BridgeModel, planted_problem: Problem, direction: str
) -> None:
    known = card("planted-ioi").circuits["ioi"].heads
    scores = run_method("activation-patching", planted, planted_problem, direction=direction)
    assert set(scores.ranking()[: len(known)]) == known
    assert _auroc(scores, known) == 1.0
    assert all(scores.of(head) > 1 for head in known)
    assert max(abs(scores.of(c)) for c in scores.components if c not in known) < 0.01


@needs_planted
@pytest.mark.parametrize("method", ["attribution-patching", "relevance-patching"])
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_cheap_methods_rank_the_planted_heads_first(
    planted: BridgeModel, planted_problem: Problem, method: str, direction: str
) -> None:
    """Heads that act through saturated softmax get a twentieth of their effect, but still lead."""
    known = card("planted-ioi").circuits["ioi"].heads
    scores = run_method(method, planted, planted_problem, direction=direction)
    assert set(scores.ranking()[: len(known)]) == known
    assert min(scores.of(head) for head in known) > 0.5
    assert max(abs(scores.of(c)) for c in scores.components if c not in known) < 0.05


@needs_planted
def test_the_qk_fix_gives_the_planted_movers_queries_their_whole_effect(
    planted: BridgeModel, planted_problem: Problem
) -> None:
    """Their softmax is saturated, so its slope sees next to nothing of it; behind them nothing bends."""
    exact, fixed, sloped = (
        run_method(method, planted, planted_problem, inputs=True, **options).parts
        for method, options in (
            ("activation-patching", {}),
            ("attribution-patching", {}),
            ("attribution-patching", {"qk_fix": False}),
        )
    )
    assert exact
    assert fixed
    assert sloped
    for mover in card("planted-ioi").circuits["ioi"].roles["name mover"]:
        part = f"{mover}<q>"
        assert exact.of(part) > 5
        assert fixed.of(part) == pytest.approx(exact.of(part), rel=0.02)
        assert abs(sloped.of(part)) < 0.2 * exact.of(part)


@needs_planted
def test_logit_attribution_sees_the_planted_movers_and_no_one_else(
    planted: BridgeModel, planted_problem: Problem
) -> None:
    """A direct method is blind to heads that act through others: it must not find those."""
    movers = set(card("planted-ioi").circuits["ioi"].roles["name mover"])
    scores = run_method("logit-attribution", planted, planted_problem)
    assert set(scores.ranking()[: len(movers)]) == movers
    assert max(abs(scores.of(c)) for c in scores.components if c not in movers) < 1e-3


def _shuffled(samples: np.ndarray, components: tuple[str, ...], seed: int) -> Scores:
    order = np.random.default_rng(seed).permutation(samples.shape[1])
    return Scores("shuffled", components, samples[:, order])


@needs_planted
def test_random_rankings_of_the_planted_model_give_auroc_about_a_half(
    planted: BridgeModel, planted_problem: Problem
) -> None:
    known = card("planted-ioi").circuits["ioi"].heads
    scores = run_method("activation-patching", planted, planted_problem)
    heads = [i for i, c in enumerate(scores.components) if c[0] == "a"]
    samples, names = scores.samples[:, heads], tuple(scores.components[i] for i in heads)
    areas = [_auroc(_shuffled(samples, names, seed), known) for seed in range(400)]
    assert _auroc(Scores("real", names, samples), known) == 1.0
    assert abs(np.mean(areas) - 0.5) < 0.03
    assert np.mean([area == 1.0 for area in areas]) < 0.02


@needs_planted
def test_significance_finds_the_planted_heads_and_nothing_once_labels_are_shuffled(
    planted: BridgeModel, planted_problem: Problem
) -> None:
    known = card("planted-ioi").circuits["ioi"].heads
    for problem, expected in ((planted_problem, known), (_with_half_swapped(planted_problem), set())):
        scores = run_method("activation-patching", planted, problem)
        rule = Selection(rule="significance")
        chosen = select(
            scores, rule, graph=planted.graph, seed=0, faithfulness=lambda circuits: [0.0] * len(circuits)
        )
        assert set(chosen.circuit.nodes) & known == expected


def _with_half_swapped(problem: Problem) -> Problem:
    """Every other prompt gets its answer for its distractor: labels that say nothing."""
    batches = []
    for batch in problem.batches:
        pairs = tuple(
            replace(pair, answers=pair.distractors, distractors=pair.answers) if i % 2 else pair
            for i, pair in zip(batch.index, batch.pairs, strict=True)
        )
        batches.append(replace(batch, pairs=pairs))
    return replace(problem, batches=tuple(batches))
