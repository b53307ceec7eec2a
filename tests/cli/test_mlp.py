"""`circuit mlp` as a user runs it: the tables, the folder, JSON, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

Invoke = Callable[..., Result]
QUICK = ("mlp", "planted-ioi", "--task", "ioi", "--pairs", "16")


def test_the_folder_is_the_same_byte_for_byte_and_says_what_the_terminal_says(circuit: Invoke) -> None:
    runs = [circuit(*QUICK, "--output", name) for name in ("one", "two")]
    assert [run.exit_code for run in runs] == [0, 0], runs[0].output
    one, two = ({p.name: p.read_bytes() for p in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) == {
        "mlp.json",
        "report.md",
        "report.html",
        "mlp.png",
        "mlps.csv",
        "answers.csv",
        "heads.csv",
        "last-layer.csv",
    }
    kept = json.loads(one["mlp.json"])
    assert [each["mlp"] for each in kept["mlps"]] == ["m0", "m1", "m2"]
    assert len(pd.read_csv("one/heads.csv")) == 6 + 12 + 18
    report, shown = one["report.md"].decode(), " ".join(runs[0].stdout.split())
    assert "Heads and one vector tell" in report
    assert "Heads and one vector tell" in shown


def test_json_is_the_record(circuit: Invoke, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Mary went to the store\n\nJohn gave a book to Mary\n")
    result = circuit(*QUICK, "--layer", "1", "--json", "--text", "text.txt")
    kept = json.loads(result.stdout)
    assert [each["mlp"] for each in kept["mlps"]] == ["m1"]
    assert kept["last_layer"]["text"] == "text.txt"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layer", "9"), "has no layer 9: its 3 are 0 to 2"),
        (("--text", "empty.txt"), "empty.txt holds no text"),
        (("--text", "none.txt"), "none.txt cannot be read as text"),
    ],
)
def test_mistakes_leave_nothing_behind(
    circuit: Invoke, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    result = circuit(*QUICK, *words, "--output", "out")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
