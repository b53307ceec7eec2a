"""The user's own prompt pairs: JSON Lines, one object a line, or two JSON lists; all problems are reported at once.

    {"clean": "Mary met Tom. Tom saw", "corrupt": "Mary met Tom. Mary saw", "answers": [" Mary"],
     "distractors": [" Tom"], "positions": {"S2": "Tom saw"}, "negative": "", "template": ""}

clean, corrupt, answers and distractors are needed (answer and distractor take a single string too); a position
is a [start, stop) character span of clean, or a piece of text that occurs in clean exactly once.

Two JSON lists of [prompt, label], one of clean prompts and one of their corrupted twins in the same order, are how
Merullo et al. 2023 (arXiv 2310.08744, github.com/jmerullo/circuit_reuse) publish colored objects; the label of the
corrupted prompt is the distractor of the clean one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from circuits.errors import PromptError
from circuits.prompts import PromptPair, Scoring

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

    def pair(self) -> PromptPair:
        spans = {name: self._span(where) for name, where in self.positions.items()}
        return PromptPair(
            self.clean, self.corrupt, tuple(self.answers), tuple(self.distractors), spans, self.negative,
            self.template, self.key, self.scoring,
        )  # fmt: skip

    def _span(self, where: tuple[int, int] | str) -> tuple[int, int]:
        if isinstance(where, str):
            start = self.clean.index(where)
            return start, start + len(where)
        return where


def read_prompts(path: Path) -> tuple[PromptPair, ...]:
    """The pairs of a JSON Lines file. Raises PromptError that names every bad line."""
    text = _text(path)
    if text.lstrip().startswith("["):
        raise PromptError(
            f"{path} is a JSON list, which holds one side of each pair. Give the corrupted twins, a list of "
            "[prompt, label] in the same order, by --corrupt-prompts FILE."
        )
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
    _refuse(problems, f"{path} has {_count(problems, 'bad line')}")
    if len(pairs) < 2:
        raise PromptError(
            f"{path} holds {len(pairs)} prompt pairs; at least 2 are needed, one to discover on and one to judge on. "
            'A line reads {"clean": "...", "corrupt": "...", "answers": [" x"], "distractors": [" y"]}.'
        )
    return tuple(pairs)


def read_prompt_lists(clean: Path, corrupt: Path) -> tuple[PromptPair, ...]:
    """The pairs of two JSON lists of [prompt, label]. Raises PromptError that names every bad entry by its index."""
    ours, theirs = _entries(clean), _entries(corrupt)
    if len(ours) != len(theirs):
        raise PromptError(
            f"{clean} holds {len(ours)} prompts and {corrupt} {len(theirs)}: each needs its corrupted twin, in order."
        )
    problems = [
        f"index {i}: {what} {mine[part]!r} is that of the corrupted twin as well"
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=True))
        for part, what in enumerate(("prompt", "label"))
        if mine[part] == other[part]
    ]
    _refuse(problems, f"{clean} and {corrupt} have {_count(problems, 'bad pair')}")
    if len(ours) < 2:
        raise PromptError(
            f"{clean} holds {len(ours)} prompts; at least 2 are needed, one to discover on and one to judge on."
        )
    return tuple(
        PromptPair(text, other, (label,), (wrong,))
        for (text, label), (other, wrong) in zip(ours, theirs, strict=True)
    )


def _entries(path: Path) -> list[tuple[str, str]]:
    """Prompt and label of each entry."""
    try:
        held = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path} is no JSON ({error}): a list of [prompt, label] is meant.") from None
    if not isinstance(held, list):
        raise PromptError(
            f"{path} is no JSON list of [prompt, label]. JSON Lines hold both sides of a pair: leave out "
            "--corrupt-prompts."
        )
    problems = [
        f"index {i}: {json.dumps(entry)[:60]} is not [prompt, label], two texts that are not empty"
        for i, entry in enumerate(held)
        if not _is_labelled(entry)
    ]
    _refuse(problems, f"{path} has {_count(problems, 'bad entry', 'bad entries')}")
    return [(text, label) for text, label in held]


def _is_labelled(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str) and x for x in entry)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PromptError(f"Prompt file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise PromptError(
            f"Prompt file {path} is not UTF-8 text ({error.reason} at byte {error.start})."
        ) from None


def _refuse(problems: Sequence[str], what: str) -> None:
    """Raises PromptError that lists the problems, where there are any."""
    if problems:
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise PromptError(f"{what}:\n  " + "\n  ".join(problems[:SHOWN]) + more)


def _count(problems: Sequence[str], one: str, many: str = "") -> str:
    return f"{len(problems)} {one if len(problems) == 1 else many or one + 's'}"


def _reasons(error: ValidationError) -> Iterable[str]:
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"][:1])
        yield f"{where}: {problem['msg']}" if where else problem["msg"].removeprefix("Value error, ")
