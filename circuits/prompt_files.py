"""The user's own prompt pairs: JSON Lines, one object a line; every problem of a file is reported at once.

    {"clean": "Mary met Tom. Tom saw", "corrupt": "Mary met Tom. Mary saw", "answers": [" Mary"],
     "distractors": [" Tom"], "positions": {"S2": "Tom saw"}, "negative": "", "template": ""}

clean, corrupt, answers and distractors are needed (answer and distractor take a single string too); a position
is a [start, stop) character span of clean, or a piece of text that occurs in clean exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from circuits.errors import PromptError
from circuits.prompts import PromptPair

SHOWN = 10


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Words = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed), Field(min_length=1)]


class PromptLine(BaseModel):
    """One line of a prompt file."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    clean: str = Field(min_length=1)
    corrupt: str = Field(min_length=1)
    answers: Words = Field(alias="answer")
    distractors: Words = Field(alias="distractor")
    positions: dict[str, tuple[int, int] | str] = Field(default_factory=dict)
    negative: str = ""
    template: str = ""
    key: str = ""

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

    def pair(self) -> PromptPair:
        spans = {name: self._span(where) for name, where in self.positions.items()}
        return PromptPair(
            self.clean, self.corrupt, tuple(self.answers), tuple(self.distractors), spans, self.negative,
            self.template, self.key,
        )  # fmt: skip

    def _span(self, where: tuple[int, int] | str) -> tuple[int, int]:
        if isinstance(where, str):
            start = self.clean.index(where)
            return start, start + len(where)
        return where


def read_prompts(path: Path) -> tuple[PromptPair, ...]:
    """The pairs of a JSON Lines file. Raises PromptError that names every bad line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PromptError(f"Prompt file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise PromptError(
            f"Prompt file {path} is not UTF-8 text ({error.reason} at byte {error.start})."
        ) from None
    pairs, problems = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                pairs.append(PromptLine.model_validate(json.loads(line)).pair())
            except json.JSONDecodeError as error:
                problems.append(f"line {number}: no JSON ({error.msg} at column {error.colno})")
            except ValidationError as error:
                problems.append(f"line {number}: {'; '.join(_reasons(error))}")
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; deep nesting
                problems.append(f"line {number}: no JSON that can be read ({error})")
    if problems:
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        count = f"{len(problems)} bad line{'s' if len(problems) > 1 else ''}"
        raise PromptError(f"{path} has {count}:\n  " + "\n  ".join(problems[:SHOWN]) + more)
    if len(pairs) < 2:
        raise PromptError(
            f"{path} holds {len(pairs)} prompt pairs; at least 2 are needed, one to discover on and one to judge on. "
            'A line reads {"clean": "...", "corrupt": "...", "answers": [" x"], "distractors": [" y"]}.'
        )
    return tuple(pairs)


def _reasons(error: ValidationError) -> Iterable[str]:
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"][:1])
        yield f"{where}: {problem['msg']}" if where else problem["msg"].removeprefix("Value error, ")
