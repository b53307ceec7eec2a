"""`circuit tokens` as a user runs it: the tables, the folder, JSON, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

Invoke = Callable[..., Result]
TASK = ("tokens", "planted-ioi", "--task", "ioi", "--pairs", "4", "--runs", "2", "--steps", "5")


def test_the_folder_is_whole_and_its_record_the_same_byte_for_byte(circuit: Invoke) -> None:
    run = circuit(*TASK, "--output", "one")
    assert run.exit_code == 0, run.output
    one = {path.name: path.read_bytes() for path in Path("one").iterdir()}
    assert circuit(*TASK, "--json").stdout.encode() == one["tokens.json"]
    assert set(one) == {
        "tokens.json",
        "report.md",
        "report.html",
        "tokens.png",
        "positions.csv",
        "tokens.csv",
        "judges.csv",
    }
    kept = json.loads(one["tokens.json"])
    assert len(pd.read_csv("one/tokens.csv")) == sum(len(each["tokens"]) for each in kept["read"])
    assert "ReAGent: " in one["report.md"].decode()
    assert "S2" in run.stdout


def test_a_prompt_of_ones_own(circuit: Invoke) -> None:
    words = ("tokens", "planted-ioi", "Mary and John went", "--runs", "1", "--steps", "3")
    shown, read = circuit(*words), json.loads(circuit(*words, "--json").stdout)
    assert "Mary" in shown.stdout
    assert [each["text"] for each in read["read"]] == ["Mary and John went"]


def test_words_that_the_model_lacks_are_told(circuit: Invoke) -> None:
    result = circuit("tokens", "planted-ioi", "Mary and Zorro", "--runs", "1", "--steps", "1", "--json")
    assert result.exit_code == 0
    assert "1 of the words are unknown to planted-ioi and become <unk>: Zorro" in " ".join(
        result.stderr.split()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("Mary and", "--task", "ioi"), "Give a prompt, or --task or --prompts, not both"),
        (("  ",), "is an empty prompt"),
        ((), "Give either a task or --prompts FILE"),
        (("Mary",), "fewer than 2 tokens of text"),
        (
            ("Mary and John", "--form", "plain", "--pairs", "4"),
            "--form and --pairs belong to prompts of --task",
        ),
    ],
)
def test_mistakes_leave_nothing_behind(
    circuit: Invoke, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = circuit("tokens", "planted-ioi", *words, "--output", "out")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
