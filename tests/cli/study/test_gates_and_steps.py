"""What a study's file asks for beyond its matrix, and what it leaves for continuous integration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import Result
from safetensors.numpy import load_file, save_file

from circuits.errors import CircuitError
from circuits.models.builtin_models import FOLDER
from cli.comparison_output import RECORD as COMPARISON
from cli.study.cells import Cell, cells, require_cells
from cli.study.forecast import prices
from cli.study.spec import Study, schema
from cli.study.spec_file import read_study, with_settings

Invoke = Callable[..., Result]
ROOT = Path(__file__).parents[3]
QUICK = ("--model", "planted-ioi", "--pairs", "24", "--method", "logit-attribution")
SMALL = "matrix: {task: ioi, model: planted-ioi, method: [activation-patching, logit-attribution]}\n"


def _study(tmp_path: Path, text: str) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return read_study(path)


def _read(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text())


def _without_head(directory: Path, layer: int, head: int) -> Path:
    """A copy of plain-4l, one head of which writes nothing."""
    copytree(FOLDER / "plain-4l", directory)
    weights = load_file(directory / "model.safetensors")
    (name,) = (n for n in weights if n.endswith(f"h.{layer}.attn.c_proj.weight"))
    width = len(weights[name]) // json.loads((directory / "config.json").read_text())["n_head"]
    weights[name][head * width : (head + 1) * width] = 0
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_the_shipped_gate_falls_when_a_head_is_zeroed(circuit: Invoke, tmp_path: Path) -> None:
    """That it passes on the built-in model is in tests/test_docs.py."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    _without_head(tmp_path / "zeroed", *_strongest())
    text = (ROOT / "configs" / "gate.yaml").read_text().replace("model: plain-4l", "model: ./zeroed")
    Path("gate.yaml").write_text(text)
    result = circuit("run", "gate.yaml", "--output", "out")
    assert result.exit_code == 1
    assert "overlap FAILED, 0." in " ".join(result.output.split())
    summary = _read("out/summary.json")
    assert next(iter(summary)) == "failures"
    assert (summary["exit_status"], summary["counts"]["cells"]["failed"]) == (1, 0)
    names = {failure["name"] for failure in summary["failures"]}
    assert "overlap of ioi-zeroed-activation-patching-0" in names
    suite = ElementTree.parse("out/junit.xml").getroot()[0]
    assert int(suite.attrib["failures"]) == len(names) == summary["counts"]["gates"]["failed"]
    report = Path("out/report.md").read_text()
    assert report.index("## What failed") < report.index("**failed**") < report.index("## Circuits")


def _strongest() -> tuple[int, int]:
    """Layer and head of the largest score of the baseline's circuit."""
    (entry,) = _read(str(ROOT / "configs/gate-baseline/circuit.json"))["circuits"]
    heads = [node for node in entry["nodes"] if node["name"].startswith("a")]
    layer, head = max(heads, key=lambda node: node["score"])["name"][1:].split(".h")
    return int(layer), int(head)


def test_own_prompts_evaluations_and_gates_between_cells(circuit: Invoke, tmp_path: Path) -> None:
    assert circuit("discover", "ioi", *QUICK, "-o", "made").exit_code == 0
    Path("made/prompts.jsonl").rename("mine.jsonl")
    Path("s.yaml").write_text(
        """
matrix: {task: ioi, prompts: mine.jsonl, model: planted-ioi, method: logit-attribution}
options: {pairs: 20}
compare: {across: task, transfer: true}
evaluate: {where: {task: mine}, ablation: [resample, zero], skip: [curve, minimality, tests, stability], pairs: 4}
check:
  - {where: {task: mine}, beside: {task: ioi}, min-overlap: 0, max-drift: 9}
  - {beside: {task: ioi}, min-overlap: 1.0, min-faithfulness: 5}
"""
    )
    result = circuit("run", "s.yaml", "--output", "out", "--json")
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    mine = next(cell for cell in record["cells"] if cell["task"] == "mine")
    assert len(Path("out", mine["folder"], "prompts.jsonl").read_text().splitlines()) == 20
    kinds = {step["kind"]: step for step in record["steps"]}
    evaluation = _read(f"out/{kinds['evaluation']['folder']}/evaluation.json")
    (judged,) = evaluation["circuits"]
    assert [of["ablation"] for of in judged["evaluations"]] == ["resample", "zero"]
    assert judged["evaluations"][0]["verdict"]["n_prompts"] == 4
    assert judged["evaluations"][0]["curves"] is None
    assert judged["evaluations"][0]["completeness"] is not None
    overlap = _read(f"out/{kinds['comparison']['folder']}/{COMPARISON}")
    assert {j["prompts"] for j in overlap["transfer"]} >= {"mine"}
    # The gate's number by another route: what the comparison found.
    gates = {(gate["name"], gate["limit"]): gate for gate in record["gates"]}
    assert gates["overlap", 0]["value"] == overlap["comparisons"][0]["overlap"]["jaccard"]
    assert gates["overlap", 0]["passed"]
    assert not gates["faithfulness", 5]["passed"]
    assert all(gate["cell"] == mine["name"] for gate in record["gates"]), "none is held to itself"


def test_what_fails_comes_first_and_counts(circuit: Invoke, tmp_path: Path) -> None:
    Path("mine.jsonl").write_text(
        '{"clean": "a b", "corrupt": "a b c", "answers": [" x"], "distractors": [" y"]}\n'
    )
    Path("s.yaml").write_text(
        "matrix: {task: ioi, prompts: mine.jsonl, model: planted-ioi, method: logit-attribution}\n"
        "options: {pairs: 16}\n"
        "check: [{min-faithfulness: 0}, {where: {task: ioi}, baseline: nowhere, min-overlap: 0}]\n"
    )
    result = circuit("run", "s.yaml", "--output", "out")
    assert result.exit_code == 1
    summary = _read("out/summary.json")
    assert [f["kind"] for f in summary["failures"]] == ["cell", "gate", "gate"]
    assert "its cell failed" in summary["failures"][1]["problem"]
    assert "nowhere" in summary["failures"][2]["problem"]
    cases = {c.attrib["name"]: c for c in ElementTree.parse("out/junit.xml").getroot().iter("testcase")}
    assert len(cases) == sum(count["all"] for count in summary["counts"].values()) == 5
    assert sum(case.find("failure") is not None for case in cases.values()) == 3
    assert float(cases["ioi-planted-ioi-logit-attribution-0"].attrib["time"]) > 0
    assert Path("out/report.md").read_text().split("\n\n")[1] == "## What failed"


def test_the_same_but_for_cost(circuit: Invoke) -> None:
    Path("s.yaml").write_text(SMALL + "options: {pairs: 16}\ncheck: {min-faithfulness: 0}\n")
    held = []
    for output in ("one", "two"):
        assert circuit("run", "s.yaml", "--output", output).exit_code == 0
        held.append([_read(f"{output}/{name}.json") for name in ("summary", "study")])
        for record in held[-1]:
            record.pop("cost")
    assert held[0] == held[1]


def test_settings_of_the_command_line_win_in_every_cell(tmp_path: Path) -> None:
    study = _study(
        tmp_path,
        "matrix: {task: ioi, model: plain-4l, method: [sae, eap]}\noptions: {pairs: 40, prune: 0.9}\n"
        "overrides: [{when: {method: sae}, set: sae.trials=9, pairs: 30}]\n",
    )
    found = {c.method: c for c in cells(with_settings(study, ["pairs=20", "sae.trials=2", "top=5"]))}
    assert dict(found["eap"].options) == {"pairs": 20, "top": 5}, (
        "another rule to select takes the place of the first"
    )
    assert found["sae"].options["set_"] == ["sae.trials=9", "sae.trials=2"], "the last one wins"
    with pytest.raises(CircuitError) as told:
        with_settings(study, ["pears=3", "pairs=1", "sae.trails=3", "pairs"])
    words = str(told.value)
    for part in (
        "Did you mean 'pairs'?",
        "pairs = 1",
        "Did you mean 'trials'?",
        "--set pairs is not NAME=VALUE",
    ):
        assert part in words
    with pytest.raises(CircuitError, match="top and prune are different ways"):
        with_settings(study, ["top=3", "prune=0.9"])


def test_mistakes_beyond_the_matrix_are_told_by_line(tmp_path: Path) -> None:
    text = """matrix: {prompts: [none.jsonl], model: plain-4l, method: eap}
options: {batch_size: 3}
evaluate:
  - {skip: curves}
check:
  - {min-overlap: 0.9}
  - {baseline: x, beside: {seed: 0}, max-drift: 1}
  - {beside: {seed: [0, 1]}, max-drift: 1}
  - {where: {seed: 0}}
"""
    with pytest.raises(CircuitError) as told:
        _study(tmp_path, text)
    words = str(told.value)
    for part in (
        "line 1: matrix.prompts[1] = 'none.jsonl': there is no file none.jsonl",
        "line 2: options.batch_size is no key. Did you mean 'batch-size'?",
        "line 4: evaluate[1].skip[1] = 'curves'",
        "line 6: check[1]: min-overlap and max-drift need a run folder",
        "line 7: check[2]: baseline and beside cannot go together",
        "line 8: check[3]: beside takes one value",
        "line 9: check[4]: no gate is given",
    ):
        assert part in words
    empty = "check: {where: {seed: 3}, min-faithfulness: 0}\nevaluate: {where: {task: arithmetic}}\n"
    study = _study(tmp_path, SMALL + empty + "compare: {across: method, beside: sae}")
    with pytest.raises(CircuitError) as told:
        require_cells(study, cells(study))
    for part in ("check[1] finds no cell", "evaluate[1] finds no cell", "compare[1].beside is no method"):
        assert part in str(told.value)


def test_a_key_follows_what_own_prompts_say_and_not_where_they_lie(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text("a")
    two.write_text("a")
    keys = [Cell("mine", "plain-4l", "eap", 0, {"prompts": file}).key("w") for file in (one, two)]
    assert keys[0] == keys[1]
    two.write_text("b")
    assert Cell("mine", "plain-4l", "eap", 0, {"prompts": two}).key("w") != keys[0]


def _studies() -> Iterator[Path]:
    yield from (c for c in sorted((ROOT / "configs").glob("*.yaml")) if "circuit run" in c.read_text()[:20])


def test_the_schema_accepts_what_is_shipped_and_no_misspelling(circuit: Invoke) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    said = json.loads(circuit("run", "--schema").stdout)
    assert said == json.loads(json.dumps(schema()))
    check = jsonschema.Draft202012Validator(said)
    for config in _studies():
        values = yaml.safe_load(config.read_text())
        assert not list(check.iter_errors(values)), config.name
        assert list(check.iter_errors(values | {"compares": []}))
        assert list(check.iter_errors(values | {"check": {"min_overlap": 1}}))


def test_cells_of_one_kind_are_priced_once(tmp_path: Path) -> None:
    text = SMALL.replace("task: ioi", "task: [ioi, colored-objects], seed: [0, 1]") + "options: {pairs: 16}\n"
    overrides = "overrides: [{when: {task: colored-objects, method: logit-attribution}, pairs: 10}]\n"
    priced = list(prices(cells(_study(tmp_path, text + overrides)), lambda *_: None))
    assert sorted(len(price.cells) for price in priced) == [2, 2, 4]
    told = [price for price in priced if price.problem]
    for price in priced:
        assert (price.seconds is None) == bool(price.problem)
    assert [price.cells[0].task for price in told] == ["colored-objects"], (
        "its words are unknown to planted-ioi"
    )
