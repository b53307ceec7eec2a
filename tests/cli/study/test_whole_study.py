"""`circuit run` as a user runs it: a small study whole, gone on with, and with a cell that fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]

STUDY = """
title: Two tasks
matrix:
  task: [ioi, arithmetic, factual-recall/capital]
  model: plain-4l
  method: [logit-attribution, eap]
options: {pairs: 12, top: 8}
overrides:
  - {when: {method: eap}, top: 40}
compare:
  - {across: task, where: {method: logit-attribution}, transfer: true}
  - {across: task, where: {method: eap}}
"""


def _without_cost(folder: Path) -> dict[str, bytes]:
    """Every file, and of the records all but the cost."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "junit.xml":  # its times are those of the last call
            held = path.read_bytes()
            if path.name in ("run.json", "study.json", "summary.json"):
                record = json.loads(held)
                record.pop("cost", None)
                held = json.dumps(record).encode()
            found[str(path.relative_to(folder))] = held
    return found


def test_a_study_whole_and_gone_on_with(circuit: Invoke, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(STUDY)
    dry = circuit("run", "two.yaml", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "6 cells, 6 to run" in dry.output
    assert not Path("runs").exists()

    done = circuit("run", "two.yaml")
    assert done.exit_code == 0, done.output
    whole = _without_cost(Path("runs/two"))
    record = json.loads(Path("runs/two/study.json").read_text())
    assert record["failed"] == 0
    kept = [cell["kept"] for cell in record["cells"]]
    assert kept[::2] == [8] * 3
    assert all(8 < n <= 40 for n in kept[1::2])
    assert [step["kind"] for step in record["steps"]] == ["comparison", "comparison"]
    report = Path("runs/two/report.md").read_text()
    assert "# Two tasks" in report
    for link in (cell["folder"] for cell in record["cells"]):
        assert f"]({link}/report.md)" in report
        assert Path("runs/two", link, "report.md").is_file()
    transfer = json.loads(Path("runs/two", record["steps"][0]["folder"], "overlap.json").read_text())[
        "transfer"
    ]
    assert len(transfer) == 9
    own = {j["circuit"]: j["faithfulness"] for j in transfer if j["at_home"]}
    cells = {c["task"]: c["faithfulness"]["value"] for c in record["cells"] if c["granularity"] == "node"}
    assert own == pytest.approx(cells, abs=1e-5)
    assert Path("runs/two/overview.png").is_file()

    gone = next(Path("runs/two/cells").glob("arithmetic-*-eap-*"))
    before = {path: path.stat().st_mtime_ns for path in Path("runs/two/cells").rglob("run.json")}
    for path in sorted(gone.rglob("*")):
        path.unlink()
    gone.rmdir()
    again = circuit("run", "two.yaml")
    assert again.exit_code == 0, again.output
    assert _without_cost(Path("runs/two")) == whole
    after = {path: path.stat().st_mtime_ns for path in Path("runs/two/cells").rglob("run.json")}
    assert [path.parent for path in after if after[path] != before[path]] == [gone]


@pytest.mark.slow
def test_a_cell_that_fails_stops_no_other(circuit: Invoke, tmp_path: Path) -> None:
    text = STUDY.replace(
        "overrides:", "overrides:\n  - {when: {task: factual-recall/capital}, corruption: abc}"
    )
    (tmp_path / "two.yaml").write_text(text)
    result = circuit("run", "two.yaml", "--output", "out")
    assert result.exit_code == 1
    assert "There is no corruption of factual-recall 'abc'" in " ".join(result.output.split())
    record = json.loads(Path("out/study.json").read_text())
    assert record["failed"] == 2
    assert [cell["whole"] for cell in record["cells"]] == [True, True, True, True, False, False]
    report = Path("out/report.md").read_text()
    assert report.index("## What failed") < report.index("## Circuits")

    first = circuit("run", "two.yaml", "--output", "fast", "--fail-fast", "--json")
    assert first.exit_code == 1
    assert json.loads(first.stdout)["failed"] >= 1


def test_what_is_no_study_folder_is_refused(circuit: Invoke, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(STUDY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    result = circuit("run", "two.yaml", "--output", "mine")
    assert result.exit_code == 2
    assert "mine is no study's folder" in " ".join(result.output.split())
    (tmp_path / "far.yaml").write_text(STUDY.replace("plain-4l", "[./no/model, plain-41]"))
    result = circuit("run", "far.yaml")
    words = " ".join(result.output.split())
    assert result.exit_code == 2
    assert "There is no directory ./no/model" in words
    assert "Did you mean 'plain-4l'?" in words
