"""`circuit tasks import` and prompts without corrupted twins, end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tiny_models import NAMES

from circuits.errors import CircuitError
from cli.own_prompts import under_mean
from cli.prompt_source import own_prompts
from cli.study.cells import cells
from cli.study.spec import Study

Invoke = Callable[..., Result]


def _lines(path: str, *, named: bool) -> Path:
    """When Mary and John went, ...: with or without the span that can be swapped."""
    lines = [
        {"prompt": f"When {a} and {b} went to the store, {b} gave a drink to", "answer": f" {a}"}
        | ({"positions": {"IO": f"When {a}"}, "swap": "IO"} if named else {})
        for a, b in list(permutations(NAMES, 2))[:12]
    ]
    Path(path).write_text("\n".join(map(json.dumps, [*lines, lines[0]])))
    return Path(path)


def _said(result: Result) -> str:
    return re.sub(r"\s+", " ", result.output)


def test_what_a_file_holds_and_what_a_model_can_use(
    circuit: Invoke, directory: Callable[[str], Path]
) -> None:
    file = _lines("mine.jsonl", named=True)
    (alone,) = json.loads(circuit("tasks", "import", file, "--json").stdout)
    assert (alone["format"], alone["rows"], alone["left"], alone["without_twins"]) == (
        "prompt-lines",
        13,
        12,
        12,
    )
    assert alone["dropped"] == {"repeated": 1}
    assert alone["positions"] == {"IO": 12}
    told = circuit("tasks", "import", file, "--model", directory("tiny-gpt2"), "--output", "kept.jsonl")
    assert told.exit_code == 0, told.output
    for part in (
        "13 prompts (0 with a corrupted twin, 12 without)",
        "left for tiny-gpt2: 12; dropped: 1 repeated",
    ):
        assert part in _said(told)
    assert "dropped line 13: the same as line 1" in _said(told)
    (kept,) = json.loads(circuit("tasks", "import", "kept.jsonl", "--json").stdout)
    assert (kept["rows"], kept["with_twins"], kept["dropped"]) == (12, 12, {})
    again = circuit("tasks", "import", file, "--output", "kept.jsonl")
    assert again.exit_code == 2
    assert "kept.jsonl exists" in again.stderr
    Path("none.json").write_text("[]")
    none = circuit("tasks", "import", "none.json")
    assert (none.exit_code, _said(none)) == (2, "Error: none.json is empty: it holds no prompt. ")


def test_the_formats_and_the_listing_are_told_by_the_same_word(circuit: Invoke) -> None:
    formats = json.loads(circuit("tasks", "import", "--json").stdout)
    assert {row["format"] for row in formats["formats"]} > {"eap-ig", "mib", "prompt-lines"}
    assert {"clean", "answers"} == set(formats["prompt_line"]["required"])
    assert "ioi" in [row["task"] for row in json.loads(circuit("tasks", "--json").stdout)]
    assert "There is no task 'iooi'. Did you mean 'ioi'?" in _said(circuit("tasks", "iooi"))


def test_prompts_without_twins_are_discovered_on(circuit: Invoke, directory: Callable[[str], Path]) -> None:
    model = ("--model", directory("tiny-gpt2"), "--top", "3")
    plain = _lines("plain.jsonl", named=False)
    mean = circuit("discover", "--prompts", plain, *model, "--make-corrupt", "mean", "--output", "mean")
    assert mean.exit_code == 0, mean.output
    run = json.loads(Path("mean/run.json").read_text())
    assert run["prompts"]["corrupt_prompts_made_by"] == "mean"
    assert run["prompts"]["dropped"] == {"repeated": 1}
    assert list(run["cost"]["seconds"]) == ["activation-patching"]
    assert run["config"]["methods"]["activation-patching"]["ablation"] == "mean"
    (found,) = json.loads(Path("mean/evaluation.json").read_text())["methods"].values()
    assert [verdict["ablation"] for verdict in found["verdicts"]] == ["mean", "resample"]
    assert "they were made by mean" in Path("mean/report.md").read_text()
    none = circuit("discover", "--prompts", plain, *model)
    assert none.exit_code == 2
    assert "12 no position to swap" in _said(none)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"task": "ioi", "make_corrupt": "mean"}, "--make-corrupt mean is for --prompts FILE; ioi has its own twins."),
    ({"task": "ioi", "column": "hard"}, "--corrupt-column hard are the twins of --prompts FILE; ioi has its own."),
    ({"prompts": "mine.jsonl", "make_corrupt": "meen"}, "way to make corrupted prompts 'meen'. Did you mean 'mean'?"),
    ({"prompts": "mine.jsonl", "column": "hard"}, "--corrupt-column hard: mine.jsonl is of the format prompt-lines"),
    ({"prompts": "list.json"}, "or do without by --make-corrupt mean"),
    ({"prompts": "empty.csv"}, "empty.csv holds 0 prompt pairs; at least 2 are needed"),
    ({"prompts": "."}, "cannot be read: Is a directory"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "said"), REFUSED)
def test_what_cannot_be_asked_of_a_file(
    asked: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _lines("mine.jsonl", named=True)
    Path("list.json").write_text('[["x", " y"], ["z", " w"]]')
    Path("empty.csv").write_text("")
    given: dict[str, Any] = {"task": None, "prompts": None} | asked
    given["prompts"] = given["prompts"] and Path(given["prompts"])
    with pytest.raises(CircuitError) as told:
        own_prompts(**given)
    assert said in str(told.value)


def test_a_study_says_how_twins_are_made(tmp_path: Path) -> None:
    file = _lines(str(tmp_path / "mine.jsonl"), named=False)
    own = {"file": str(file), "make-corrupt": "mean", "corrupt-column": "hard"}
    matrix = {"prompts": [own], "model": "plain-4l", "method": "eap"}
    (cell,) = cells(Study.model_validate({"matrix": matrix}))
    assert cell.options == {"prompts": file, "corrupt_column": "hard", "make_corrupt": "mean"}


def test_methods_that_need_twins_are_refused_where_there_are_none() -> None:
    names = ["activation-patching", "logit-attribution", "sae"]
    assert under_mean(None, names, ["activation-patching.budget=4"]) == (
        ["activation-patching"],
        ["activation-patching.budget=4", "activation-patching.ablation=mean"],
    )
    with pytest.raises(CircuitError, match="there is no sae nor logit-attribution without them"):
        under_mean(["sae", "logit-attribution", "eap"], names, [])
    with pytest.raises(CircuitError, match="ablation=zero: with --make-corrupt mean"):
        under_mean(["eap"], ["eap"], ["eap.ablation=zero"])
