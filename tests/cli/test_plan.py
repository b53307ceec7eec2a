"""`circuit plan` as a user runs it: the options and mistakes of discover, a forecast, and nothing on the disk."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from test_discover import MISTAKES
from tiny_models import prompt_pairs

from cli.discover import discover
from cli.plan import plan

Invoke = Callable[..., Result]
QUICK = ("--model", "planted-ioi", "--pairs", "24", "--method", "activation-patching")
NUMBERS = {"rows", "forward_passes", "full_passes", "flops", "bytes", "seconds", "cpu_seconds"}


def test_a_forecast_in_words(circuit: Invoke, tmp_path: Path) -> None:
    result = circuit("plan", "ioi", *QUICK)
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "ioi in planted-ioi (exact engine): 12 pairs to discover on, 12 to judge on" in words
    for stage in (
        "load",
        "baseline",
        "mean outputs",
        "scores",
        "selection",
        "judging",
        "random circuits",
        "sizes",
    ):
        assert stage in words
    assert "Memory:" in words
    assert "of processor time" in words
    assert list(tmp_path.iterdir()) == []


def test_a_forecast_as_json_and_nothing_on_the_disk(circuit: Invoke, tmp_path: Path) -> None:
    """With an output and a config too, as discover would take them."""
    Path("c.yaml").write_text("task: ioi\nmodel: planted-ioi\nmethod: logit-attribution\noutput: out\n")
    result = circuit("plan", "--config", "c.yaml", "--pairs", "24", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert {p.name for p in tmp_path.iterdir()} == {"c.yaml"}
    assert (said["task"], said["model"], said["unknown"]) == ("ioi", "planted-ioi", [])
    prompts = said["prompts"]
    assert prompts["pairs"] == prompts["discovery"] + prompts["judged"] == 24
    assert sum(prompts["lengths"].values()) == sum(prompts["first_differences"].values()) == 24
    names = [stage["stage"] for stage in said["stages"]]
    assert names[:3] == ["load", "baseline", "mean outputs"]
    assert names[-1] == "report"
    assert all(set(stage) == {"stage", *NUMBERS} for stage in said["stages"])
    assert set(said["total"]) == NUMBERS
    for key in ("rows", "forward_passes", "flops"):
        assert said["total"][key] == sum(stage[key] for stage in said["stages"])
    assert said["total"]["seconds"] == pytest.approx(sum(stage["seconds"] for stage in said["stages"]))
    assert 0 < said["total"]["full_passes"] < said["total"]["forward_passes"]
    memory = said["memory"]
    weights = json.loads(circuit("plan", *("ioi", *QUICK), "--json").stdout)["memory"]["model"]
    assert memory["model"] == weights > 0
    assert 0 < memory["work"] < memory["budget"]
    assert memory["process"] > memory["model"] + memory["work"]


def test_own_prompts_are_forecast(circuit: Invoke, directory: Callable[[str], Path]) -> None:
    lines = [
        {"clean": p.clean, "corrupt": p.corrupt, "answers": p.answers, "distractors": p.distractors}
        for p in prompt_pairs(12)
    ]
    Path("p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, path in (("tiny-llama", "exact engine"), ("tiny-olmo2", "portable")):
        options = ("--prompts", "p.jsonl", "--model", directory(name), "--method", "activation-patching")
        said = json.loads(circuit("plan", *options, "--json").stdout)
        assert said["patching"].startswith(path)
        assert said["total"]["flops"] > 0
        assert said["total"]["cpu_seconds"] > 0


def test_a_budget_that_holds_no_prompt_is_refused_with_the_way_out(circuit: Invoke) -> None:
    for command in ("plan", "discover"):
        result = circuit(command, "ioi", *QUICK, "--memory", "1KB")
        assert result.exit_code == 2, result.output
        assert "the memory budget is 1.0 KB" in " ".join(result.stderr.split())
        assert "--memory 1MB" in result.stderr


@pytest.mark.parametrize("name", [name for name, (words, _) in MISTAKES.items() if words[0] == "discover"])
def test_a_mistake_is_answered_as_discover_answers_it(name: str, circuit: Invoke, tmp_path: Path) -> None:
    command, _ = MISTAKES[name]
    before, after = circuit(*command), circuit("plan", *command[1:])
    assert after.exit_code == before.exit_code == 2, after.output
    # Either may have told of its progress before, and how long that took.
    said = after.stderr[after.stderr.index("Error: ") :]
    assert before.stderr.endswith(said)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_refused_before_any_work(circuit: Invoke) -> None:
    Path("out").mkdir()
    result = circuit("plan", "ioi", *QUICK, "--output", "out")
    assert result.exit_code == 2
    assert "out exists" in result.stderr


def test_plan_takes_every_option_of_discover(circuit: Invoke) -> None:
    ours, theirs = (inspect.signature(command).parameters for command in (plan, discover))
    assert list(ours) == list(theirs)
    shown = circuit("plan", "--help").stdout
    assert "circuit plan ioi --model plain-6l" in " ".join(shown.split())
    assert "--pairs" in shown
    assert "--output" not in shown


def test_methods_that_say_nothing_are_called_unknown(circuit: Invoke) -> None:
    options = ("ioi", *QUICK, "--set", "activation-patching.inputs=true")
    words = " ".join(circuit("plan", *options).stdout.split())
    assert "activation-patching: scores unknown" in words
    assert "now: at least" in words
    said = json.loads(circuit("plan", *options, "--json").stdout)
    assert said["unknown"] == ["activation-patching: scores"]
    assert [s["seconds"] for s in said["stages"] if s["stage"] == "activation-patching: scores"] == [None]
