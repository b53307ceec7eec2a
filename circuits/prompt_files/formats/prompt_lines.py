"""Our own format: one object a line (JSON Lines), the same objects in a JSON list, or the columns of a CSV table.

    {"clean": "Mary met Tom. Tom saw", "corrupt": "Mary met Tom. Mary saw", "answers": [" Mary"],
     "distractors": [" Tom"], "positions": {"S2": "Tom saw"}, "negative": "", "template": ""}

clean and answers are needed; prompt, answer and distractor are other names of clean, answers and distractors, and a
single string is taken for a list of one. With corrupt, distractors are needed too; without it a twin is made (see
circuits.prompt_files.pairing). A position is a [start, stop) character span of clean, or a piece of text that occurs
in clean exactly once. Of a prompt without a twin, swap names the position that another prompt's may stand in for (the
first if not given) and class what stands there ("name"); the position's name without its number if not given. scoring
says how answers of several tokens are read: first-token or whole-string.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from circuits.prompt_files.content import Content
from circuits.prompt_files.formats.format import Format, Rows
from circuits.prompt_files.records import PromptRow
from circuits.prompts import PromptPair, Scoring


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Words = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed), Field(min_length=1)]


WRITTEN = (
    "clean", "corrupt", "answers", "distractors", "positions", "negative", "template", "key", "swap", "kind",
)  # fmt: skip


class PromptLine(BaseModel):
    """One line of a prompt file."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    clean: str = Field(min_length=1, validation_alias=AliasChoices("clean", "prompt"))
    corrupt: str = Field("", min_length=1)
    answers: Words = Field(validation_alias=AliasChoices("answers", "answer"))
    distractors: Words = Field([], validation_alias=AliasChoices("distractors", "distractor"))
    positions: dict[str, tuple[int, int] | str] = Field(default_factory=dict)
    negative: str = ""
    template: str = ""
    key: str = ""
    swap: str = ""
    kind: str = Field("", validation_alias="class")
    scoring: Scoring = "one-token"

    @model_validator(mode="after")
    def _spans_lie_in_clean(self) -> PromptLine:
        for name, where in self.positions.items():
            if isinstance(where, str):
                if self.clean.count(where) != 1:
                    raise ValueError(
                        f"position {name}: {where!r} occurs {self.clean.count(where)} times in clean"
                    )
            elif not 0 <= where[0] < where[1] <= len(self.clean):
                raise ValueError(
                    f"position {name}: {list(where)} is no span of clean ({len(self.clean)} characters)"
                )
        return self

    @model_validator(mode="after")
    def _is_a_pair_or_none(self) -> PromptLine:
        if self.corrupt and not self.distractors:
            raise ValueError("distractors: Field required beside corrupt")
        if self.swap and self.swap not in self.positions:
            raise ValueError(
                f"swap: {self.swap!r} is none of the positions {', '.join(self.positions) or '()'}"
            )
        return self

    def pair(self) -> PromptPair:
        return self.row("").pair()

    def row(self, where: str) -> PromptRow:
        spans = {name: self._span(span) for name, span in self.positions.items()}
        swap = self.swap or next((name for name in spans if name != "END"), "")
        return PromptRow(
            where, self.clean, tuple(self.answers), self.corrupt, tuple(self.distractors), spans, self.negative,
            self.template, self.key, swap=swap, kind=self.kind or swap.rstrip("0123456789"),
            scoring=self.scoring,
        )  # fmt: skip

    def _span(self, where: tuple[int, int] | str) -> tuple[int, int]:
        if isinstance(where, str):
            start = self.clean.index(where)
            return start, start + len(where)
        return where


def written(row: PromptRow) -> dict[str, Any]:
    """The row as a line, without what is empty."""
    fields = {name: getattr(row, name) for name in WRITTEN}
    scoring = {} if row.scoring == "one-token" else {"scoring": row.scoring}
    return {("class" if name == "kind" else name): value for name, value in fields.items() if value} | scoring


def _recognises(content: Content) -> bool:
    return any(content.has(text, answer) for text in ("clean", "prompt") for answer in ("answers", "answer"))


def _read(content: Content, column: str | None) -> Rows:
    return [line.row(where) for where, line in content.validated(PromptLine)]


FORMAT = Format(
    name="prompt-lines",
    summary="our own: JSON Lines, or the same as a JSON list or a CSV table",
    holds='{"clean": "...", "corrupt": "...", "answers": [" x"], "distractors": [" y"]}, or {"prompt", "answer"}',
    recognises=_recognises,
    read=_read,
    pair_free=True,
)
