"""In-context learning: phases are found where they were planted, and what is forbidden is forbidden."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from in_context_network import InContextModel, letter_examples
from tiny_models import Hooked, prompt_pairs
from torch import Tensor

from circuits.batches import make_batches
from circuits.engine.forward import trace
from circuits.errors import PromptError
from circuits.in_context.ablation import EDGES, Ablation, ablate, blocked, elsewhere, ranges, same_queries
from circuits.in_context.centroids import classify
from circuits.in_context.kernel_alignment import kernel_alignment, near, overlap
from circuits.in_context.layout import few_shot
from circuits.in_context.phases import merged
from circuits.in_context.states import read_states
from circuits.in_context.study import Study, study
from circuits.model import Edit, Site
from circuits.models.bridge import BridgeModel, load_model
from tasks import TASKS


@pytest.fixture(scope="module")
def found() -> Study:
    model, pairs = InContextModel(), letter_examples(64)
    return study(model, pairs, make_batches(model, pairs, batch_size=40), draws=1, seed=0)


def _ablation(found: Study, edge: str, layers: tuple[int, int]) -> Ablation:
    return next(each for each in found.ablations if (each.edge, each.layers) == (edge, layers))


def test_kernel_alignment_is_1_of_the_same_and_chance_of_others() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(128, 20, generator=generator) for _ in range(2))
    same = kernel_alignment(near(one), near(one), 0)
    assert same.value.value == 1
    assert same.shuffled == pytest.approx(16 / 127, abs=0.01)
    turned = one @ torch.linalg.qr(torch.randn(20, 20, generator=generator)).Q
    torch.testing.assert_close(near(turned), near(one))
    chance = kernel_alignment(near(one), near(two), 0).value
    assert chance.value == pytest.approx(16 / 127, abs=0.03)


def test_neighbours_are_the_most_alike_and_ties_share_their_places() -> None:
    angles = torch.tensor([0.0, 0.1, 0.3, 2.0])
    points = torch.stack([angles.cos(), angles.sin()], 1)
    assert near(points, 1).argmax(1).tolist() == [1, 0, 1, 2]
    assert near(torch.ones(5, 3), 2)[0].tolist() == [0, 0.5, 0.5, 0.5, 0.5]
    anything = near(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), 2)
    torch.testing.assert_close(
        overlap(anything, near(torch.ones(5, 3), 2)), torch.full((5,), 0.5, dtype=torch.float64)
    )


def test_centroids_read_what_is_there_and_nothing_else() -> None:
    classes = np.arange(60) % 3
    states = torch.nn.functional.one_hot(torch.from_numpy(classes), 4).float()
    noise = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    halves = range(30), range(30, 60)
    there = classify(states + 0.1 * noise, classes, *halves, 0)
    assert there.accuracy.value == 1
    assert there.shuffled == pytest.approx(1 / 3, abs=0.15)
    assert classify(noise, classes, *halves, 0).accuracy.low < 1 / 3


def test_columns_are_those_of_the_words() -> None:
    """By the tokens, and by the spans of what a regular expression finds in the text."""
    model = load_model("plain-4l")
    task = TASKS.load("in-context-classification")
    from cli.prompt_source import lexicon_of

    pairs = task.sample(12, seed=0, lexicon=lexicon_of(model), form="arbitrary", corruption="labels")
    for each in few_shot(model, pairs, make_batches(model, pairs, batch_size=5)):
        for index, at in zip(each.batch.index, each.layouts, strict=True):
            pair = pairs[index]
            spans = model.tokenize(pair.clean)[1]
            lines = list(re.finditer(r"(Word: \w+\. Kind)(:)(?: (\w+)\n)?", pair.clean))
            columns = [
                [
                    [i for i, (a, b) in enumerate(spans) if a < line.end(g) and b > line.start(g)]
                    for g in (1, 2, 3)
                ]
                for line in lines
            ]
            assert [list(text) for text in at.texts] == [text for text, _, _ in columns[:-1]]
            assert [[s] for s in at.forerunners] == [s for _, s, _ in columns[:-1]]
            assert [[y] for y in at.labels] == [y for _, _, y in columns[:-1]]
            assert list(at.right) == [f" {line[3]}" in pair.answers for line in lines[:-1]]
            assert [list(at.asked), [at.end]] == columns[-1][:2]


def test_prompts_without_examples_are_refused(gpt2: BridgeModel) -> None:
    pairs = prompt_pairs(4)
    with pytest.raises(PromptError, match=r"shows 0 examples\. .*'Bob'.* ends with, 'to'"):
        few_shot(gpt2, pairs, make_batches(gpt2, pairs))
    model = InContextModel()
    alone = [replace(pair, clean="A : foo B : foo C :", corrupt="A : foo B : foo D :", answers=(" foo",),
                     distractors=(" bar",)) for pair in letter_examples(1)]  # fmt: skip
    with pytest.raises(PromptError, match="2 examples, all of the answer's label"):
        few_shot(model, alone, make_batches(model, alone))
    few = letter_examples(15)
    with pytest.raises(PromptError, match="15 prompts are too few"):
        study(model, few, make_batches(model, few), draws=1, seed=0)


def test_each_phase_is_found_in_the_layer_where_it_was_planted(found: Study) -> None:
    assert found.accuracy.value == 1
    chance = found.neighbours / (found.n - 1)
    assert found.streams[0].text.value.value == pytest.approx(chance)
    assert found.streams[1].text.value.low > 0.8 > 3 * found.streams[1].text.shuffled
    before, planted, _ = found.merged
    assert before.alignment.value.value == pytest.approx(chance)
    assert planted.alignment.value.low > 0.5 > 3 * planted.label_alone
    read = [stream.answer for stream in found.streams]
    assert [each.accuracy.value > 0.95 for each in read] == [False, False, False, True]
    assert all(abs(each.shuffled - 0.5) < 0.25 for each in read)
    assert [stream.nearest.value for stream in found.streams[:2]] == [0.5, 1]


def test_heads_are_told_by_what_they_do(found: Study) -> None:
    assert [each.head for each in found.mergers if each.passes] == ["a0.h0", "a1.h0"]
    assert all(each.previous > 0.9 for each in found.mergers[:2]), "they look at the token before everywhere"
    (retriever,) = [each for each in found.retrievers if each.passes]
    assert retriever.head == "a2.h0"
    assert retriever.passes_correct
    assert retriever.magnitude.value == pytest.approx(1, abs=1e-4)
    assert retriever.likelihood == pytest.approx(1, abs=1e-4)
    assert retriever.random < 1e-4


PLANTED = {"x_i -> s_i": 0, "x_q -> s_q": 0, "s_i -> y_i": 1, "y_i -> s_q": 2}


def test_without_an_edge_of_the_circuit_answers_are_guesses_and_controls_cost_little(found: Study) -> None:
    assert ranges(3) == ((0, 0), (1, 1), (2, 2), (0, 2))
    for edge in EDGES:
        for layers in ranges(3):
            at = PLANTED.get(edge)
            gone = at is not None and layers[0] <= at <= layers[1]
            each = _ablation(found, edge, layers)
            assert each.accuracy.value == (0.5 if gone else 1), (edge, layers)
            assert min(each.controls["same queries"].accuracy) == 1
            assert min(each.controls["random"].accuracy) > 0.8
            assert (each.controls["random"].lost.low > 0.2) == gone


def test_figures_do_not_depend_on_batches(found: Study) -> None:
    model, pairs = InContextModel(), letter_examples(64)
    (prompts,) = few_shot(model, pairs, make_batches(model, pairs))
    assert merged(read_states(model.weights, [prompts]), 0) == found.merged
    some = few_shot(model, pairs[:8], make_batches(model, pairs[:8], batch_size=3))
    whole = few_shot(model, pairs[:8], make_batches(model, pairs[:8]))
    assert ablate(model.weights, some, 1, 0) == ablate(model.weights, whole, 1, 0)


def test_controls_forbid_as_much_and_never_a_whole_row() -> None:
    rng, cells = np.random.default_rng(0), [(5, 1), (5, 2), (9, 9)]
    for draw in (elsewhere, same_queries):
        drawn = draw(cells, [*cells, (5, 0)], 12, rng)
        assert len(set(drawn)) == 3
        assert not set(drawn) & {*cells, (5, 0)}
        assert all(source < query for query, source in drawn)
    assert sorted(query for query, _ in same_queries(cells, cells, 12, rng)) == [5, 5, 9]
    assert len(same_queries(cells[:2], [(5, i) for i in range(5)], 12, rng)) == 0


CELLS = torch.tensor([(0, 3, 1), (0, 3, 2), (1, 8, 8), (1, 9, 2), (2, 9, 0), (3, 12, 5), (3, 13, 12)])


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama", "tiny-neox"])
def test_forbidden_entries_are_those_of_transformers_own_mask(
    name: str, tiny: Callable[[str], BridgeModel], plain: Callable[[str], Hooked]
) -> None:
    model = tiny(name)
    (batch,) = make_batches(model, prompt_pairs(4, templates=1))
    assert model.weights is not None
    base = trace(model.weights, model.weights.embed(batch.clean))
    after = blocked(model.weights, base, dict.fromkeys(range(3), CELLS))
    n = batch.clean.shape[1]
    mask = torch.full((4, 1, n, n), 0.0).masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -1e9)
    mask[CELLS[:, 0], 0, CELLS[:, 1], CELLS[:, 2]] = -1e9
    with torch.no_grad():
        theirs = plain(name).model(batch.clean, attention_mask=mask).logits[:, -1]
    ours = model.weights.logits(after[:, -1])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    own = model.weights.logits(base.after[:, -1])
    assert (ours - own).abs().amax(1).min() > 1e-3, "each prompt feels it"


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_layers_below_and_columns_before_are_left_as_they_are(
    name: str, tiny: Callable[[str], BridgeModel]
) -> None:
    """The same by editing the patterns of those layers of a whole run."""
    model = tiny(name)
    (batch,) = make_batches(model, prompt_pairs(4, templates=1))
    assert model.weights is not None
    base = trace(model.weights, model.weights.embed(batch.clean))
    after = blocked(model.weights, base, {1: CELLS, 2: CELLS[-2:]})

    def without(cells: Tensor) -> Edit:
        def edit(pattern: Tensor) -> Tensor:
            pattern = pattern.clone()
            pattern[cells[:, 0], :, cells[:, 1], cells[:, 2]] = 0
            return pattern / pattern.sum(-1, keepdim=True)

        return edit

    edits = {Site("pattern", 1): without(CELLS), Site("pattern", 2): without(CELLS[-2:])}
    theirs = model.run(batch.clean, edit=edits).logits
    torch.testing.assert_close(model.weights.logits(after[:, -1]), theirs, atol=1e-4, rtol=1e-4)
