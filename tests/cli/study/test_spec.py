"""A study's file: every mistake at once, each with its line; and the cells that it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuits.errors import CircuitError
from cli.study.cells import Cell, cells, require_cells
from cli.study.spec_file import read_study

GOOD = """
matrix:
  task: [ioi, factual-recall/capital]
  model: [plain-4l, plain-6l]
  method: [eap, activation-patching]
  seed: [0, 1]
  exclude: [{task: ioi, method: eap, model: plain-6l}]
  include: [{task: arithmetic, method: sae, seed: 5, model: plain-4l}]
options: {pairs: 40, budget: 8, verify: 3, set: [eap.positions=all, sae.trials=2]}
overrides:
  - {when: {method: eap}, pairs: 20}
  - {when: {task: arithmetic}, set: sae.trials=4}
compare: {across: seed}
"""
GOOD = GOOD.replace("eap.positions=all, ", "")


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def test_cells_are_the_product_without_the_excluded_and_with_the_included(tmp_path: Path) -> None:
    found = cells(read_study(_file(tmp_path, GOOD)))
    assert len(found) == 2 * 2 * 2 * 2 - 2 + 1
    assert not any(c.task == "ioi" and c.method == "eap" and c.model == "plain-6l" for c in found)
    models = [cell.model for cell in found]
    assert models == sorted(models), "one model is loaded once"
    by_name = {cell.name: cell for cell in found}
    eap = by_name["ioi-plain-4l-eap-0"].options
    assert dict(eap) == {"pairs": 20, "verify": 3}, "no budget for eap, no verify for nodes"
    patching = by_name["factual-recall-capital-plain-6l-activation-patching-1"]
    assert dict(patching.options) == {"pairs": 40, "budget": 8}
    options = patching.discover_options()
    assert (options["task"], options["form"], options["seed"]) == ("factual-recall", "capital", 1)
    sae = by_name["arithmetic-plain-4l-sae-5"].options
    assert sae["set_"] == ["sae.trials=2", "sae.trials=4"], "later settings win"


def test_a_key_follows_what_matters_and_nothing_else() -> None:
    cell = Cell("ioi", "plain-4l", "eap", 0, {"pairs": 20})
    same = Cell("ioi", "elsewhere/plain-4l", "eap", 0, {"pairs": 20, "device": "cuda", "batch_size": 3})
    assert cell.key("abc") == same.key("abc")
    others = [Cell("ioi", "plain-4l", "eap", 1, {"pairs": 20}), Cell("ioi", "plain-4l", "eap", 0, {})]
    keys = {cell.key("abc"), cell.key("abd"), *(other.key("abc") for other in others)}
    assert len(keys) == 4


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    text = """title: x
matrix:
  task: [ioi, colored-objcts, factual-recall/capitol]
  modle: plain-4l
  method: activation-patching
  seed: [-1]
options:
  pairs: 1
  pairs: 240
  set: [sae.trails=3, foo]
compare:
  - {across: tasks, where: {metod: acdc}}
repair: {model: a, bad: ioi, good: ioi, method: acdcc}
"""
    with pytest.raises(CircuitError) as told:
        read_study(_file(tmp_path, text))
    words = str(told.value)
    for part in (
        "line 2: matrix.model is missing",
        "line 3: matrix.task[2] = 'colored-objcts': There is no task 'colored-objcts'. Did you mean",
        "line 3: matrix.task[3] = 'factual-recall/capitol': There is no form of factual-recall 'capitol'",
        "line 4: matrix.modle is no key. Did you mean 'model'?",
        "line 6: matrix.seed[1] = -1",
        "line 9: options.pairs stands more than once",
        "line 10: options.set[1] = 'sae.trails=3': There is no option of sae 'trails'. Did you mean 'trials'?",
        "line 10: options.set[2] = 'foo'",
        "line 12: compare[1].across = 'tasks'",
        "line 12: compare[1].where.metod is no key. Did you mean 'method'?",
        "line 13: repair[1].method = 'acdcc': There is no method",
    ):
        assert part in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("matrix: [", "is no YAML"),
        ("- ioi", "holds no mapping"),
        ("", "holds no mapping"),
        ("matrix: 3", "line 1: matrix = 3"),
    ],
)
def test_what_is_no_study_is_told(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CircuitError, match=words):
        read_study(_file(tmp_path, text))
    with pytest.raises(CircuitError, match="cannot be read: No such file"):
        read_study(tmp_path / "none.yaml")


def test_steps_without_cells_are_told_together(tmp_path: Path) -> None:
    text = """
matrix: {task: ioi, model: plain-4l, method: eap}
compare: [{across: task}, {across: seed, where: {seed: 3}}]
repair: {model: plain-4l, method: eap, good: ioi, bad: arithmetic}
"""
    study = read_study(_file(tmp_path, text))
    with pytest.raises(CircuitError) as told:
        require_cells(study, cells(study))
    words = str(told.value)
    assert "compare[1] finds fewer than two cells" in words
    assert "compare[2] finds fewer than two cells in the matrix: {'seed': (3,)}" in words
    assert "repair[1].bad is no cell of the matrix: arithmetic, plain-4l, eap, 0" in words
    nothing = read_study(
        _file(tmp_path, "matrix: {task: ioi, model: a, method: eap, exclude: [{task: ioi}]}")
    )
    with pytest.raises(CircuitError, match="has no cell"):
        cells(nothing)
