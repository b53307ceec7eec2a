"""A study at a URL: pieces go up whole and come down whole, and what is half up there does not count."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from made_cells import make, pieces

from circuits.errors import RunFolderError
from circuits.progress import silent
from cli.study.mirror import MakeAndPut, Mirror, is_url
from cli.study.runner import run_cells
from cli.study.workers import Workers


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/up there" if request.param == "file" else f"memory://{tmp_path.name}/study"


def _all(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def _run(mirror: Mirror, *methods: str) -> list[str]:
    work = {piece.cell: piece.folder for piece in pieces(mirror.folder, *methods)}
    mirror.fetch(mirror.pieces())
    outcomes = list(run_cells(work, Workers(None, lambda *words: None, MakeAndPut(make, mirror))))
    mirror.put()
    return [outcome.state for outcome in outcomes]


def test_a_second_machine_finds_what_the_first_one_made(url: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "report.md").write_text("read me")
    assert _run(Mirror(url, tmp_path / "a"), "quick", "raises", "warns") == ["done", "failed", "done"]
    second = Mirror(url, tmp_path / "b")
    assert sorted(_run(second, "quick", "raises", "warns")) == ["failed", "kept", "kept"]
    cells = {name: data for name, data in _all(tmp_path / "a").items() if name.startswith("cells/")}
    assert len(cells) == 4
    assert cells == {name: data for name, data in _all(tmp_path / "b").items() if name != "log"}
    files, root = fsspec.core.url_to_fs(url)
    assert files.cat_file(f"{root}/report.md") == b"read me"


def test_a_piece_without_its_marker_is_made_again_and_put_up_again(url: str, tmp_path: Path) -> None:
    first = Mirror(url, tmp_path / "a")
    _run(first, "quick")
    files, root = fsspec.core.url_to_fs(url)
    files.rm_file(f"{root}/cells/.t-m-quick-0.whole")
    files.pipe_file(f"{root}/cells/t-m-quick-0/run.json", b"half")
    second = Mirror(url, tmp_path / "b")
    assert second.pieces() == []
    assert _run(second, "quick") == ["done"]
    assert files.cat_file(f"{root}/cells/t-m-quick-0/run.json") == b"t-m-quick-0\n"


def test_what_cannot_be_put_up_fails_by_name_and_stands_here(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, where a folder is needed")
    mirror = Mirror(f"file://{tmp_path}/taken/study", tmp_path / "a")
    (piece,) = pieces(mirror.folder, "quick")
    outcome = MakeAndPut(make, mirror)(piece, silent)
    assert outcome.state == "failed"
    assert outcome.problem.startswith(f"It was made, but file://{tmp_path}/taken/study cannot be used")
    assert piece.folder.exists()


@pytest.mark.parametrize("url", ["nosuch://bucket/study", "s3://bucket/study"])
def test_a_url_that_nothing_here_reads_is_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=f"{url} cannot be used: .*(nosuch|s3fs)"):
        Mirror(url, tmp_path).pieces()


def test_a_path_is_no_url() -> None:
    assert is_url("s3://bucket/study")
    assert not is_url("runs/study")
    assert not is_url("/data/a:b")
