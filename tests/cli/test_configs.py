"""The configs of GPT-2 medium, on a random model of its shape, and prompts of two lists as a user gives them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from tiny_models import write_gpt2_shape

from circuits.progress import silent
from circuits.runs import read_run
from cli.run_source import model_of

Invoke = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[2]
NAMES = ("gpt2-medium-ioi", "gpt2-medium-colored-objects")


def _words(result: Result) -> str:
    return " ".join(result.stderr.split())


@pytest.fixture
def published(shared: Path) -> tuple[str, ...]:
    folder = shared / "data" / "circuit_reuse"
    return (
        *("--prompts", str(folder / "cobjs_data_42.json")),
        *("--corrupt-prompts", str(folder / "cobjs_mindiff_data_42.json")),
    )


@pytest.fixture
def gpt2_medium(shared: Path, tmp_path: Path) -> Path:
    """Random weights of its shape, but of little width, and its own tokenizer."""
    return write_gpt2_shape(tmp_path / "gpt2-medium", shared / "tokenizers" / "gpt2")


@pytest.mark.slow
def test_the_configs_of_gpt2_medium_run_and_can_be_compared(
    circuit: Invoke, gpt2_medium: Path, published: tuple[str, ...], tmp_path: Path
) -> None:
    few = ("--model", gpt2_medium, "--pairs", "4")
    for name, prompts in zip(NAMES, ((), published), strict=True):
        config = ROOT / "configs" / f"{name}.yaml"
        result = circuit("discover", "--config", config, "--output", f"runs/{name}", *few, *prompts)
        assert result.exit_code == 0, result.output
        run = read_run(tmp_path / "runs" / name)
        assert run.run["config"]["bos"] is False
        (scored,) = run.run["config"]["methods"].values()
        assert (scored["share"], scored["stages"], scored["least"]) == (0.02, "logits,q,v,k", 0)
        stages = run.evaluation["methods"]["staged-path-patching"]["details"]["stages"]
        assert [len(stage["kept"]) for stage in stages] == [8] * len(stages)  # 2% of 384 are 7.7
        kept = {head for stage in stages for head in stage["kept"]}
        assert {node["name"] for node in run.circuit["circuits"][0]["nodes"]} == kept
    first = (ROOT / "configs" / f"{NAMES[0]}.yaml").read_text().splitlines()[:3]
    commands = [shlex.split(line.removeprefix("# circuit ")) for line in first]
    assert [words[:3] for words in commands[:2]] == [
        ["discover", "--config", f"configs/{name}.yaml"] for name in NAMES
    ]
    result = circuit(*commands[2], "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["comparisons"]
    assert found["overlap"]["universe"] == 384
    assert found["overlap"]["jaccard"] == len(found["shared"]) / found["union"]


@pytest.mark.slow
def test_prompts_of_two_lists_go_where_prompts_go(
    circuit: Invoke, shared: Path, published: tuple[str, ...], tmp_path: Path
) -> None:
    small = write_gpt2_shape(tmp_path / "small", shared / "tokenizers" / "gpt2", n_layers=2, n_heads=2)
    options = (*published, "--model", small, "--pairs", "6", "--method", "logit-attribution")
    said = json.loads(circuit("plan", *options, "--no-bos", "--json").stdout)
    assert said["prompts"]["pairs"] == 6
    with_bos = json.loads(circuit("plan", *options, "--json").stdout)
    assert with_bos["prompts"]["tokens"] == said["prompts"]["tokens"] + 6
    result = circuit("discover", *options, "--no-bos", "--output", "run")
    assert result.exit_code == 0, result.output
    assert "not of the layout" not in result.stderr
    run = read_run(tmp_path / "run")
    assert set(run.prompts[0].positions) == {"OBJECT", "RIGHT", "WRONG1", "WRONG2", "ASKED", "END"}
    model, same = model_of(run, str(small), "cpu", None, None, silent)  # as `circuit evaluate` loads it
    assert same
    assert model.bos is None
    roles = circuit("heads", small, *published, "--pairs", "4", "--role", "content-gatherer", "--json")
    assert json.loads(roles.stdout)["prompts"] == {"task": "cobjs_data_42", "form": "", "n": 4}


PAIRS = [["Mary and John", " Mary"], ["John and Mary", " John"]]
TWINS = [["Mary and Mary", " John"], ["John and John", " Mary"]]


def _write(name: str, held: object) -> str:
    Path(name).write_text(json.dumps(held))
    return name


def test_prompts_of_another_layout_are_counted(circuit: Invoke) -> None:
    files = ("--prompts", _write("a.json", PAIRS), "--corrupt-prompts", _write("b.json", TWINS))
    result = circuit("discover", *files, "--model", "planted-ioi", "--method", "logit-attribution")
    assert result.exit_code == 0, result.output
    assert "2 of 2 prompts are not of the layout of colored objects" in _words(result)


def test_half_a_pair_is_refused_with_the_way_out(circuit: Invoke, tmp_path: Path) -> None:
    clean, twins = _write("a.json", PAIRS), _write("b.json", TWINS)
    cases = {
        ("discover", "--prompts", clean): "Give the corrupted twins",
        ("discover", "ioi", "--corrupt-prompts", twins): "are the twins of --prompts FILE",
        ("discover", "--corrupt-prompts", twins): "Give either a task or --prompts FILE",
        ("plan", "--prompts", clean, "--corrupt-prompts", _write("c.json", TWINS[:1])): "holds 2 prompts and",
        ("discover", "--prompts", clean, "--corrupt-prompts", clean): "index 0: prompt 'Mary and John'",
        ("discover", "--prompts", clean, "--corrupt-prompts", "no.json"): "no.json cannot be read",
        ("heads", "planted-ioi", "--corrupt-prompts", twins): "Give either a task or --prompts FILE",
        (
            "heads",
            "planted-ioi",
            "--prompts",
            clean,
            "--corrupt-prompts",
            _write("d.json", [1, 2]),
        ): "index 0: 1 is",
    }
    before = {path.name for path in tmp_path.iterdir()}
    for command, said in cases.items():
        result = circuit(*command)
        assert result.exit_code == 2, (command, result.output)
        assert re.sub(r"\s+", " ", said) in _words(result), (command, result.stderr)
    assert {path.name for path in tmp_path.iterdir()} == before
