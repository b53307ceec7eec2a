"""Schedulers: every piece comes to one outcome, by its name, whatever happens to the process that makes it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from made_cells import make, pieces

from circuits.locks import locked
from cli.guard import NO_MEMORY
from cli.study.cells import Cell
from cli.study.claims import claim_of, claimed, clean
from cli.study.runner import Outcome, Piece, Scheduler, run_cells
from cli.study.workers import Workers, next_piece

ROOT, HERE = Path(__file__).resolve().parents[3], Path(__file__).resolve().parent


def nothing(*_: object) -> None:
    """Of progress."""


def _run(work: list[Piece], schedule: Scheduler, fail_fast: bool = False) -> dict[str, Outcome]:
    places = {piece.cell: piece.folder for piece in work}
    found = list(run_cells(places, schedule, fail_fast=fail_fast))
    assert len({outcome.name for outcome in found}) == len(found), "one outcome each"
    return {outcome.name: outcome for outcome in found}


def _content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "log"}


def test_a_worker_stays_with_its_model_and_then_goes_where_most_is_to_do(tmp_path: Path) -> None:
    work = [*pieces(tmp_path, "a", "b", model="x"), *pieces(tmp_path, "a", "b", "c", model="y")]
    work += pieces(tmp_path, "a", model="z")
    order = list(work)
    x, y, z = (order[i].cell for i in (0, 2, 5))
    assert next_piece(work, y, [x]) is order[2]
    assert next_piece(work, None, [x, y]) is order[5], "z, which nobody holds"
    assert next_piece(work, z, [x, y]) is order[1], "another is at the first of x"
    assert next_piece(work, z, [x, y]) is order[3], "of y there are two left, of x one"


def test_a_worker_stays_with_its_prompts_and_then_takes_some_that_nobody_is_at(tmp_path: Path) -> None:
    work = [
        Piece(Cell(task, "m", method, 0, {}), tmp_path / f"{task}-{method}")
        for task in ("s", "t", "u")
        for method in ("a", "b")
    ]
    order = list(work)
    s, t = order[0].cell, order[2].cell
    assert next_piece(work, t, [s]) is order[2]
    assert next_piece(work, t, [s]) is order[3]
    assert next_piece(work, t, [s]) is order[4], "another is at s"
    assert next_piece(work, order[4].cell, [s]) is order[5]
    assert next_piece(work, order[5].cell, [s]) is order[0]


@pytest.mark.parametrize("n", [1, 2])
def test_what_befalls_one_cell_is_told_by_its_name_and_the_rest_is_done(
    n: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = pieces(tmp_path, "quick", "killed", "raises", "too-large", "warns", "slow")
    heard = []
    found = _run(work, Workers(n, lambda *words: heard.append(words), make))
    states = {name.split("-m-")[1]: outcome.state for name, outcome in found.items()}
    assert states == {
        "quick-0": "done",
        "killed-1": "failed",
        "raises-2": "failed",
        "too-large-3": "failed",
        "warns-4": "done",
        "slow-5": "done",
    }
    assert "killed by SIGKILL" in found["t-m-killed-1"].problem
    assert found["t-m-raises-2"].problem.endswith("ValueError: what a pity\n")
    assert found["t-m-too-large-3"].problem == NO_MEMORY
    assert capsys.readouterr().err == "mind the gap\n"
    assert ("t-m-slow-5", "writing", 0, 1) in heard
    assert len([name for name in os.listdir(tmp_path / "cells") if name.startswith(".")]) == 2
    clean(tmp_path)
    assert sorted(os.listdir(tmp_path / "cells")) == ["t-m-quick-0", "t-m-slow-5", "t-m-warns-4"]
    again = _run(work[:1], Workers(n, nothing, make))
    assert [outcome.state for outcome in again.values()] == ["kept"]


def test_failing_fast_stops_those_at_work_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    work = pieces(tmp_path, "endless", "raises", "quick")
    start = time.monotonic()
    found = _run(work, Workers(2, nothing, make), fail_fast=True)
    assert [outcome.state for outcome in found.values()] == ["failed"]
    assert time.monotonic() - start < 60
    assert os.listdir(tmp_path / "cells") == []


def test_two_studies_in_one_folder_share_the_cells(tmp_path: Path) -> None:
    work = pieces(tmp_path, *["slow"] * 6)
    with ThreadPoolExecutor(2) as both:
        runs = list(both.map(lambda _: _run(work, Workers(None, nothing, make)), range(2)))
    for found in runs:
        assert {outcome.state for outcome in found.values()} <= {"done", "kept"}
    assert sum(o.state == "done" for found in runs for o in found.values()) == 6
    assert sorted((tmp_path / "log").read_text().split()) == sorted(p.cell.name for p in work), "each once"


def test_a_claim_holds_while_its_process_lives_and_is_then_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cells" / "x"
    aside = folder.with_name(".x.1234.partial")
    program = f"""
import sys, time
from pathlib import Path
from cli.study.claims import claimed
from circuits.runs import writing_run
with claimed(Path({str(folder)!r})) as free, writing_run({str(folder)!r}) as aside:
    print(free, flush=True)
    time.sleep(1000)
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        aside.mkdir()
        clean(tmp_path)
        left = sorted(os.listdir(tmp_path / "cells"))
        assert len(left) == 2, "what a living process owns stays"
        assert not aside.exists()
        with claimed(folder) as free:
            assert not free
    finally:
        other.kill()
        other.wait()
        other.stdout.close()  # type: ignore[union-attr]
    assert sorted(os.listdir(tmp_path / "cells")) == left, "SIGKILL cleans nothing"
    clean(tmp_path)
    assert os.listdir(tmp_path / "cells") == []
    with claimed(folder) as free:
        assert free
        assert claim_of(folder).exists()
    assert not claim_of(folder).exists()


def test_where_there_are_no_locks_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    (tmp_path / "file").touch()
    with locked(tmp_path / "file") as lock:
        assert lock == "none"
    aside = tmp_path / "cells" / ".x.1234.partial"
    aside.mkdir(parents=True)
    found = _run(pieces(tmp_path, "quick"), Workers(None, nothing, make))
    assert [outcome.state for outcome in found.values()] == ["done"]
    clean(tmp_path)
    assert aside.exists(), "somebody may be writing it"
    os.utime(aside, (0, 0))
    clean(tmp_path)
    assert not aside.exists()


STUDY = """
import sys
from pathlib import Path
from made_cells import make, pieces
from cli.study.claims import clean
from cli.study.runner import run_cells
from cli.study.workers import Workers
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    clean(folder)
    work = {p.cell: p.folder for p in pieces(folder, *["slow"] * 10)}
    assert all(o.state != "failed" for o in run_cells(work, Workers(2, print, make)))
"""


def test_a_study_killed_at_any_moment_comes_to_the_same_and_does_nothing_twice(tmp_path: Path) -> None:
    program, killed, whole = tmp_path / "study.py", tmp_path / "killed", tmp_path / "whole"
    program.write_text(STUDY)
    paths = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE)))}

    def study(folder: Path) -> subprocess.Popen[bytes]:
        folder.mkdir(exist_ok=True)
        words = [sys.executable, str(program), str(folder)]
        return subprocess.Popen(words, env=os.environ | paths, stdout=subprocess.DEVNULL)

    random, n = Random(0), 0
    for _ in range(3):
        process = study(killed)
        wanted, deadline = n + random.randint(1, 3), time.monotonic() + 60
        while n < wanted and time.monotonic() < deadline:
            time.sleep(0.02)
            n = len(list(killed.glob("cells/[!.]*")))
        time.sleep(random.random() * 0.3)
        process.kill()
        process.wait()
    assert study(killed).wait() == study(whole).wait() == 0
    assert _content(killed) == _content(whole)
    log = (killed / "log").read_text().split()
    assert len(log) >= 7
    assert len(set(log)) == len(log), "no cell is made twice to the end"


@pytest.mark.slow
def test_ray_makes_the_same_and_tries_again_where_a_worker_dies(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    program = tmp_path / "study.py"
    program.write_text(RAY)
    paths = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE)))}
    words = [sys.executable, str(program), str(tmp_path)]
    found = subprocess.run(words, env=os.environ | paths, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    states = dict(line.split(" ", 1) for line in found.stdout.splitlines())
    assert {name: words.split(" ")[0] for name, words in states.items()} == {
        "t-m-quick-0": "done",
        "t-m-killed-once-1": "done",
        "t-m-raises-2": "failed",
        "t-m-warns-3": "done",
        "t-m-killed-4": "failed",
    }
    assert "Its Ray worker failed" in states["t-m-killed-4"]
    assert "mind the gap" in found.stderr
    for name in ("t-m-quick-0", "t-m-killed-once-1", "t-m-warns-3"):
        assert _content(tmp_path / "cells" / name) == {"begun": b"begun", "run.json": f"{name}\n".encode()}


RAY = """
import sys
from pathlib import Path
from made_cells import make, pieces
from cli.study.ray_workers import RayWorkers
from cli.study.runner import run_cells
folder = Path(sys.argv[1])
work = {p.cell: p.folder for p in pieces(folder, "quick", "killed-once", "raises", "warns", "killed")}
for outcome in list(run_cells(work, RayWorkers("local", 0.0, lambda *words: None, make))):
    print(outcome.name, outcome.state, " ".join(outcome.problem.split()))
"""
