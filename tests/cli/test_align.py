"""`circuit compare` of models whose heads have to be aligned: copies that moved, other shapes, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from gpt2_copies import deeper, permuted
from made_runs import made_run
from tiny_models import prompt_pairs
from typer.testing import CliRunner

from circuits.graph import Graph
from circuits.models.builtin_models import FOLDER
from circuits.records import write_json
from cli.main import app

Invoke = Callable[..., Result]
QUICK = ("--method", "activation-patching", "--top", "4")


@pytest.fixture(scope="module")
def runs(directory: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `here` and `there`, of tiny-gpt2 and of a deeper copy of it with permuted heads. Read-only."""
    root = tmp_path_factory.mktemp("aligned")
    source = directory("tiny-gpt2")
    between = permuted(source, root / "permuted", seed=1)
    moved = deeper(root / "permuted", root / "copy", behind=0)
    write_json(root / "image.json", {head: moved[other] for head, other in between.items()})
    lines = [json.dumps(asdict(pair)) for pair in prompt_pairs(24)]
    (root / "p.jsonl").write_text("\n".join(lines) + "\n")
    for name, model in (("here", source), ("there", root / "copy")):
        words = ("discover", "--prompts", root / "p.jsonl", "--model", model, *QUICK, "--output", root / name)
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
    return root


@pytest.fixture
def where(directory: Callable[[str], Path], runs: Path) -> tuple[str, ...]:
    """Options that say where the models of `here` and `there` are: runs know no more than their names."""
    return ("--model", str(directory("tiny-gpt2")), "--model", str(runs / "copy"))


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_deeper_copy_with_permuted_heads_has_the_same_circuit(
    circuit: Invoke, runs: Path, where: tuple[str, ...]
) -> None:
    result = circuit("compare", runs / "here", runs / "there", *where, "--output", "out")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "Heads aligned by behaviour, on 12 prompts" in words
    assert "p = 0.002: above chance" in words
    assert "12 of 12 pairs return" in words
    assert "4 heads of there have no partner" in words
    assert "MLPs are left out" in " ".join(result.stderr.split())
    out = Path("out")
    assert {p.name for p in out.iterdir()} == {
        "alignment.csv",
        "alignment.png",
        "alignment.svg",
        "overlap.csv",
        "overlap.json",
        "report.md",
        "report.html",
    }
    image = json.loads((runs / "image.json").read_text())
    table = pd.read_csv(out / "alignment.csv")
    assert dict(zip(table["first"], table["second"], strict=True)) == image
    assert (table["in_first_circuit"] == table["in_second_circuit"]).all()
    record = json.loads((out / "overlap.json").read_text())
    assert record["alignment"]["by"] == "behaviour"
    assert record["alignment"]["p_value"] == 1 / 500
    (found,) = record["comparisons"]
    assert (found["granularity"], found["overlap"]["jaccard"]) == ("head", 1.0)
    assert record["alignment"]["without_effects"]["overlap"]["jaccard"] == 1.0
    report = (out / "report.md").read_text()
    assert "![Matched heads, by depth](alignment.png)" in report
    assert all(f"| {a} | {b} | 1.00 |" in report for a, b in image.items() if a[:2] == "a0")
    picture = (out / "alignment.svg").read_text()
    assert picture.count("#1b9e77") > len(found["shared"])
    assert ">a3.h3<" in picture


def test_the_same_command_writes_the_same_bytes(circuit: Invoke, runs: Path, where: tuple[str, ...]) -> None:
    for name in ("one", "two"):
        assert circuit("compare", runs / "here", runs / "there", *where, "--output", name).exit_code == 0
    for file in Path("one").iterdir():
        assert file.read_bytes() == (Path("two") / file.name).read_bytes(), file.name


def test_models_of_one_shape_can_be_aligned_by_behaviour(
    circuit: Invoke, runs: Path, where: tuple[str, ...]
) -> None:
    by_name = _json(circuit("compare", runs / "here", runs / "here", "--json"))
    assert by_name["alignment"] == {"by": "index"}
    assert by_name["comparisons"][0]["granularity"] == "node"
    aligned = _json(
        circuit("compare", runs / "here", runs / "here", "--align", "behaviour", *where[:2] * 2, "--json")
    )
    assert all(pair["first"] == pair["second"] for pair in aligned["alignment"]["pairs"])
    assert aligned["comparisons"][0]["overlap"]["jaccard"] == 1.0


def test_one_run_without_prompts_is_aligned_on_those_of_the_other(
    circuit: Invoke, runs: Path, where: tuple[str, ...], tmp_path: Path
) -> None:
    made_run(tmp_path / "made", Graph(3, 4, 4), nodes=("a0.h1", "a1.h2"))
    record = _json(circuit("compare", "made", runs / "there", *where, "--json"))
    assert record["alignment"]["n_prompts"] == 12
    (found,) = record["comparisons"]
    assert {pair.split("~")[0] for pair in (*found["shared"], *found["only_first"])} == {"a0.h1", "a1.h2"}


def test_what_cannot_be_aligned_is_refused_in_one_message(
    circuit: Invoke, runs: Path, where: tuple[str, ...], tmp_path: Path
) -> None:
    made_run(tmp_path / "bare", Graph(5, 4, 4), nodes=("a0.h1",), model="")
    made_run(tmp_path / "nowhere", Graph(6, 4, 4), nodes=("a0.h1",), model="./no/such/model")
    made_run(tmp_path / "shaped", Graph(5, 4, 4), nodes=("a0.h1",), model="plain-4l")
    shutil.copytree(runs / "here", tmp_path / "changed")
    run = json.loads((tmp_path / "changed" / "run.json").read_text())
    run["model"]["weights_sha256"] = "0"
    write_json(tmp_path / "changed" / "run.json", run)
    cases = {
        ("bare", "nowhere"): "Neither bare nor nowhere holds prompts",
        ("bare", runs / "here"): "bare names no model",
        ("nowhere", runs / "here"): "The model of nowhere cannot be found",
        ("shaped", runs / "there"): "has another shape than the model of shaped",
        ("changed", runs / "there", *where): "its weights differ",
        ("changed", runs / "there", *where, *where[:2]): "--model is given 3 times",
    }
    for words, message in cases.items():
        result = circuit("compare", *words, "--output", "out")
        assert result.exit_code == 2, words
        assert message in " ".join(result.output.split()), words
        assert result.output.count("Error:") == 1
        assert "Traceback" not in result.output
    assert not Path("out").exists()


@pytest.mark.slow
def test_a_trained_model_and_its_permuted_copy(circuit: Invoke, tmp_path: Path) -> None:
    image = permuted(FOLDER / "plain-4l", tmp_path / "copy", seed=2)
    for name, model in (("here", "plain-4l"), ("there", "./copy")):
        found = circuit("discover", "ioi", "--model", model, *QUICK[:2], "--pairs", "60", "--output", name)
        assert found.exit_code == 0, found.output
    record = _json(circuit("compare", "here", "there", "--align", "behaviour", "--json"))
    assert {pair["first"]: pair["second"] for pair in record["alignment"]["pairs"]} == image
    assert record["alignment"]["p_value"] == 1 / 500
    assert record["comparisons"][0]["overlap"]["jaccard"] == 1.0


@pytest.mark.slow
def test_two_trained_models_of_unlike_shape(circuit: Invoke) -> None:
    for model in ("plain-4l", "plain-6l"):
        words = ("discover", "ioi", "--model", model, *QUICK[:2], "--pairs", "60", "--output", model)
        assert circuit(*words).exit_code == 0
    record = _json(circuit("compare", "plain-4l", "plain-6l", "--json"))
    pairs = {pair["first"]: pair for pair in record["alignment"]["pairs"]}
    assert len(pairs) == 32
    assert len(record["alignment"]["unmatched_second"]) == 16
    assert pairs["a0.h0"]["second"] == "a0.h0"  # each model's one head that looks at the token before
    assert pairs["a0.h0"]["stability"] == 1.0


@pytest.mark.slow
def test_a_model_and_what_it_became_by_more_training_align_by_index(circuit: Invoke) -> None:
    """strict-4l was trained on from plain-4l, so that a head's own partner is known."""
    for model in ("plain-4l", "strict-4l"):
        words = ("discover", "ioi", "--model", model, *QUICK[:2], "--pairs", "60", "--output", model)
        assert circuit(*words).exit_code == 0
    alignment = _json(circuit("compare", "plain-4l", "strict-4l", "--align", "behaviour", "--json"))[
        "alignment"
    ]
    assert sum(pair["first"] == pair["second"] for pair in alignment["pairs"]) >= 30
    assert alignment["p_value"] < 0.01
