"""`circuit in-context` as a user runs it: the tables, the folder, JSON, own prompts, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

Invoke = Callable[..., Result]
QUICK = ("in-context", "plain-4l", "--pairs", "16", "--draws", "1")
FILES = {
    "in-context.json",
    "report.md",
    "report.html",
    "phases.png",
    "summary.csv",
    "merge.csv",
    "ablations.csv",
}
FILES |= {"merging-heads.csv", "retrieving-heads.csv"}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Sixteen short prompts of two examples."""
    lines = []
    for first, second in product(("red", "blue", "pink", "gray"), ("three", "five", "six", "two")):
        shown = f"the green is color\nthe {second} is number\nthe"
        row = {"clean": f"{shown} {first} is", "corrupt": f"{shown} ten is"}
        lines.append(json.dumps(row | {"answers": [" color"], "distractors": [" number"]}))
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_the_folder_is_the_same_byte_for_byte_and_says_what_the_terminal_says(
    circuit: Invoke, mine: Path
) -> None:
    runs = [
        circuit("in-context", "plain-4l", "--prompts", mine, "--draws", "1", "--output", name)
        for name in ("one", "two")
    ]
    assert [run.exit_code for run in runs] == [0, 0], runs[0].output
    one, two = ({p.name: p.read_bytes() for p in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) == FILES
    assert len(pd.read_csv("one/merging-heads.csv")) == len(pd.read_csv("one/retrieving-heads.csv")) == 32
    assert len(pd.read_csv("one/summary.csv")) == 5
    assert len(pd.read_csv("one/ablations.csv")) == 6 * (4 + 1)
    report, shown = one["report.md"].decode(), " ".join(runs[0].stdout.split())
    for words in ("the right one is likeliest on", "Without y_i -> s_q in all layers"):
        assert words in report
        assert words in shown
    assert b"data:image/png;base64" in one["report.html"]


def test_json_is_the_record_also_of_own_prompts(circuit: Invoke, mine: Path) -> None:
    result = circuit("in-context", "plain-4l", "--prompts", mine, "--draws", "2", "--json")
    assert result.exit_code == 0, result.stderr
    kept = json.loads(result.stdout)
    assert kept["prompts"] == {"task": "mine", "form": "", "n": 16}
    assert kept["level"]["examples"] == 2
    assert kept["neighbours"] == 2
    assert {each["edge"] for each in kept["ablations"]} >= {"x_i -> s_i", "y_i -> s_q"}
    assert all(len(each["controls"]["random"]["accuracy"]) == 2 for each in kept["ablations"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "ioi"), "prompt 1 shows 0 examples"),
        (("--task", "nothing"), "nothing"),
        (("--pairs", "12"), "12 prompts are too few to have neighbours; give 16 or more"),
        (("--form", "french"), "french"),
    ],
)
def test_mistakes_leave_nothing_behind(
    circuit: Invoke, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = circuit(*QUICK, *words, "--output", "out")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
