"""A user's task file from end to end: shown, discovered, judged, compared, and in a study."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from cli.study.cells import cells
from cli.study.spec_file import read_study

Invoke = Callable[..., Result]
README = Path(__file__).parents[2] / "README.md"
(FILE,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
FAST = ("--method", "logit-attribution", "--top", 6)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FILE, encoding="utf-8")
    return tmp_path / "mine.py"


def test_a_run_says_which_file_its_task_stood_in(circuit: Invoke, mine: Path) -> None:
    done = circuit("discover", "--task-file", "mine.py", *FAST)
    assert done.exit_code == 0, done.stderr
    config = json.loads(Path("runs/capitals-plain-4l/run.json").read_text())["config"]
    digest = hashlib.sha256(mine.read_bytes()).hexdigest()
    assert (config["task"], config["task_file"]) == ("capitals", {"file": "mine.py", "sha256": digest})


@pytest.mark.slow
def test_a_run_is_judged_and_compared_without_its_file(circuit: Invoke, mine: Path) -> None:
    own, ioi, more = "runs/capitals-plain-4l", "runs/ioi-plain-4l", ("--pairs", 16)
    for arguments in (
        ("discover", "--task-file", "mine.py", *FAST),
        ("discover", "ioi", *FAST, *more),
        ("evaluate", ioi, "--task", "mine.py", "--pairs", 4),
        ("evaluate", own),
        ("compare", own, ioi, "--transfer", "--output", "both"),
    ):
        if arguments == ("evaluate", own):
            mine.unlink()
        done = circuit(*arguments)
        assert done.exit_code == 0, done.stderr


def test_tasks_of_a_file_are_listed_and_shown(circuit: Invoke, mine: Path) -> None:
    listed = json.loads(circuit("tasks", "--task-file", "mine.py", "--json").stdout)
    assert [row["task"] for row in listed] == ["capitals"]
    shown = json.loads(circuit("tasks", "mine.py", "--pairs", 1, "--json").stdout)
    (sample,) = shown["samples"]
    assert sample["pairs"][0]["positions"] == {"COUNTRY": 4, "END": 5}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("discover", "capital", "--task-file", "mine.py"), "Did you mean 'capitals'"),
        (("discover", "--task-file", "none.py"), "Task file none.py cannot be read"),
        (("discover", "--task-file", "mine.txt"), "must end in .py"),
        (("discover", "--task-file", "mine.py", "--prompts", "x.jsonl"), "not both"),
        (("tasks", "capital", "--task-file", "mine.py"), "Did you mean 'capitals'"),
    ],
)
def test_a_wrong_file_or_name_is_one_message(
    circuit: Invoke, mine: Path, arguments: tuple[str, ...], problem: str
) -> None:
    done = circuit(*arguments)
    assert done.exit_code == 2
    assert problem in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_study_takes_a_file_and_a_cell_follows_what_it_holds(mine: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(f"matrix: {{task: ['{mine}:capitals/plain', ioi], model: plain-4l, method: sae}}\n")
    own, ioi = cells(read_study(study))
    assert own.name == "mine-capitals-plain-plain-4l-sae-0"
    assert (own.discover_options()["task"], own.discover_options()["form"]) == (f"{mine}:capitals", "plain")
    before = own.key("weights"), ioi.key("weights")
    mine.write_text(FILE.replace("Cairo", "Giza"), encoding="utf-8")
    assert own.key("weights") != before[0]
    assert ioi.key("weights") == before[1]
