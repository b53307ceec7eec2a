"""The run folder: what a discovery leaves behind, whole or absent.

The one idea: a run is written into a hidden folder beside its place and renamed into it at the end. A rename
within one file system is atomic, so whoever looks sees no run or a complete one; whatever goes wrong before
(an error, Ctrl-C, a full disk) takes the hidden folder away again.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from circuits.errors import RunFolderError
from circuits.locks import locked
from circuits.prompts import PromptPair
from circuits.records import (
    compact_text,
    read_json,
    read_prompts,
    read_table,
    write_json,
    write_prompts,
    write_table,
    write_text,
)

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = 1
RECORD = "run.json"
FILES = (RECORD, "prompts.jsonl", "nodes.csv", "edges.csv", "circuit.json", "evaluation.json")
TABLES = ("parts", "sizes", "codes")
"""Tables that a run has where there is something to put into them: NAME.csv."""
ATTENTION = "attention.json"

# Where a write fails for lack of room, the OSError names no file.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LONG_AGO = 24 * 3600.0  # seconds after which nobody still writes a folder, where no lock tells


@dataclass(frozen=True)
class RunFolder:
    """What a run folder holds.

    run: the record (format version, configuration, seed, versions, counts); circuit and evaluation: as JSON.
    nodes, edges: one row a component, one row a link.
    parts: one row for what is finer than a component, where a method scored any.
    sizes: one row a method and circuit size, how faithful the first n of its ranking are to the judged prompts
    (method, n, kept, faithfulness, low, high, ablation, n_prompts; kept is n without edges that lead nowhere).
    codes: one row a head and code of an autoencoder, the prompts that have it (head, code, positives, negatives).
    attention: what heads attend to on some judged prompts; see circuits.attention_samples.
    """

    path: Path
    run: dict[str, Any]
    prompts: tuple[PromptPair, ...]
    nodes: pd.DataFrame
    edges: pd.DataFrame
    circuit: dict[str, Any]
    evaluation: dict[str, Any]
    parts: pd.DataFrame | None = None
    sizes: pd.DataFrame | None = None
    codes: pd.DataFrame | None = None
    attention: dict[str, Any] | None = None


def check_output(path: str | Path, force: bool = False, record: str = RECORD) -> None:
    """Raises RunFolderError where a folder may not be written to `path`: call it before any work is done.

    record: the file by which a folder of this kind is known; --force replaces no other folder.
    """
    path = Path(path)
    if os.path.lexists(path):
        _check_replaceable(path, force, record)
    ground = next((p for p in path.absolute().parents if os.path.lexists(p)), path)
    if not ground.is_dir():
        raise RunFolderError(f"{path} cannot be written: {ground} is not a folder. Choose another --output.")
    if not os.access(ground, os.W_OK | os.X_OK):
        raise RunFolderError(f"{path} cannot be written: no permission in {ground}. Choose another --output.")


def _check_replaceable(path: Path, force: bool, record: str) -> None:
    if not force:
        raise RunFolderError(f"{path} exists: choose another --output, or pass --force to replace it.")
    if path.is_symlink() or not path.is_dir():
        kind = "a link" if path.is_symlink() else "a file"
        raise RunFolderError(f"{path} is {kind}, which --force does not replace. Choose another --output.")
    if not (path / record).is_file():
        raise RunFolderError(
            f"{path} is a folder without {record}: none of ours, so --force does not replace it. "
            "Choose another --output."
        )


@contextmanager
def writing_run(path: str | Path, force: bool = False, record: str = RECORD) -> Iterator[Path]:
    """A new folder to write into, which becomes `path` at the end, or vanishes if anything goes wrong.

    With `force` the folder that stands at `path` is replaced, and only once the new one is complete.
    Raises RunFolderError where `path` is taken, or where the disk refuses.
    """
    path = Path(path).absolute()
    check_output(path, force, record)
    aside = path.with_name(f".{path.name[:50]}.{uuid4().hex[:8]}.partial")
    parents = [p for p in path.parents if not p.exists()]
    try:
        aside.mkdir(parents=True)
        with locked(aside):  # whose holder dies, remove_left_overs takes away
            yield aside
            _flush(aside)
            _put_in_place(aside, path, force, record)
    except OSError as problem:
        if not _is_ours(problem, aside):
            raise
        raise RunFolderError(f"{path} cannot be written: {problem.strerror or problem}.") from problem
    finally:
        _remove(aside)
        _remove_empty(parents)


def remove_left_overs(parent: Path) -> None:
    """Takes away the hidden folders of runs that were killed while they wrote into `parent`."""
    for aside in parent.glob(".*.partial"):
        with locked(aside) as lock:
            if lock == "ours" or (lock == "none" and _age(aside) > _LONG_AGO):
                _remove(aside)


def _age(path: Path) -> float:
    """Seconds since it was changed; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _is_ours(problem: OSError, aside: Path) -> bool:
    """Whether `problem` came from writing the folder rather than from other work done meanwhile."""
    named = [os.fspath(n) for n in (problem.filename, problem.filename2) if isinstance(n, str | os.PathLike)]
    if not named:
        return problem.errno in _NO_ROOM
    return any(Path(name).is_relative_to(aside.parent) for name in named)


def _remove(folder: Path) -> None:
    """Takes the folder away, also where Ctrl-C strikes while it does so."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _remove_empty(folders: Iterable[Path]) -> None:
    """Takes away the folders, innermost first, that stand empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _flush(folder: Path) -> None:
    """Sends every file to the disk itself, so that a power cut after the rename loses nothing."""
    for place, _, files in os.walk(folder):
        for name in files:
            _sync(Path(place, name))
        _sync_folder(Path(place))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(folder)


def _put_in_place(aside: Path, path: Path, force: bool, record: str) -> None:
    """Renames `aside` to `path`; what stood there is put back if that fails, and removed if it does not."""
    if not os.path.lexists(path):
        aside.rename(path)
        _sync_folder(path.parent)
        return
    _check_replaceable(path, force, record)
    old = aside.with_suffix(".old")
    try:
        path.rename(old)
        aside.rename(path)
        _sync_folder(path.parent)
    finally:  # wherever an interrupt strikes, one of the two stands at `path` and the other is gone
        if not os.path.lexists(path):
            old.rename(path)
        _remove(old)


def write_records(
    folder: Path,
    *,
    run: Mapping[str, object],
    prompts: Iterable[PromptPair],
    nodes: pd.DataFrame,
    edges: pd.DataFrame,
    circuit: Mapping[str, object],
    evaluation: Mapping[str, object],
    attention: Mapping[str, object] | None = None,
    **tables: pd.DataFrame | None,
) -> None:
    """Writes the six files that read_run reads, and of TABLES and attention what there is; the format version comes
    first in run.json."""
    write_json(folder / RECORD, {"format_version": FORMAT_VERSION} | dict(run))
    write_prompts(folder / "prompts.jsonl", prompts)
    write_table(folder / "nodes.csv", nodes)
    write_table(folder / "edges.csv", edges)
    write_json(folder / "circuit.json", circuit)
    write_json(folder / "evaluation.json", evaluation)
    for name in TABLES:
        if (rows := tables.get(name)) is not None and len(rows):
            write_table(folder / f"{name}.csv", rows)
    if attention is not None:
        write_text(folder / ATTENTION, compact_text(attention))


@dataclass(frozen=True)
class RunRecords:
    """What a run folder says of its circuits, tables and prompts unread: see RunFolder."""

    path: Path
    run: dict[str, Any]
    circuit: dict[str, Any]


def read_records(path: str | Path) -> RunRecords:
    """The records of the run at `path`. Raises RunFolderError as read_run does."""
    path = Path(path)
    _check_complete(path)
    try:
        run = read_json(path / RECORD)
        _check_version(path, run.get("format_version"))
        return RunRecords(path, run, read_json(path / "circuit.json"))
    except OSError as problem:
        raise _unreadable(path, problem) from problem


def read_run(path: str | Path) -> RunFolder:
    """The run at `path`. Raises RunFolderError where it is missing, damaged, or of a newer format."""
    records = read_records(path)
    path = records.path
    try:
        return RunFolder(
            path=path,
            run=records.run,
            prompts=read_prompts(path / "prompts.jsonl"),
            nodes=read_table(path / "nodes.csv"),
            edges=read_table(path / "edges.csv"),
            circuit=records.circuit,
            evaluation=read_json(path / "evaluation.json"),
            attention=read_json(path / ATTENTION) if (path / ATTENTION).is_file() else None,
            **{name: _table(path / f"{name}.csv") for name in TABLES},
        )
    except OSError as problem:
        raise _unreadable(path, problem) from problem


def _table(path: Path) -> pd.DataFrame | None:
    return read_table(path) if path.is_file() else None


def _unreadable(path: Path, problem: OSError) -> RunFolderError:
    return RunFolderError(f"{problem.filename or path} cannot be read: {problem.strerror or problem}.")


def _check_complete(path: Path) -> None:
    if not path.is_dir():
        raise RunFolderError(f"There is no run folder {path}. `circuit discover` makes one.")
    if not (path / RECORD).is_file():
        raise RunFolderError(f"{path} is not a run folder: it has no {RECORD}.")
    if missing := [name for name in FILES if not (path / name).is_file()]:
        raise RunFolderError(f"The run folder {path} lacks {', '.join(missing)}. Make the run again.")


def _check_version(path: Path, version: object) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        what = f"{path / RECORD} is damaged: its format_version is {version!r}"
        raise RunFolderError(f"{what}. Make the run again.")
    if version > FORMAT_VERSION:
        raise RunFolderError(
            f"{path} has format version {version}, and this release reads up to {FORMAT_VERSION}. "
            "Upgrade circuit-toolkit."
        )
