"""A study's folder at an fsspec URL (s3://, gs://, memory://, file:// ...), for machines that share no disk.

The one idea: work is done in a folder of this machine and goes up piece by piece; a piece up there counts once its
marker, a hidden file beside it, is there, for stores of objects have neither a folder nor a rename that is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from circuits.errors import CircuitError, RunFolderError
from circuits.progress import Progress
from circuits.runs import writing_run
from cli.study.runner import Make, Outcome, Piece


def is_url(output: str) -> bool:
    return "://" in output


@dataclass(frozen=True)
class Mirror:
    """url: of the study's folder. folder: the same on this machine."""

    url: str
    folder: Path

    def pieces(self) -> list[Path]:
        """Where each piece that is whole up there goes here. Raises RunFolderError where the URL cannot be used."""
        with _named(self.url):
            files, root = _opened(self.url)
            found = (PurePosixPath(marker).parts[-2:] for marker in files.glob(f"{root}/*/.*.whole"))
            return [self.folder / kind / name[1 : -len(".whole")] for kind, name in found]

    def fetch(self, pieces: Iterable[Path]) -> None:
        for piece in pieces:
            self.fetch_piece(piece)

    def fetch_piece(self, piece: Path) -> None:
        """One piece, where it is whole up there and not here."""
        with _named(self.url):
            files, there = self._place(piece)
            if piece.exists() or not files.exists(_marker(there)):
                return
            with writing_run(piece) as aside:
                for file in files.find(there):
                    here = aside / PurePosixPath(file).relative_to(there)
                    here.parent.mkdir(parents=True, exist_ok=True)
                    files.get_file(file, str(here))

    def put_piece(self, piece: Path) -> None:
        """One whole piece, its marker last; nothing where it is up there."""
        with _named(self.url):
            files, there = self._place(piece)
            if files.exists(_marker(there)):
                return
            for file in sorted(file for file in piece.rglob("*") if file.is_file()):
                _put(files, file, f"{there}/{file.relative_to(piece).as_posix()}")
            files.pipe_file(_marker(there), b"")

    def put(self) -> None:
        """Every piece that is not up there, and the report over all, which lies beside them."""
        for piece in sorted(entry for entry in self.folder.glob("*/[!.]*") if entry.is_dir()):
            self.put_piece(piece)
        with _named(self.url):
            files, root = _opened(self.url)
            for file in sorted(entry for entry in self.folder.iterdir() if entry.is_file()):
                _put(files, file, f"{root}/{file.name}")

    def _place(self, piece: Path) -> tuple[Any, str]:
        files, root = _opened(self.url)
        return files, f"{root}/{piece.relative_to(self.folder).as_posix()}"


@dataclass(frozen=True)
class MakeAndPut:
    """Makes a piece as `make` does, in whichever process and on whichever machine, and puts it up."""

    make: Make
    mirror: Mirror

    def __call__(self, piece: Piece, show: Progress) -> Outcome:
        outcome = self.make(piece, show)
        try:
            if outcome.state in ("done", "kept"):
                self.mirror.put_piece(piece.folder)
        except RunFolderError as problem:
            return piece.failed(f"It was made, but {problem}")
        return outcome


def _opened(url: str) -> tuple[Any, str]:
    """The file system, and the folder in it."""
    import fsspec

    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return files, str(root).rstrip("/")


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Raises RunFolderError, with the URL in it, for whatever its store refuses."""
    try:
        yield
    except CircuitError:
        raise
    except Exception as problem:  # every store has errors of its own
        raise RunFolderError(f"{url} cannot be used: {str(problem) or type(problem).__name__}") from problem


def _marker(piece: str) -> str:
    folder, _, name = piece.rpartition("/")
    return f"{folder}/.{name}.whole"


def _put(files: Any, file: Path, there: str) -> None:
    files.makedirs(there.rpartition("/")[0], exist_ok=True)
    files.put_file(str(file), there)
