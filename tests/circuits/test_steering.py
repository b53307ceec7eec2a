"""The knob: the layer that decides is found, the direction that it writes is learned, and it steers."""

from __future__ import annotations

import pytest
import torch
from knob_network import KNOB, KnobModel, opposite_intents
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.errors import CircuitError
from circuits.models.bridge import BridgeModel
from circuits.subspaces.directions import random_frames
from circuits.subspaces.layer_search import _first, pulls, reading, search
from circuits.subspaces.place import place_named
from circuits.subspaces.steering import TIMES, agreeing, steer
from circuits.subspaces.swaps import Swap, swaps
from circuits.subspaces.training import Recipe, learn


@pytest.fixture(scope="module")
def both_ways() -> tuple[Swap, ...]:
    return swaps(KnobModel(), [opposite_intents()], place_named("resid_post.1/END", 3))


@pytest.mark.parametrize("to_clean", [True, False])
def test_the_search_finds_the_one_layer_that_brings_the_intent(to_clean: bool) -> None:
    found = search(pulls(KnobModel(), [opposite_intents()], to_clean))
    assert found.layers == (1,)
    assert found.reading.source[-1] > 0.85 > 0.1 > found.reading.base[-1]
    assert found.n_readings <= 4


def test_without_what_decides_the_search_finds_nothing() -> None:
    batch = opposite_intents()
    (pull,) = pulls(KnobModel(), [batch], to_clean=True)
    blind = type(pull)(pull.weights, pull.base, pull.base, pull.right, pull.counterfactual)
    assert search([blind]).layers == ()


def test_bisection_finds_the_first_that_holds() -> None:
    for first in range(1, 9):
        asked: list[int] = []
        assert _first(1, 8, lambda n, first=first, asked=asked: asked.append(n) or n >= first) == first  # type: ignore[misc]
        assert len(asked) <= 3


def test_a_reading_with_all_layers_is_the_source_and_with_none_the_base(gpt2: BridgeModel) -> None:
    (batch,) = make_batches(gpt2, prompt_pairs(4, templates=1))
    (pull,) = pulls(gpt2, [batch], to_clean=False)
    own = gpt2.run(batch.clean).logits.softmax(-1)
    answers = [ids[0] for ids in batch.answers]
    expected = float(own[range(4), answers].mean())
    assert reading([pull], ()).base[-1] == pytest.approx(expected, abs=1e-5)
    with_all = reading([pull], range(3))
    theirs = gpt2.run(batch.corrupt).logits.softmax(-1)
    wrong = [ids[0] for ids in batch.distractors]
    # The last token is the same in both, so with all heads' outputs its whole column is the source's.
    assert with_all.source[-1] == pytest.approx(float(theirs[range(4), wrong].mean()), abs=1e-5)


def test_the_knob_is_learned_and_steers_both_ways(both_ways: tuple[Swap, ...]) -> None:
    u = learn(both_ways, 1, recipe=Recipe(epochs=60, rate=0.2))[:, 0]
    assert abs(float(u[KNOB])) > 0.99
    found = steer(u, both_ways, both_ways)
    assert float(found.direction[KNOB]) > 0.99
    assert found.monotone
    assert found.pair_accuracy.value == 1
    assert max(found.random) < 1
    assert found.works
    assert found.own == (1.0, 0.0)
    # The intents stand at +1 and -1, so their difference is 2 long and half of it is either side.
    sides = {each.times: each for each in found.sweep}
    assert [each.times for each in found.sweep] == list(TIMES)
    assert sides[0.5].c == pytest.approx(1, abs=0.05)
    assert (sides[0.5].memory.value, sides[-0.5].context.value) == (1, 1)
    assert (sides[0.5].memory_ratio, sides[-0.5].memory_ratio) == (1, 0)


def test_a_random_direction_is_no_knob(both_ways: tuple[Swap, ...]) -> None:
    (frame,) = random_frames(64, 1, 1, 99)
    found = steer(frame[:, 0], both_ways, both_ways)
    assert found.pair_accuracy.value < 1
    assert not found.works


def test_a_model_that_answers_neither_is_refused(gpt2: BridgeModel) -> None:
    with pytest.raises(CircuitError, match=r"of 8 pairs; a knob needs 4"):
        agreeing(gpt2, prompt_pairs(8))


def test_the_sweep_sets_the_coordinate(both_ways: tuple[Swap, ...]) -> None:
    """h' = h - u (u.h) + u c, by hand on the first prompt."""
    swap = next(s for s in both_ways if s.of_clean)
    u = torch.nn.functional.one_hot(torch.tensor(KNOB), 64).float()
    found = steer(u, both_ways, both_ways)
    c = found.sweep[0].c
    moved = swap.value.clone()
    moved[:, KNOB] = c
    logits = swap.logits(moved[None])[0]
    right, wrong = (
        torch.tensor([ids[0] for ids in side])[:, None] for side in (swap.right, swap.counterfactual)
    )
    by_hand = (logits.gather(1, right) - logits.gather(1, wrong)).mean()
    assert found.sweep[0].difference.value == pytest.approx(float(by_hand), abs=1e-4)
