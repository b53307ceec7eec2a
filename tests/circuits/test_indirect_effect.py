"""Indirect effects: by plain hooks and the formula by hand, and where there is nothing to move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from micro_model import Micro, micro_problem
from tiny_models import Hooked, prompt_pairs
from torch import Tensor

from circuits.batches import Batch, TokenPair, make_batches
from circuits.errors import CircuitError
from circuits.methods.indirect_effect import METHOD, attention_outputs, compared, same_answer
from circuits.methods.method import Problem
from circuits.metrics import log_probability_difference, logit_difference
from circuits.model import Model
from circuits.models.bridge import BridgeModel
from circuits.scores import Scores


def _score(model: Model, problem: Problem, **options: object) -> Scores:
    return METHOD.score(model, problem, METHOD.configure(options))


def _effect(own: float, own_after: float, other: float, other_after: float) -> float:
    return ((own - own_after) / own_after + (other_after - other) / other) / 2


def test_the_effect_by_the_formula_and_by_plain_hooks(
    family: str,
    tiny: Callable[[str], BridgeModel],
    plain: Callable[[str], Hooked],
    problem: Callable[..., Problem],
) -> None:
    """Heads, MLPs and whole attention outputs, one prompt at a time."""
    model, by_hand, task = tiny(family), plain(family), problem(tiny(family), 3)
    found = _score(model, task, floor=1e-9, control=False)
    assert found.parts is not None
    for batch in task.batches:
        donor = by_hand.values(batch.corrupt)
        before = by_hand.logits(batch.clean).softmax(-1)
        patches: list[tuple[str, int, int | None, float]] = []
        for name in found.components:
            node = model.graph.node(name)
            head = node.index if node.kind == "head" else None
            patches.append((name, node.layer, head, 0.0))
        patches += [(part, layer, -1, 0.0) for layer, part in enumerate(attention_outputs(model.graph))]
        for name, layer, head, _ in patches:
            kind = "mlp" if head is None else "z"
            change = _replacing(donor[kind, layer], head)
            after = by_hand.logits(batch.clean, {(kind, layer): change}).softmax(-1)
            scores = found.parts if head == -1 else found
            for row, index in enumerate(batch.index):
                (right,), (wrong,) = batch.answers[row], batch.distractors[row]
                expected = _effect(
                    *(float(p[row, right]) for p in (before, after)),
                    *(float(p[row, wrong]) for p in (before, after)),
                )
                ours = scores.samples[index, scores.components.index(name)]
                assert ours == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert np.abs(found.samples).max() > 0.05


def _replacing(donor: Tensor, head: int | None) -> Callable[[Tensor], Tensor]:
    def change(value: Tensor) -> Tensor:
        if head in (None, -1):
            return donor
        value = value.clone()
        value[:, :, head] = donor[:, :, head]
        return value

    return change


def test_a_prompt_patched_into_itself_moves_nothing(gpt2: BridgeModel) -> None:
    batches = tuple(replace(b, corrupt=b.clean) for b in make_batches(gpt2, prompt_pairs(4)))
    found = _score(gpt2, Problem(batches, logit_difference), positions="every", control=False)
    assert np.abs(found.samples).max() < 1e-5
    assert all(np.abs(values).max() < 1e-5 for values in found.by_position.values())
    assert set(found.details["changed_predictions"]["all"].values()) == {0.0}  # type: ignore[index]


def test_what_carries_everything_gives_the_other_prompts_probabilities() -> None:
    """In Micro all heads together are the model: patched, P* is P' and both sides of the ratio are known."""
    (batch,) = micro_problem().batches
    scores = _score(Micro(), micro_problem(), floor=1e-9, control=False)
    clean, corrupt = (Micro().run(tokens).logits.softmax(-1)[0] for tokens in (batch.clean, batch.corrupt))
    own, other = ([float(p[i]) for p in (clean, corrupt)] for i in (0, 1))
    assert scores.parts is not None
    assert scores.parts.of("a0") == pytest.approx(_effect(*own, *other), rel=1e-4)


def test_no_probability_is_divided_by_less_than_the_floor() -> None:
    before = torch.tensor([[[0.9, 1e-8, 3.0]]])
    after = torch.tensor([[[1e-8, 0.9, 4.0]]])
    ratio, moved, changed = compared(before, after, 0.01)[:, 0, 0].tolist()
    assert ratio == pytest.approx(90)
    assert (moved, changed) == (pytest.approx(0.9), 1)


def test_prompts_with_the_same_answer_are_paired_whatever_the_batches(gpt2: BridgeModel) -> None:
    pairs = prompt_pairs(12)
    asked: list[set[tuple[int, tuple[int, ...]]]] = []
    for size in (64, 3):
        twins = same_answer(gpt2, make_batches(gpt2, pairs, batch_size=size))
        assert max(map(len, twins)) <= size
        for batch in twins:
            assert not torch.equal(batch.clean, batch.corrupt)
        rows = [(i, pair) for b in twins for i, pair in zip(b.index, b.pairs, strict=True)]
        clean = {pair.clean: pair.answers for b in make_batches(gpt2, pairs) for pair in b.pairs}
        assert rows
        assert all(clean[pair.corrupt] == pair.answers for _, pair in rows)
        asked.append({(i, pair.corrupt) for i, pair in rows})
    assert asked[0] == asked[1]


def test_a_copy_of_a_prompt_is_no_twin() -> None:
    pair = TokenPair((1, 2), (1, 3), (0,), (1,), {}, (1, 3))
    tokens = torch.tensor([[1, 2], [1, 2]])
    assert same_answer(Micro(), (Batch((0, 1), tokens, tokens, (pair, pair)),)) == ()


def test_without_twins_there_is_no_control_and_it_says_so() -> None:
    details = _score(Micro(), micro_problem()).details
    assert details["same_answer"] is None
    assert "no control" in details["verdict"][-1]  # type: ignore[index]


def test_answers_of_several_tokens_are_refused(gpt2: BridgeModel) -> None:
    pairs = [replace(pair, scoring="whole-string") for pair in prompt_pairs(2)]
    task = Problem(make_batches(gpt2, pairs), log_probability_difference)
    with pytest.raises(CircuitError, match="indirect-effect reads answers of one token"):
        _score(gpt2, task)
