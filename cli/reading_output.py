"""What commands that read or change a model put out: in the terminal, as a record, and as a folder.

The one idea: a reading is a record, some sentences, some tables and pictures, said once; terminal, report and page
show the same. The same reading gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.wording import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT_VERSION = 1
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Table:
    """A table for people.

    title: empty where that of the reading says it. rows: values, or words where they want other digits. notes: what
    is said below. lines: how many the terminal shows: all where None, and at 0 not even the title. name: of the CSV
    file of the same rows, if there is to be one. numeric: columns to align on the right; those that hold numbers
    where None. folding: columns that may take several lines; where None, all others but the first.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]
    notes: tuple[str, ...] = ()
    lines: int | None = None
    name: str = ""
    numeric: tuple[str, ...] | None = None
    folding: tuple[str, ...] | None = None

    def cells(self, n: int | None = None) -> list[tuple[str, ...]]:
        """Of the first n rows, in words."""
        return [tuple(map(_cell, row)) for row in self.rows[:n]]

    @property
    def on_the_right(self) -> tuple[str, ...]:
        return self.numeric if self.numeric is not None else tuple(self._with_numbers())

    def _with_numbers(self) -> Iterator[str]:
        for i, column in enumerate(self.columns):
            if any(isinstance(row[i], int | float) for row in self.rows):
                yield column

    @property
    def whole(self) -> list[str] | None:
        if self.folding is None:
            return None
        return [column for column in self.columns if column not in self.folding]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return number(value, 3) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Drawing:
    """A picture of the report. name: of its file. text: what it shows. draw: called where a folder is written."""

    name: str
    text: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Reading:
    """record: the file by which the folder is known. kept: what it holds. title, words: what is said of it.

    files: stem -> rows of a CSV file. more: writes whatever else the folder holds. then: said last, once there is a
    folder.
    """

    record: str
    title: str
    kept: Mapping[str, Any]
    words: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    files: Mapping[str, Rows] = field(default_factory=dict)
    drawings: tuple[Drawing, ...] = ()
    more: Callable[[Path], None] | None = None
    then: str = ""

    @property
    def stems(self) -> list[str]:
        """Of all CSV files."""
        return [*self.files, *(table.name for table in self.tables if table.name)]


def model_record(model: Any) -> dict[str, str]:
    """By what a model is known in records."""
    from circuits.models.source import weights_hash

    return {"name": model.name, "weights_sha256": weights_hash(model.directory)}


def put_out(reading: Reading, folder: Path | None, *, force: bool, json: bool) -> None:
    """Writes the folder where one is asked for, whole or not at all; then says what was found.

    Raises RunFolderError where the disk refuses.
    """
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
        numeric, whole = part.on_the_right, part.whole
        table(part.columns, part.cells(part.lines), title=part.title, numeric=numeric, whole=whole)
        for note in part.notes:
            say(note)
    if reading.words:
        say("")
    for sentence in reading.words:
        say(sentence)
    if folder:
        files = ["report.md", reading.record, *(f"{stem}.csv" for stem in reading.stems)]
        say(f"Written to {folder}: report.html (open it in a browser), {', '.join(files)}.")
        if reading.then:
            say(reading.then)


def _write(reading: Reading, kept: Mapping[str, Any], folder: Path, force: bool) -> None:
    import pandas as pd

    from circuits.records import write_json, write_table, write_text
    from circuits.runs import writing_run
    from cli.page.page import Page, write_page
    from cli.report.figure import png

    report = "\n\n".join(filter(None, _sections(reading))) + "\n"
    with writing_run(folder, force, reading.record) as place:
        if reading.more:
            reading.more(place)
        write_json(place / reading.record, kept)
        for stem, rows in reading.files.items():
            write_table(place / f"{stem}.csv", pd.DataFrame(list(rows)))
        for part in filter(lambda part: part.name, reading.tables):
            write_table(place / f"{part.name}.csv", pd.DataFrame(list(part.rows), columns=list(part.columns)))
        for drawing in reading.drawings:
            (place / drawing.name).write_bytes(png(drawing.draw()))
        write_text(place / "report.md", report)
        write_page(Page(report, place))


def _sections(reading: Reading) -> Iterator[str]:
    """The report's."""
    from cli.report.markdown import table

    yield f"# {reading.title}"
    yield from (f"![{drawing.text}]({drawing.name})" for drawing in reading.drawings)
    yield from reading.words
    for part in reading.tables:
        yield f"## {part.title}" if part.title else ""
        yield table(part.columns, part.cells())
        yield from part.notes
    if reading.stems:
        yield f"Whole tables: {', '.join(f'{stem}.csv' for stem in reading.stems)}."
