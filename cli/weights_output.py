"""From a reading of weights to its folder: a record in JSON, tables, report.md; the same bytes for the same reading.

The one idea: a table of the report is the table of the terminal, made once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.render import say
from cli.render import table as on_screen

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Shown:
    """A table for people. numeric: columns to align on the right; folding: those that may take several lines."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[str, ...] = ()
    folding: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """All that a command of this group puts out.

    name: of the folder's record, NAME.json. record: what it holds. tables: file stem -> rows, for CSV.
    """

    name: str
    title: str
    words: tuple[str, ...]
    shown: tuple[Shown, ...]
    record: Mapping[str, Any]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def file(self) -> str:
        return f"{self.name}.json"


def heading(model: BridgeModel, seed: int) -> dict[str, Any]:
    """How every record of this group begins."""
    from circuits.models.source import weights_hash

    named = {"name": model.name, "weights_sha256": weights_hash(model.directory)}
    return {"format_version": FORMAT_VERSION, "model": named, "seed": seed}


def put_out(reading: Reading, output: Path | None, *, force: bool, json: bool) -> None:
    """Writes the folder, where one is asked for; then JSON or words. Raises RunFolderError where the disk refuses."""
    if output:
        _write(reading, output, force)
    if json:
        from circuits.records import json_text

        print(json_text(reading.record), end="")
        return
    for shown in reading.shown:
        whole = [column for column in shown.columns if column not in shown.folding]
        on_screen(shown.columns, shown.rows, title=shown.title, numeric=shown.numeric, whole=whole)
    for line in reading.words:
        say(line)
    if output:
        say(f"Written to {output}: report.md, {reading.file}, {_tables(reading)}.")


def _write(reading: Reading, folder: Path, force: bool) -> None:
    import pandas as pd

    from circuits.records import write_json, write_table, write_text
    from circuits.runs import writing_run

    with writing_run(folder, force, reading.file) as place:
        write_json(place / reading.file, reading.record)
        for stem, rows in reading.tables.items():
            write_table(place / f"{stem}.csv", pd.DataFrame(list(rows)))
        write_text(place / "report.md", "\n\n".join(_sections(reading)) + "\n")


def _sections(reading: Reading) -> Iterable[str]:
    from cli.report.markdown import table

    yield f"# {reading.title}"
    yield from reading.words
    for shown in reading.shown:
        yield f"## {shown.title}"
        yield table(shown.columns, shown.rows)
    yield f"Whole tables: {_tables(reading)}."


def _tables(reading: Reading) -> str:
    return ", ".join(f"{stem}.csv" for stem in reading.tables)
