"""What the story model of 260,000 parameters can do, the tool finds in it: pronouns and names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result


@pytest.mark.parametrize(("task", "top"), [("gendered-pronouns", 24), ("name-copying", 14)])
def test_the_circuit_of_the_story_model_beats_random_ones(
    circuit: Callable[..., Result], shared: Path, task: str, top: int
) -> None:
    stories = shared / "models" / "stories260K"
    fast = ("--method", "activation-patching", "--pairs", 64, "--top", top, "--output", "run")
    done = circuit("discover", task, "--model", stories, *fast)
    assert done.exit_code == 0, done.stderr
    record = json.loads(Path("run/evaluation.json").read_text())
    assert record["baseline"]["preferred"]["value"] > 0.95
    judged = record["methods"]["activation-patching"]["verdicts"][0]
    assert judged["faithfulness"]["value"] > 0.8, judged
    assert judged["random"]["high"] < judged["faithfulness"]["low"], judged
