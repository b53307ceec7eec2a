"""Files of any format: which format a file is, reading it, and writing one whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from circuits.errors import CircuitError
from circuits.exchange import FORMATS
from circuits.exchange.fields import json_object
from circuits.exchange.format import Format
from circuits.scored_circuit import ScoredCircuit, check_names


@dataclass(frozen=True)
class Imported:
    """A circuit, and the file that it came from. sign_reversed: its scores are the file's times -1."""

    scored: ScoredCircuit
    file: str
    sha256: str
    format: str
    sign_reversed: bool = False


def read_circuit(path: str | Path, name: str | None = None) -> Imported:
    """The circuit in a file; name: its format, told by the extension or the content if not given."""
    path = Path(path)
    known = None if name is None else FORMATS.load(name)
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise CircuitError(f"{path} cannot be read: {problem.strerror or problem}.") from problem
    try:
        form = known or format_of(path, data)
        scored = form.read(data)
        check_names(scored)
        return Imported(scored, path.name, sha256(data).hexdigest(), form.name)
    except CircuitError as problem:
        raise CircuitError(f"{path}: {problem}") from problem


def format_of(path: Path, data: bytes) -> Format:
    """The format of a file: the only one with its extension, or else the one that its content looks like."""
    formats: list[Format] = [FORMATS.load(name) for name in FORMATS.names()]
    by_name = [form for form in formats if form.extension == path.suffix.lower()]
    if len(by_name) == 1:
        return by_name[0]
    if found := [form for form in by_name or formats if form.recognises(data)]:
        return found[0]
    if path.suffix.lower() == ".json":
        json_object(data)
    known = ", ".join(form.name for form in formats)
    raise CircuitError(f"This looks like none of the formats {known}. Name it with --format.")


def check_file(path: str | Path, form: Format, force: bool = False) -> None:
    """Raises CircuitError where a file of this format may not be written to `path`: call it before any work."""
    path = Path(path)
    others = {f.extension: f.name for f in map(FORMATS.load, reversed(FORMATS.names()))}
    if path.suffix != form.extension and path.suffix in others:
        raise CircuitError(
            f"{path} ends as {others[path.suffix]} files do, and {form.name} files end in {form.extension}. "
            f"Choose another --output, or --format {others[path.suffix]}."
        )
    check_place(path, force)


def check_place(path: Path, force: bool = False) -> None:
    """Raises CircuitError where no file may be written to `path`."""
    if os.path.lexists(path):
        if not force:
            raise CircuitError(f"{path} exists: choose another --output, or pass --force to replace it.")
        if path.is_symlink() or not path.is_file():
            raise CircuitError(
                f"{path} is no plain file, so --force does not replace it. Choose another --output."
            )
    if not path.absolute().parent.is_dir():
        raise CircuitError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")


def write_file(path: str | Path, data: bytes) -> None:
    """Writes aside and renames, so whoever looks sees the old file or the whole new one."""
    path = Path(path).absolute()
    aside = path.with_name(f".{path.name[:50]}.{uuid4().hex[:8]}.partial")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as problem:
        raise CircuitError(f"{path} cannot be written: {problem.strerror or problem}.") from problem
    finally:
        aside.unlink(missing_ok=True)
