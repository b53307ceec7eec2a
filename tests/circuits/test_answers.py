"""Answers: a network whose every effect is known, and the same numbers by other routes on several families."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from letters_network import LetterModel, letter_batches, letter_pairs
from role_network import RoleModel
from tiny_models import NAMES, Hooked, prompt_pairs

from circuits.answers.classes import chance_of_one_label
from circuits.answers.effects import effects
from circuits.answers.joint import patched_in, smallest_set
from circuits.answers.labels import Labels, labels_of, net, on_right
from circuits.answers.looks import common_end, label_places, looks
from circuits.answers.study import answered, read_answers
from circuits.answers.table import answer_table
from circuits.batches import make_batches
from circuits.errors import CircuitError, ModelError, PromptError
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import label_log_probability, logit_difference, preferred
from circuits.model import Site
from circuits.models.bridge import BridgeModel
from circuits.prompts import PromptPair

Tiny = Callable[[str], BridgeModel]


def _several(n: int = 8) -> tuple[PromptPair, ...]:
    """Prompts with one answer and three distractors."""
    found = []
    for pair in prompt_pairs(n):
        taken = {name.strip() for name in pair.answers + pair.distractors}
        more = [f" {name}" for name in NAMES if name not in taken][:2]
        found.append(replace(pair, distractors=(*pair.distractors, *more)))
    return tuple(found)


@pytest.fixture(scope="module")
def letters():
    model = LetterModel()
    return model, letter_batches(model)


def test_who_only_feeds_another_has_its_total_effect_and_no_direct_one(letters) -> None:
    """A = a1.h0 writes the answer, B = a0.h0 only feeds A: four for the right letter of four, 4 * 3/4 - 4 * -1/4."""
    model, batches = letters
    labels = labels_of(model, batches)
    found = effects(model, batches, labels)
    of = {name: (found.direct[:, i], found.total[:, i]) for i, name in enumerate(found.parts)}
    for node, (direct, total) in {
        "a0.h0": (0, 4),
        "a1.h0": (4, 4),
        "a0.h1": (0, 0),
        "a1.h1": (-1, -1),
    }.items():
        np.testing.assert_allclose(of[node][0], direct, atol=1e-6)
        np.testing.assert_allclose(of[node][1], total, atol=1e-6)
    # m(x) - m(x'): four less one, and on x' for another letter.
    np.testing.assert_allclose(of["input"][1], 3, atol=1e-6)
    np.testing.assert_allclose(found.net[:, found.parts.index("a1.h0")][labels.right], 3, atol=1e-6)


def test_a_constant_head_is_a_bias_and_the_answering_head_knows(letters) -> None:
    model, batches = letters
    labels = labels_of(model, batches)
    assert labels.names == ("A", "B", "C", "D")
    assert labels.chance == 0.25
    found = effects(model, batches, labels)
    table = answer_table(found.net[:, :-1], labels, seed=0)
    constant, answering = found.parts.index("a0.h1"), found.parts.index("a1.h0")
    np.testing.assert_allclose(table.conditional[constant], 0, atol=1e-6)
    np.testing.assert_allclose(table.unconditional[constant], [-0.5, 1.5, -0.5, -0.5], atol=1e-6)
    np.testing.assert_allclose(table.unconditional[answering], 0, atol=1e-6)
    np.testing.assert_allclose(table.conditional[answering], 4 * np.eye(4) - 1, atol=1e-6)
    assert table.knows[answering] == pytest.approx(3)
    assert table.knows[answering] > table.chance[answering]
    assert table.p_values[answering] <= 0.05 < table.p_values[constant]
    np.testing.assert_allclose(table.conditional_share[[constant, answering]], [0, 1], atol=1e-6)


def test_the_study_of_the_letters_finds_their_classes_and_their_set(letters) -> None:
    model, batches = letters
    found = read_answers(model, batches, batches, {"same": batches}, seed=0)
    kinds = {node.name: node.kind for node in found.nodes}
    # A head of one-token prompts looks at the end, for there is nothing else.
    assert kinds == {
        "a0.h0": "indirect",
        "a0.h1": "single-label",
        "m0": "",
        "a1.h0": "amplification",
        "a1.h1": "",
        "m1": "",
        "input": "indirect",
    }
    # The constant head raises B on prompts of B alone: 1.5 / 4 - 0.5 * 3 / 4 = 0 on average.
    assert found.chosen == ("a1.h0",)
    assert found.judged.accuracy.value == 1.0
    assert found.judged.accuracy_with.value == 1.0
    parts = sum(node.net.value for node in found.nodes) + found.biases
    assert parts == pytest.approx(found.own.value)
    same = found.changed["same"]
    assert same.survives.value == pytest.approx(1.0)
    assert same.random < 1.0
    assert same.joint.brought.value == pytest.approx(4.0)


def test_parts_sum_to_the_plain_models_net_logit(
    covered: str, tiny: Tiny, plain: Callable[[str], Hooked]
) -> None:
    model = tiny(covered)
    batches = make_batches(model, _several(), batch_size=3)
    labels = labels_of(model, batches)
    found = effects(model, batches, labels)
    expected = {}
    for batch in batches:
        logits = plain(covered).logits(batch.clean)
        for row, i in enumerate(batch.index):
            own = [*batch.answers[row], *batch.distractors[row]]
            expected[i] = float(logits[row, batch.answers[row][0]] - logits[row, own].mean())
    values = [value for _, value in sorted(expected.items())]
    np.testing.assert_allclose(on_right(found.net, labels.right).sum(1), values, atol=1e-4)
    np.testing.assert_allclose(found.centred[:, 0], values, atol=1e-4)


def test_effects_are_those_of_two_methods_times_the_share_of_wrong_labels(covered: str, tiny: Tiny) -> None:
    """The mean over four labels holds the right one: m = 3/4 of the logit difference."""
    model = tiny(covered)
    batches = make_batches(model, _several())
    labels = labels_of(model, batches)
    found = effects(model, batches, labels)
    problem = Problem(batches, logit_difference)
    scores = {
        name: METHODS.load(name).score(model, problem, METHODS.load(name).configure({})).samples
        for name in ("logit-attribution", "activation-patching")
    }
    n = len(model.graph.components)
    np.testing.assert_allclose(
        on_right(found.net, labels.right)[:, :n], 0.75 * scores["logit-attribution"], atol=1e-5
    )
    np.testing.assert_allclose(found.total[:, :n], 0.75 * scores["activation-patching"], atol=1e-5)


def test_a_direct_effect_is_that_of_an_edit_of_the_last_residual_with_the_scale_held(
    gpt2: BridgeModel,
) -> None:
    """By another route: capture at hooks, swap one write in the last residual, divide by the clean scale."""
    (batch, *_) = batches = make_batches(gpt2, _several(2)[:1])
    labels = labels_of(gpt2, batches)
    found = effects(gpt2, batches, labels)
    sites = [Site("final"), Site("z", 1), Site("mlp", 2)]
    clean, corrupt = (gpt2.run(side, capture=sites).captured for side in (batch.clean, batch.corrupt))
    read = gpt2.unembedding()
    scale = read.scale(clean[Site("final")][:, -1])[:, None]

    def centred(x: torch.Tensor) -> float:
        logits = ((x / scale) @ read.weight + read.bias)[0]
        return float(logits[batch.answers[0][0]] - logits[[*batch.answers[0], *batch.distractors[0]]].mean())

    last = clean[Site("final")][:, -1]
    z = clean[Site("z", 1)][:, -1, 2] - corrupt[Site("z", 1)][:, -1, 2]
    swaps = {
        "a1.h2": z @ gpt2.head_writer(1)[0][2],
        "m2": clean[Site("mlp", 2)][:, -1] - corrupt[Site("mlp", 2)][:, -1],
    }
    for node, change in swaps.items():
        expected = centred(last) - centred(last - change)
        assert found.direct[0, found.parts.index(node)] == pytest.approx(expected, abs=1e-4)


def test_a_set_is_patched_at_the_last_token_as_by_hooks(gpt2: BridgeModel) -> None:
    batches = make_batches(gpt2, _several(6), batch_size=4)
    chosen = ("a0.h1", "m1", "a2.h3")
    rows = patched_in(gpt2, batches, [chosen, gpt2.graph.components])
    expected = np.zeros((2, 6))
    for batch in batches:
        edits = {}
        for node in map(gpt2.graph.node, chosen):
            site = Site("z" if node.kind == "head" else "mlp", node.layer)
            donor = gpt2.run(batch.clean, capture=[site]).captured[site]

            def edit(value: torch.Tensor, node=node, donor=donor) -> torch.Tensor:
                value = value.clone()
                at = (slice(None), -1, node.index) if node.kind == "head" else (slice(None), -1)
                value[at] = donor[at]
                return value

            edits[site] = edit
        logits = gpt2.run(batch.corrupt, edit=edits).logits
        read = (logit_difference, label_log_probability)
        net_, said = (one(logits, batch.answers, batch.distractors).numpy() for one in read)
        expected[0, list(batch.index)], expected[1, list(batch.index)] = 0.75 * net_, -said
    np.testing.assert_allclose(rows.net[2], expected[0], atol=1e-4)
    np.testing.assert_allclose(rows.loss[2], expected[1], atol=1e-4)
    # All nodes at the last token, whose embedding is the same: the clean run.
    assert rows.recovered(1) == pytest.approx(1.0, abs=1e-4)


def test_log_probability_over_labels_is_that_of_a_softmax_over_them() -> None:
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    answers, distractors = ((3,), (1, 2)), ((0, 8), (7,))
    said = label_log_probability(logits, answers, distractors)
    first = logits[0, [3, 0, 8]].softmax(0)[0].log()
    second = logits[1, [1, 2, 7]].softmax(0)[:2].sum().log()
    torch.testing.assert_close(said, torch.stack([first, second]))


def test_labels_that_differ_from_prompt_to_prompt_are_averaged_as_if_they_did_not() -> None:
    """A node that writes a bias and knows the answer, seen on two labels of five, is split as it was made."""
    rng = np.random.default_rng(0)
    n, k = 400, 5
    own = np.zeros((n, k), bool)
    right = np.zeros((n, k), bool)
    for row in range(n):
        a, b = rng.choice(k, 2, replace=False)
        own[row, [a, b]], right[row, a] = True, True
    labels = Labels(tuple("vwxyz"), tuple(range(k)), own, right)
    bias = 2.0 * (np.arange(k) == 3)
    values = np.stack([bias + 0 * right, bias + 4.0 * right], 1)
    table = answer_table(net(values, own), labels, seed=0)
    assert table.p_values[1] <= 0.05 < table.p_values[0]
    assert table.knows[1] == pytest.approx(2.0, abs=0.1)
    assert table.knows[0] == pytest.approx(0.0, abs=0.1)
    for node in (0, 1):
        assert table.unconditional[node].argmax() == 3


def test_any_label_taken_for_the_right_one_is_found_to_know_at_the_level_of_chance() -> None:
    """Nodes that write noise: about one in twenty passes the draws' 95%, and none after Holm."""
    rng = np.random.default_rng(1)
    right = np.eye(4, dtype=bool)[rng.integers(0, 4, 64)]
    labels = Labels(tuple("ABCD"), (0, 1, 2, 3), np.ones_like(right), right)
    table = answer_table(net(rng.normal(size=(64, 200, 4)), labels.own), labels, seed=0)
    # The bias is fitted on the same prompts, which makes what is left a little smaller than chance.
    assert (table.knows > table.chance).mean() < 0.1
    assert not (table.p_values <= 0.05).any()


def test_where_the_last_token_looks() -> None:
    """role_network: a1.h3 looks from Z to A to E, a0.h3 at place 3, a0.h2 at all alike."""
    model = RoleModel()
    texts = ("A B K L Z", "B A M N Z")
    pairs = tuple(
        PromptPair(text, f"C {text[2:]}", (f" {text[0]}",), (f" {text[2]}",), {"ASKED": (2, 3)})
        for text in texts
    )
    batches = make_batches(model, pairs)
    assert [label_places(model, pair) for pair in batches[0].pairs] == [[1, 2], [1, 2]]
    assert common_end(batches[0].pairs) == 1
    seen = looks(model, batches)
    heads = {name: i for i, name in enumerate(model.graph.heads)}
    assert seen.chance == pytest.approx({"end": 1 / 6, "right": 1 / 6, "labels": 2 / 6, "content": 1 / 6})
    labels, spread = seen.attention["labels"], [heads["a1.h3"], heads["a0.h2"]]
    np.testing.assert_allclose(labels[spread], [1, 2 / 6], atol=1e-4)
    assert seen.evenness is not None
    np.testing.assert_allclose(seen.evenness[spread], 1, atol=1e-4)
    np.testing.assert_allclose(labels[heads["a0.h3"]], 0, atol=1e-4)
    np.testing.assert_allclose(seen.attention["right"][heads["a1.h3"]], 0.5, atol=1e-4)
    unsaid = replace(batches[0].pairs[0], distractors=(20,))
    assert label_places(model, unsaid) == []


def test_the_smallest_set_holds_four_fifths_of_what_is_positive() -> None:
    scores = {"a": 5.0, "b": 3.0, "c": 1.0, "d": 1.0, "e": -9.0}
    assert smallest_set(scores) == ("a", "b")
    assert smallest_set(scores, 0.81) == ("a", "b", "c")
    assert smallest_set({"a": -1.0}) == ()


def test_a_random_bias_of_two_labels_always_raises_one_and_of_many_hardly_ever() -> None:
    assert chance_of_one_label(2, 0) == 1.0
    assert 0.1 < chance_of_one_label(4, 0) < 0.6
    assert chance_of_one_label(26, 0) < 0.01


def test_results_do_not_change_with_the_batch_size(letters) -> None:
    model, batches = letters
    one, two = (
        read_answers(model, some, some, {}, seed=0) for some in (batches, letter_batches(model, batch_size=5))
    )
    assert one.nodes == two.nodes
    assert one.judged == two.judged


def test_what_is_answered_rightly_is_what_the_plain_model_prefers(
    gpt2: BridgeModel, plain: Callable[[str], Hooked]
) -> None:
    batches, expected = make_batches(gpt2, _several(20), batch_size=7), {}
    for batch in batches:
        hits = preferred(plain("tiny-gpt2").logits(batch.clean), batch.answers, batch.distractors)
        expected |= dict(zip(batch.index, hits.tolist(), strict=True))
    found = answered(gpt2, batches).tolist()
    assert found == [expected[i] for i in range(20)]
    assert 0 < sum(found) < 20


def test_mistakes_are_named(letters, tiny: Tiny) -> None:
    model, batches = letters
    with pytest.raises(CircuitError, match="answers 2 of 2 prompts rightly"):
        read_answers(model, make_batches(model, letter_pairs()[:2]), batches, {}, seed=0)
    none = replace(letter_pairs()[0], distractors=())
    with pytest.raises(PromptError, match="Prompt 1 has 1 answers and 0 distractors"):
        labels_of(model, make_batches(model, [none]))
    gemma = tiny("tiny-gemma2")
    some = make_batches(gemma, prompt_pairs(4))
    with pytest.raises(ModelError, match="needs the exact engine"):
        read_answers(gemma, some, some, {}, seed=0)
