"""HeadHunter: a greedy search on sets that are worked out here, and guidance by plain edits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from circuits.batches import make_batches
from circuits.greedy import greedy
from circuits.interventions.intervention import Interpolate, edits
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel, load_model
from circuits.scores import Scores
from tasks import TASKS

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]


def _score(model: BridgeModel, problem: Problem, **options: object) -> Scores:
    entry = METHODS.load("headhunter")
    scores = entry.score(model, problem, entry.configure(options))
    assert isinstance(scores, Scores)
    return scores


def test_of_parts_that_add_up_the_search_takes_the_largest_first_and_never_a_loss() -> None:
    parts = {"a": 1.0, "b": 3.0, "c": -1.0, "d": 2.0}
    asked: list[Sequence[str]] = []

    def worth(names: Sequence[str]) -> float:
        asked.append(names)
        return sum(parts[name] for name in names)

    found = greedy(tuple(parts), worth, 9)
    assert [turn.added for turn in found] == [("b",), ("d",), ("a",), ()]
    assert [turn.worth for turn in found] == [3, 5, 6, 6]
    assert found[0].each == parts
    assert len(asked) == 4 + 3 + 2 + 1
    together = greedy(tuple(parts), worth, 1, at_once=2)
    assert (together[0].added, together[0].worth) == (("b", "d"), 5)


def test_a_copy_of_a_chosen_head_is_not_chosen() -> None:
    def worth(names: Sequence[str]) -> float:
        return 2.0 * bool({"one", "copy"} & set(names)) + ("other" in names)

    found = greedy(("one", "copy", "other"), worth, 3)
    assert [turn.added for turn in found] == [("one",), ("other",), ()]


@pytest.mark.parametrize("share", [pytest.param(0.0, marks=pytest.mark.slow), 0.4])
def test_guidance_is_w_times_what_breaking_a_head_takes_away(
    covered: str, share: float, tiny: Tiny, problem: MakeProblem
) -> None:
    model, asked = tiny(covered), problem(tiny(covered), 5)
    scores = _score(model, asked, share=share, guidance=2.5, rounds=1)
    for batch in asked.batches:
        sides = batch.answers, batch.distractors
        own = logit_difference(model.run(batch.clean).logits, *sides)
        for column, head in enumerate(model.graph.heads):
            edit = edits(model, batch, [Interpolate((head,), share)])
            broken = logit_difference(model.run(batch.clean, edit=edit).logits, *sides)
            found = scores.samples[list(batch.index), column]
            np.testing.assert_allclose(found, 2.5 * (own - broken).numpy(), atol=5e-4)
    assert (np.abs(scores.values).max() > 1e-3) == (share > 0)
    if share == 0:
        assert scores.details["greedy_set"] == {}


def test_planted_heads_are_hunted_and_random_ones_add_nothing() -> None:
    from cli.prompt_source import sample_task

    model = load_model("planted-ioi")
    drawn = sample_task(model, TASKS.load("ioi"), form=None, corruption=None, n=8, seed=0)
    scores = _score(model, Problem(make_batches(model, drawn.pairs), logit_difference), rounds=1)
    assert set(scores.ranking()[:3]) <= {"a0.h2", "a1.h4", "a2.h1", "a2.h3"}
    assert np.median(scores.details["random_sets"]) < 0.1 < scores.values.max()  # type: ignore[call-overload]
