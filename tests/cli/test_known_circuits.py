"""A known circuit is offered for the prompts that it is known for, and for no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cli.known_circuits import known_circuits
from tasks import TASKS


def _known(model: str, builtin: bool, task: str, form: str, corruption: str) -> tuple[list[str], list[str]]:
    stand_in: Any = SimpleNamespace(name=model, builtin=builtin)
    known = known_circuits(TASKS.load(task), stand_in, form, corruption)
    return sorted(known.heads), sorted(known.direct)


@pytest.mark.parametrize("corruption", ["swap", "abc"])
def test_the_planted_circuit_is_known_to_the_edge_for_both_corruptions(corruption: str) -> None:
    known, direct = _known("planted-ioi", True, "ioi", "plain", corruption)
    assert known == ["planted-ioi card"]
    assert direct == ["planted-ioi card, heads that write to the logits"]
    assert _known("planted-ioi", True, "ioi", "distractors", corruption) == ([], [])


def test_the_strict_circuits_are_known_for_the_corruption_they_were_trained_with() -> None:
    assert _known("strict-4l", True, "ioi", "plain", "swap") == (["strict-4l card"], [])
    assert _known("strict-4l", True, "ioi", "plain", "abc") == ([], [])
    for form in ("zero-shot", "one-shot"):
        assert _known("strict-4l", True, "colored-objects", form, "other-object")[0] == ["strict-4l card"]


def test_a_published_circuit_belongs_to_its_model_and_its_form() -> None:
    (ioi,), _ = _known("gpt2", False, "ioi", "plain", "swap")
    assert ioi.startswith("Wang et al. 2022")
    assert _known("gpt2", False, "factual-recall", "mixed", "subject") == ([], [])
    (facts,), _ = _known("gpt2", False, "factual-recall", "counterfactual-context", "subject")
    assert facts.startswith("Ortu et al. 2024")
    assert _known("plain-4l", True, "ioi", "plain", "swap") == ([], [])


def test_a_directory_that_bears_a_built_in_name_gets_no_card() -> None:
    assert _known("planted-ioi", False, "ioi", "plain", "swap") == ([], [])


def test_each_corruption_has_its_own_edges() -> None:
    stand_in: Any = SimpleNamespace(name="planted-ioi", builtin=True)
    swap, abc = (known_circuits(TASKS.load("ioi"), stand_in, "plain", c).edges for c in ("swap", "abc"))
    assert len(swap["planted-ioi card"]) == 6
    assert swap["planted-ioi card"] < abc["planted-ioi card"]
    assert len(abc["planted-ioi card"]) == 10
