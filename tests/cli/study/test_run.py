"""`circuit run`: exit codes, what a person reads, and a study that is done already."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from circuits.records import read_json
from cli.guard import NO_MEMORY

ROOT = Path(__file__).resolve().parents[3]
STUDY = """
matrix: {task: ioi, model: plain-4l, method: [logit-attribution, random], seed: [0, 1]}
options: {pairs: 8, top: 3}
compare: {across: seed}
"""
Run = Callable[..., Result]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def _process(*words: str | Path) -> subprocess.Popen[str]:
    program = "from cli.main import run\nif __name__ == '__main__': run()"
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", program, *map(str, words)], cwd=ROOT, text=True, **told)


def _fails(monkeypatch: pytest.MonkeyPatch, *problems: Exception) -> None:
    """Lets the first discoveries go wrong in these ways."""
    from cli import discover

    left, discovered = list(problems), discover.discovered

    def broken(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop(0)
        return discovered(*args, **kwargs)

    monkeypatch.setattr(discover, "discovered", broken)


def test_cells_that_fail_are_named_first_and_the_rest_is_done(
    circuit: Run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fails(monkeypatch, ValueError("what a pity"), MemoryError())
    result = circuit("run", study, "--output", "s")
    assert result.exit_code == 1
    words = result.stderr
    assert "[1/4] ioi-plain-4l-logit-attribution-0: failed, " in words
    summary = words[words.index("Error: ioi-plain-4l-logit-attribution-0: Traceback") :]
    assert "ValueError: what a pity" in summary
    assert f"Error: ioi-plain-4l-random-0: {NO_MEMORY}" in summary
    assert summary.rstrip().endswith("2 made, 0 stood already, 2 failed. Read s/report.html.")
    again = circuit("run", study, "--output", "s")
    assert again.exit_code == 0
    assert "4 made, 2 stood already, 0 failed." in again.stderr
    assert read_json(Path("s/study.json"))["failed"] == 0


def test_methods_on_the_same_prompts_share_their_ground_and_find_what_they_find_alone(
    circuit: Run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from circuits import discovery

    laid, lay = [], discovery.lay_ground
    monkeypatch.setattr(discovery, "lay_ground", lambda *asked: laid.append(asked) or lay(*asked))
    assert circuit("run", study, "--output", "s", "--set", "pairs=10").exit_code == 0
    assert len(laid) == 2, "one for each seed, of two methods each"
    alone = ("--method", "random", "--pairs", "10", "--top", "3", "--seed", "1", "--output", "alone")
    assert circuit("discover", "ioi", *alone).exit_code == 0
    (shared,) = Path("s/cells").glob("*-random-1-*")
    for name in ("circuit.json", "nodes.csv", "evaluation.json", "prompts.jsonl"):
        assert (shared / name).read_bytes() == Path("alone", name).read_bytes()


def test_a_study_that_is_done_is_seen_to_be_so_without_torch(circuit: Run, study: Path) -> None:
    assert circuit("run", study, "--output", "s").exit_code == 0
    program = f"""
import sys
from cli.main import app
app(["run", {str(study)!r}, "--output", "s", "--workers", "2"], standalone_mode=False)
print(sorted({{"torch", "ray", "pandas", "transformers"}} & set(sys.modules)))
"""
    words = [sys.executable, "-c", program]
    paths = os.environ | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run(words, capture_output=True, text=True, env=paths, check=True)
    assert found.stdout == "[]\n"
    assert "0 made, 6 stood already, 0 failed." in found.stderr


@pytest.mark.slow
def test_a_full_disk_is_told_by_every_cell_and_by_the_study(
    circuit: Run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from circuits import runs
    from cli.study import output

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(runs, "_flush", full)
        result = circuit("run", study, "--output", "s")
        assert result.exit_code == 1
        assert result.stderr.count("cannot be written: No space left on device.") == 2 * 4
        assert list(Path("s/cells").iterdir()) == []
        patched.setattr(output, "write_json", full)
        result = circuit("run", study, "--output", "s")
    assert result.exit_code == 1
    assert "0 made, 0 stood already, 4 failed. The report over all cannot be written" in result.stderr
    assert circuit("run", study, "--output", "s", "--json").exit_code == 0


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(
    circuit: Run, study: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    result = circuit("run", study, "--output", tmp_path / "file" / "s")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_options_of_schedulers_that_do_not_go_together_are_told(
    circuit: Run, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = circuit("run", study, "--gpus-per-cell", "0.5")
    both = circuit("run", study, "--ray", "local", "--workers", "2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    absent = circuit("run", study, "--ray", "local")
    assert [result.exit_code for result in (alone, both, absent)] == [2, 2, 2]
    assert "--gpus-per-cell is for --ray" in alone.stderr
    assert "--workers and --ray cannot go together" in both.stderr
    assert "pip install '.[ray]'" in absent.stderr
    assert not Path("runs").exists()


@pytest.mark.slow
def test_ctrl_c_leaves_what_is_done(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    process = _process("run", study, "--output", folder, "--workers", "2")
    while process.poll() is None and not list(folder.glob("cells/[!.]*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert words.rstrip().endswith("Interrupted: the same command does the rest.")
    assert not list(folder.glob("cells/.*")), "nothing half done"
    assert list(folder.glob("cells/*"))


@pytest.mark.slow
def test_a_study_killed_at_random_comes_to_the_same_bytes(study: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed" / "s", tmp_path / "whole" / "s"
    for seconds in (4, 7, 9, 11):
        process = _process("run", study, "--output", killed, "--workers", "2")
        time.sleep(seconds)
        process.kill()
        process.communicate()
    for folder, how in ((killed, ("--workers", "2")), (whole, ())):
        process = _process("run", study, "--output", folder, *how)
        _, words = process.communicate()
        assert process.returncode == 0, words
    assert _content(killed) == _content(whole)


def _content(folder: Path) -> dict[str, object]:
    """Of every file, times aside; junit.xml holds those of the last call."""
    found: dict[str, object] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "junit.xml"):
        timed = path.name in ("run.json", "study.json", "summary.json")
        content = {k: v for k, v in read_json(path).items() if k != "cost"} if timed else path.read_bytes()
        found[str(path.relative_to(folder))] = content
    return found
