"""CSV tables of EAP-IG: clean, corrupted, and token ids of what is right and wrong, or the year of greater-than.

    clean,corrupted,label
    The war lasted from the year 1352 to the year 13,The war lasted from the year 1301 to the year 13,52

correct_idx and incorrect_idx are token ids, one or a JSON list of them, and mean something to one tokenizer alone. A
label is a year's last two digits: the years above it are right, the others wrong, and the metric is the difference of
their probabilities. Any further column, such as corrupted_hard, is another choice of corrupted twin.
Sources: Hanna et al. 2024 (arXiv 2403.17806, github.com/hannamw/EAP-IG); Hanna et al. 2023 for greater-than
(arXiv 2305.00586).
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from circuits.errors import PromptError
from circuits.prompt_files.content import Content
from circuits.prompt_files.formats.format import Format, Rows
from circuits.prompt_files.records import Dropped, PromptRow

CORRUPTED = "corrupted"
FIELDS = ("clean", "label", "correct_idx", "incorrect_idx")


def _token_ids(value: Any) -> Any:
    try:
        held = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{value!r} is no token id, nor a JSON list of them") from None
    return held if isinstance(held, list) else [held]


Ids = Annotated[list[Annotated[int, Field(ge=0, strict=True)]], BeforeValidator(_token_ids)]


class TableRow(BaseModel):
    """One row; other columns are kept as texts."""

    model_config = ConfigDict(extra="allow")
    clean: str
    label: str = ""
    correct_idx: Ids = []
    incorrect_idx: Ids = []

    @model_validator(mode="after")
    def _says_what_is_right(self) -> TableRow:
        if not self.label and not (self.correct_idx and self.incorrect_idx):
            raise ValueError("neither a label, nor both correct_idx and incorrect_idx")
        return self

    def read(self, where: str, column: str) -> PromptRow | Dropped:
        corrupt = (self.model_extra or {}).get(column, "")
        if not corrupt:
            return Dropped(where, "no corrupted prompt", f"{column} is empty")
        if corrupt == self.clean:
            return Dropped(where, "twins are the same", f"clean and {column} are both {corrupt!r}")
        if not self.correct_idx:
            return greater_than(where, self.clean, corrupt, self.label)
        return PromptRow(
            where, self.clean, corrupt=corrupt, answer_ids=tuple(self.correct_idx),
            distractor_ids=tuple(self.incorrect_idx),
        )  # fmt: skip


def greater_than(where: str, clean: str, corrupt: str, label: str) -> PromptRow | Dropped:
    """Years as two digits behind their century: those above the prompt's are right, it and those below wrong."""
    year = int(label) if label.isdecimal() else -1
    found = re.search(rf"(\d\d)({year:02d})(?=\D.*\1$)", clean, re.DOTALL)
    if not found:
        reason = (
            f"label {label!r} is no year of a prompt that ends in its century, and nothing says what is wrong"
        )
        return Dropped(where, "label of an unknown kind", reason)
    if not 0 <= year < 99:
        return Dropped(where, "no year is greater", f"none of two digits is greater than {label}")
    years = [f"{n:02d}" for n in range(100)]
    positions = {"YY": found.span(2), "END": (len(clean) - 1, len(clean))}
    return PromptRow(where, clean, tuple(years[year + 1 :]), corrupt, tuple(years[: year + 1]), positions)


def _recognises(content: Content) -> bool:
    return content.has("clean", CORRUPTED) and (
        content.has("label") or content.has("correct_idx", "incorrect_idx")
    )


def _read(content: Content, column: str | None) -> Rows:
    column = column or CORRUPTED
    if not content.has(column) or column in FIELDS:
        others = [name for name in content.columns or content.first if name not in FIELDS]
        raise PromptError(
            f"{content.path} has no column {column!r} of corrupted prompts: {', '.join(others)}."
        )
    return [row.read(where, column) for where, row in content.validated(TableRow)]


def _metric(rows: Rows) -> str:
    many = any(isinstance(row, PromptRow) and len(row.answers) > 1 for row in rows)
    return "probability-difference" if many else "logit-difference"


FORMAT = Format(
    name="eap-ig",
    summary="tables of EAP-IG (Hanna et al. 2024), greater-than among them",
    holds="CSV columns clean, corrupted and label (a year), or correct_idx and incorrect_idx (token ids)",
    recognises=_recognises,
    read=_read,
    metric=_metric,
)
