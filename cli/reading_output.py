"""What commands that read a model put out: sentences and tables, in the terminal, as a record, and as a folder.

The one idea: a reading is a record, some sentences and some tables, said once; terminal and report show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.wording import number

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Table:
    """name: of its CSV file. rows: values as they are; lines: how many the terminal shows: all where None, and at 0
    not even the title. note: what is said below it, and nothing where it is empty.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]
    lines: int | None = None
    note: str = ""

    def cells(self, n: int | None) -> list[tuple[str, ...]]:
        """Of the first n rows, in words."""
        return [tuple(map(_cell, row)) for row in self.rows[:n]]

    @property
    def numeric(self) -> tuple[str, ...]:
        """The columns that hold numbers."""
        return tuple(
            column
            for i, column in enumerate(self.columns)
            if any(isinstance(row[i], int | float) for row in self.rows)
        )


def _cell(value: object) -> str:
    if value is None:
        return ""
    return number(value, 3) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Picture:
    """file: a PNG's name. words: what it shows, for who cannot see it. make: draws it, where it is wanted."""

    file: str
    words: str
    make: Callable[[], bytes]


@dataclass(frozen=True)
class Reading:
    """record: the file by which the folder is known. kept: what it holds. title, words: what is said of it.

    pictures: where there are any, the folder holds them, and report.html as well.
    """

    record: str
    title: str
    kept: Mapping[str, Any]
    words: tuple[str, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...] = ()


def model_record(model: Any) -> dict[str, str]:
    """By what a model is known in records."""
    from circuits.models.source import weights_hash

    return {"name": model.name, "weights_sha256": weights_hash(model.directory)}


def put_out(reading: Reading, folder: Path | None, *, force: bool, json: bool) -> None:
    """Writes the folder where one is asked for, whole or not at all; then says what was found."""
    from circuits.records import json_text

    kept = {"format_version": FORMAT_VERSION} | dict(reading.kept)
    if folder:
        _write(reading, kept, folder, force)
    if json:
        print(json_text(kept), end="")
        return
    _show(reading, folder)


def _show(reading: Reading, folder: Path | None) -> None:
    from cli.render import say, table

    say(reading.title)
    for part in reading.tables:
        if part.lines == 0:
            continue
        say("")
        table(part.columns, part.cells(part.lines), title=part.title, numeric=part.numeric)
        if part.note:
            say(part.note)
    if reading.words:
        say("")
    for sentence in reading.words:
        say(sentence)
    if folder:
        say(f"Written to {folder}")


def _write(reading: Reading, kept: Mapping[str, Any], folder: Path, force: bool) -> None:
    import pandas as pd

    from circuits.records import write_json, write_table, write_text
    from circuits.runs import writing_run

    with writing_run(folder, force, reading.record) as place:
        write_json(place / reading.record, kept)
        for part in reading.tables:
            write_table(place / f"{part.name}.csv", pd.DataFrame(list(part.rows), columns=list(part.columns)))
        write_text(place / "report.md", _report(reading))
        for picture in reading.pictures:
            (place / picture.file).write_bytes(picture.make())
        if reading.pictures:
            from cli.page.page import Page, write_page

            write_page(Page(_report(reading), place))


def _report(reading: Reading) -> str:
    from cli.report.markdown import table

    parts = [f"# {reading.title}", *reading.words]
    parts += [f"![{picture.words}]({picture.file})" for picture in reading.pictures]
    for part in reading.tables:
        parts += [f"## {part.title}", table(part.columns, part.cells(None)), part.note]
    return "\n\n".join(filter(None, parts)) + "\n"
