"""The text of a prompt file as entries that a format can make sense of: JSON lines, a JSON list or object, a table.

The one idea: what is no text, no JSON or no table is told here, once for all formats, by line and byte; and a file is
read line by line up to a limit, so one that is no prompt file at all is refused before it fills the memory.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from circuits.errors import PromptError

SHOWN = 10
BOM = b"\xef\xbb\xbf"
LINE_LIMIT = 10 * 2**20
"""Bytes of a line: a hundred times the longest prompt that a model of today reads."""
DOCUMENT_LIMIT = 64 * 2**20
"""Bytes of a line that begins a JSON list, which may be the whole file (MIB's IOI has 23 MB)."""
LINES = (".jsonl", ".ndjson")

Carrier = Literal["lines", "list", "object", "table"]
Row = TypeVar("Row", bound=BaseModel)


class Entry(NamedTuple):
    """number: its line, or its index in a list."""

    number: int
    value: Any


@dataclass(frozen=True)
class Content:
    """problems: entries that could not be read, with their reasons. columns: those of a table."""

    path: Path
    carrier: Carrier
    entries: tuple[Entry, ...]
    problems: tuple[Entry, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def by_line(self) -> bool:
        return self.carrier in ("lines", "table")

    @property
    def first(self) -> Any:
        return self.entries[0].value if self.entries else None

    def where(self, number: int) -> str:
        return f"{'line' if self.by_line else 'index'} {number}"

    def has(self, *keys: str) -> bool:
        """Whether it is a table with these columns, or its first entry an object with these keys."""
        held = self.columns or (self.first if isinstance(self.first, dict) else ())
        return set(keys) <= set(held)

    def refuse(self, problems: Iterable[Entry]) -> None:
        """Raises PromptError with all problems in the order of the file, where there are any."""
        told = [
            f"{self.where(number)}: {reason}" for number, reason in sorted(problems, key=lambda p: p.number)
        ]
        words = ("bad line", "bad lines") if self.by_line else ("bad entry", "bad entries")
        refuse(told, f"{self.path} has {{}}", *words)

    def validated(self, kind: type[Row]) -> list[tuple[str, Row]]:
        """Each entry with its place. Raises PromptError that names every bad one."""
        rows, problems = [], list(self.problems)
        for number, value in self.entries:
            try:
                rows.append((self.where(number), kind.model_validate(value)))
            except ValidationError as error:
                problems.append(Entry(number, "; ".join(_reasons(error))))
        self.refuse(problems)
        return rows


def refuse(problems: Sequence[str], what: str, one: str, many: str) -> None:
    """Raises PromptError that lists the problems, where there are any; `{}` in `what` becomes their number."""
    if problems:
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        counted = f"{len(problems)} {one if len(problems) == 1 else many}"
        raise PromptError(f"{what.format(counted)}:\n  " + "\n  ".join(problems[:SHOWN]) + more)


def _reasons(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"][:1])
        yield f"{where}: {problem['msg']}" if where else problem["msg"].removeprefix("Value error, ")


def content_of(path: Path) -> Content:
    """What a file holds, told by how it begins. Raises PromptError for what is no text, or neither JSON nor table."""
    lines = _lines(path)
    start = next((line.lstrip() for line in lines if line.strip()), "")
    if start.startswith("["):
        return _document(path, lines)
    if start.startswith("{"):
        return _json_lines(path, lines, start)
    if not start or path.suffix.lower() in LINES:
        return _by_line(path, lines)
    return _table(path, lines)


def _lines(path: Path) -> list[str]:
    """Split at single newlines alone: a prompt may hold a character that Unicode counts as a line break."""
    try:
        with path.open("rb") as file:
            return list(_decoded(path, file))
    except OSError as error:
        raise PromptError(f"Prompt file {path} cannot be read: {error.strerror}.") from None


def _decoded(path: Path, file: BufferedReader) -> Iterator[str]:
    begins_list = file.peek(64).removeprefix(BOM).lstrip().startswith(b"[")
    limit, offset = DOCUMENT_LIMIT if begins_list else LINE_LIMIT, 0
    for number, line in enumerate(iter(lambda: file.readline(limit + 1), b""), start=1):
        if len(line) > limit:
            raise PromptError(
                f"{path}, line {number} is longer than {limit // 2**20} MB, which is no prompt. A prompt file holds "
                "one prompt a line; `circuit tasks import` lists the formats."
            )
        try:
            yield (line.removeprefix(BOM) if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            skipped = len(BOM) if number == 1 and line.startswith(BOM) else 0
            raise PromptError(
                f"Prompt file {path} is not UTF-8 text ({error.reason} at byte {offset + skipped + error.start}, "
                f"line {number})."
            ) from None
        offset += len(line)


def _document(path: Path, lines: Sequence[str]) -> Content:
    try:
        held = json.loads("".join(lines))
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path} is no JSON ({error}).") from None
    if isinstance(held, list):
        return Content(path, "list", tuple(Entry(i, value) for i, value in enumerate(held)))
    return Content(path, "object", (Entry(0, held),))


def _json_lines(path: Path, lines: Sequence[str], start: str) -> Content:
    """One object over many lines, or one a line; where the first line is neither, its line is to be named."""
    try:
        json.loads(start)
    except (ValueError, RecursionError):
        try:
            return _document(path, lines)
        except PromptError:
            pass
    return _by_line(path, lines)


def _by_line(path: Path, lines: Sequence[str]) -> Content:
    entries, problems = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                entries.append(Entry(number, json.loads(line)))
            except json.JSONDecodeError as error:
                problems.append(Entry(number, f"no JSON ({error.msg} at column {error.colno})"))
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; deep nesting
                problems.append(Entry(number, f"no JSON that can be read ({error})"))
    return Content(path, "lines", tuple(entries), tuple(problems))


def _table(path: Path, lines: Sequence[str]) -> Content:
    """Rows as mappings by the names in the header, without their empty cells."""
    table = csv.reader(lines, strict=True)
    entries, problems = [], []
    try:
        header = [name.strip() for name in next(row for row in table if row)]
        for cells in table:
            if len(cells) == len(header):
                row = {name: cell for name, cell in zip(header, cells, strict=True) if name and cell}
                entries.append(Entry(table.line_num, row))
            elif cells:
                reason = f"{len(cells)} cells, where the header has {len(header)}"
                problems.append(Entry(table.line_num, reason))
    except csv.Error as error:
        raise PromptError(f"{path} is no table: {error} (line {table.line_num}).") from None
    return Content(path, "table", tuple(entries), tuple(problems), tuple(filter(None, header)))
