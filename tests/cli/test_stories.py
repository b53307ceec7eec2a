"""What the story model of 260,000 parameters can do, the tool finds in it: pronouns and names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from circuits.batches import make_batches
from circuits.metrics import preferred
from circuits.models.bridge import BridgeModel, load_model
from cli.prompt_source import sample_task
from tasks import TASKS

FORMS = [
    ("gendered-pronouns", "story"),
    ("gendered-pronouns", "noun"),
    ("gendered-pronouns", "name"),
    ("name-copying", "story"),
    ("name-copying", "start"),
]


@pytest.fixture(scope="module")
def stories(shared: Path) -> BridgeModel:
    return load_model(str(shared / "models" / "stories260K"))


@pytest.mark.parametrize(("task", "form"), FORMS)
def test_the_story_model_is_right_in_nine_of_ten(stories: BridgeModel, task: str, form: str) -> None:
    drawn = sample_task(stories, TASKS.load(task), form=form, corruption=None, n=64, seed=0)
    right = [
        preferred(stories.run(batch.clean).logits, batch.answers, batch.distractors).sum()
        for batch in make_batches(stories, drawn.pairs)
    ]
    assert torch.stack(right).sum() >= 0.9 * 64


@pytest.mark.slow
@pytest.mark.parametrize(("task", "top"), [("gendered-pronouns", 24), ("name-copying", 14)])
def test_the_circuit_of_the_story_model_beats_random_ones(
    circuit: Callable[..., Result], shared: Path, task: str, top: int
) -> None:
    fast = ("--method", "activation-patching", "--pairs", 64, "--top", top, "--output", "run")
    done = circuit("discover", task, "--model", shared / "models" / "stories260K", *fast)
    assert done.exit_code == 0, done.stderr
    record = json.loads(Path("run/evaluation.json").read_text())
    assert record["baseline"]["preferred"]["value"] > 0.95
    judged = record["methods"]["activation-patching"]["verdicts"][0]
    assert judged["faithfulness"]["value"] > 0.8, judged
    assert judged["random"]["high"] < judged["faithfulness"]["low"], judged
