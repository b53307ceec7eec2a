"""Activation patching on a budget, beside the same on all prompts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from circuits.budgeted import ESTIMATED
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.models.bridge import BridgeModel, load_model
from circuits.scores import Scores
from circuits.selection import Selection, select

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]
METHOD = METHODS.load("activation-patching")


def _score(model: BridgeModel, problem: Problem, **options: object) -> Scores:
    return METHOD.score(model, problem, METHOD.configure(options))


@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize(("family", "guess"), [("tiny-llama", "relevance"), ("tiny-gemma2", "attribution")])
def test_a_budget_for_all_prompts_is_exact_patching(
    family: str, guess: str, direction: str, tiny: Tiny, problem: MakeProblem
) -> None:
    """Also through the portable path, which has no relevance to guess by."""
    model = tiny(family)
    whole = _score(model, problem(model, 12), direction=direction)
    budgeted = _score(model, problem(model, 12), direction=direction, budget=12)
    some = np.array([row["exact_prompts"] for row in budgeted.details["budget"]["components"].values()]) == 12  # type: ignore[index]
    assert some.any()
    np.testing.assert_allclose(budgeted.values[some], whole.values[some], atol=1e-5)
    np.testing.assert_allclose(budgeted.stderr[some], whole.stderr[some], atol=1e-5)
    assert (budgeted.unit, budgeted.details["guess"]) == (ESTIMATED, guess)


def test_estimates_lie_within_their_errors_of_the_exact_means(problem: MakeProblem) -> None:
    """On a trained model, with a tenth of the runs; and nothing that matters is screened out."""
    from cli.prompt_source import sample_task
    from tasks import TASKS

    model = load_model("plain-4l")
    from circuits.batches import make_batches
    from circuits.metrics import logit_difference

    drawn = sample_task(model, TASKS.load("ioi"), form=None, corruption=None, n=160, seed=3)
    task = Problem(make_batches(model, drawn.pairs), logit_difference, seed=3)
    whole, budgeted = _score(model, task), _score(model, task, budget=32)
    account = budgeted.details["budget"]
    assert account["exact_runs"] < 0.2 * account["exact_runs_on_all_prompts"]  # type: ignore[index]
    off = np.abs(budgeted.values - whole.values) / np.maximum(budgeted.stderr, 1e-3)
    assert np.mean(off < 3) > 0.9
    assert len(set(budgeted.ranking()[:8]) & set(whole.ranking()[:8])) >= 7, "the eighth may be a tie"
    large = np.abs(whole.values) > 0.1 * np.abs(whole.values).max()
    for component in np.array(whole.components)[large]:
        assert account["components"][component]["verdict"] != "screened out"  # type: ignore[index]
    assert any("instead of" in line for line in budgeted.details["verdict"])  # type: ignore[attr-defined]


def test_estimates_are_no_samples_to_test(tiny: Tiny, problem: MakeProblem) -> None:
    scores = _score(tiny("tiny-gpt2"), problem(tiny("tiny-gpt2"), 12), budget=8)
    with pytest.raises(CircuitError, match="significance cannot be tested"):
        select(
            scores,
            Selection(rule="significance"),
            graph=Graph(1, 1, 1),
            seed=0,
            faithfulness=lambda circuits: [],
        )


@pytest.mark.parametrize("options", [{"inputs": True}, {"positions": "every"}])
def test_what_a_budget_cannot_do_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(CircuitError, match="a budget is for effects at all positions"):
        METHOD.configure({"budget": 8, **options})
    with pytest.raises(CircuitError, match="got 1"):
        METHOD.configure({"budget": 1})
