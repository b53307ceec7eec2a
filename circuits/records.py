"""Records on disk: JSON, prompt pairs line by line, tables. The same values give the same bytes, everywhere.

The one idea: a file of a run is compared, hashed and put under version control, so nothing of the machine
may leak into it: keys stand in the order in which they were put, floats are written the shortest way that
reads back exactly (JSON) or to nine significant digits (tables), and lines end in a single newline.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.errors import RunFolderError
from circuits.prompts import PromptPair

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANT_DIGITS = 9


def plain(value: object) -> Any:
    """`value` as JSON knows it: numpy becomes Python, a dataclass its fields, and NaN or infinity null."""
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return str(value) if isinstance(value, Path) else value


def json_text(value: object) -> str:
    """`value` as indented JSON, keys in the order in which they were put."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def compact_text(value: object) -> str:
    """The same without a space: for what is mostly numbers."""
    return json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 with single newlines on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: object) -> None:
    write_text(path, json_text(value))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises RunFolderError where the file holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        raise _damaged(path, f"it is no JSON ({problem})") from problem
    if not isinstance(value, dict):
        raise _damaged(path, "it holds no JSON object")
    return value


def write_prompts(path: Path, pairs: Iterable[PromptPair]) -> None:
    """One pair a line, every field named."""
    lines = (json.dumps(plain(pair), ensure_ascii=False) + "\n" for pair in pairs)
    write_text(path, "".join(lines))


def read_prompts(path: Path) -> tuple[PromptPair, ...]:
    """The pairs that write_prompts wrote. Raises RunFolderError naming the first line that is no pair."""
    try:
        # Not splitlines(): a prompt may hold a character that Unicode counts as a line break.
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as problem:
        raise _damaged(path, f"it is no UTF-8 text ({problem})") from problem
    return tuple(_pair(path, number, line) for number, line in enumerate(lines, 1) if line.strip())


def _pair(path: Path, number: int, line: str) -> PromptPair:
    try:
        entry = json.loads(line)
        return PromptPair(
            **entry
            | {
                "answers": tuple(entry["answers"]),
                "distractors": tuple(entry["distractors"]),
                "positions": {name: (start, stop) for name, (start, stop) in entry["positions"].items()},
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise _damaged(path, f"line {number} is no prompt pair ({problem})") from problem


def _digits(value: Any) -> str:
    # Adding zero turns -0.0 into 0.0, which reads back as what it is.
    return f"{value + 0.0:.{SIGNIFICANT_DIGITS}g}"


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A CSV with a header and without the index."""
    text = table.to_csv(index=False, float_format=_digits, lineterminator="\n")
    write_text(path, text)


def read_table(path: Path) -> pd.DataFrame:
    """The table that write_table wrote; only an empty cell is a missing value."""
    import pandas as pd

    try:
        return pd.read_csv(path, encoding="utf-8", keep_default_na=False, na_values=[""])
    except ValueError as problem:  # pandas' parser errors and bad UTF-8 are ValueErrors
        raise _damaged(path, f"it is no table ({problem})") from problem


def read_columns(path: Path) -> dict[str, list[str]]:
    """The same table as texts, column by column: without pandas, which takes longer to import than to read."""
    cells: list[str] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, None)
            if not header:
                raise ValueError("it is empty")
            for row in rows:
                if len(row) != len(header):
                    raise ValueError(f"line {rows.line_num} has {len(row)} cells, not {len(header)}")
                cells += row  # and no list of lists, over which Python would look for garbage
    except (ValueError, csv.Error) as problem:  # bad UTF-8 is a ValueError too
        raise _damaged(path, f"it is no table ({problem})") from problem
    return {name: cells[i :: len(header)] for i, name in enumerate(header)}


def _damaged(path: Path, reason: str) -> RunFolderError:
    return RunFolderError(f"{path} is damaged: {reason}. Make the run again.")
