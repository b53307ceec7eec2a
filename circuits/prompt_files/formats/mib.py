"""Rows of the Mechanistic Interpretability Benchmark (MIB): a prompt, its choices, and several counterfactuals of it.

    {"prompt": "As Ann and Bo talked, Bo gave a cup to", "choices": ["Ann", "Bo"], "answerKey": 0,
     "s2_io_flip_counterfactual": {"prompt": "As Ann and Bo talked, Ann gave a cup to", "choices": ["Bo", "Ann"],
                                   "answerKey": 0}}

Three kinds: IOI, whose choices are words, of which the wrong ones are the distractors; multiple choice (copycolors,
ARC), whose choices have labels ("A") and whose distractor is the counterfactual's answer; arithmetic, with a label
("82") in place of choices, and the counterfactual's as the distractor. The counterfactual is the one that MIB's own
circuit track takes, unless another is named; a row that lacks it is dropped.
Sources: Mueller et al. 2025 (arXiv 2504.13151), hub collection mib-bench; the columns as
github.com/aaronmueller/MIB reads them (MIB_circuit_track/dataset.py).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from circuits.errors import PromptError
from circuits.prompt_files.content import Content
from circuits.prompt_files.formats.format import Format, Rows, spaced
from circuits.prompt_files.records import Dropped, PromptRow

SUFFIX = "_counterfactual"
FIRST_CHOICES = ("s2_io_flip", "symbol", "random")
"""The counterfactuals of MIB's circuit track for IOI, for multiple choice, and for arithmetic."""


class Labelled(BaseModel):
    label: list[str]


class Asked(BaseModel):
    """A prompt with its right answer: a choice by its index, or a label."""

    model_config = ConfigDict(extra="allow", strict=True)
    prompt: str = Field(min_length=1)
    choices: list[str] | Labelled | None = None
    answer_key: int | None = Field(None, alias="answerKey")
    label: str | int | None = None
    template: str = ""

    @model_validator(mode="after")
    def _has_an_answer(self) -> Asked:
        if self.choices is None and self.label is None:
            raise ValueError("neither choices nor a label")
        if self.choices is not None and self.answer_key not in range(len(self.words)):
            raise ValueError(f"answerKey {self.answer_key} is none of {len(self.words)} choices")
        return self

    @property
    def words(self) -> list[str]:
        if self.choices is None:
            return [str(self.label)]
        return self.choices.label if isinstance(self.choices, Labelled) else self.choices

    @property
    def answer(self) -> str:
        return self.words[self.answer_key or 0]

    def wrong(self, other: Asked) -> list[str]:
        """The other words to choose from; where labels stand for them, the answer of `other`."""
        words = self.words if isinstance(self.choices, list) else [other.answer]
        return [word for word in words if word != self.answer]

    def read(self, where: str, column: str) -> PromptRow | Dropped:
        held = (self.model_extra or {}).get(column)
        if not isinstance(held, dict) or not held.get("prompt"):
            return Dropped(where, "no counterfactual", f"{column} is {'absent' if held is None else 'empty'}")
        try:
            other = Asked.model_validate(held)
        except ValidationError as error:
            return Dropped(where, "no counterfactual", f"{column}: {error.errors()[0]['msg']}")
        if other.prompt == self.prompt:
            return Dropped(where, "twins are the same", f"prompt and {column} are both {self.prompt!r}")
        if not self.wrong(other):
            reason = f"{self.answer!r} is the answer of {column} as well"
            return Dropped(where, "answer and distractor are the same", reason)
        answer, *wrong = (spaced(self.prompt, word) for word in (self.answer, *self.wrong(other)))
        return PromptRow(where, self.prompt, (answer,), other.prompt, tuple(wrong), template=self.template)


def _counterfactuals(content: Content) -> list[str]:
    return [name for name in content.first if name.endswith(SUFFIX)]


def _recognises(content: Content) -> bool:
    return content.carrier in ("lines", "list") and content.has("prompt") and bool(_counterfactuals(content))


def _read(content: Content, column: str | None) -> Rows:
    chosen = _column(content, column)
    return [row.read(where, chosen) for where, row in content.validated(Asked)]


def _column(content: Content, column: str | None) -> str:
    known = _counterfactuals(content)
    wanted: list[Any] = [column] if column else list(FIRST_CHOICES)
    names = [name for word in wanted for name in (word, word + SUFFIX) if name in known]
    if column and not names:
        raise PromptError(f"{content.path} has no counterfactual {column!r}: {', '.join(known)}.")
    return (names or known)[0]


FORMAT = Format(
    name="mib",
    summary="rows of the Mechanistic Interpretability Benchmark, as JSON Lines or a JSON list",
    holds='{"prompt", "choices", "answerKey", "..._counterfactual": {...}}, or "label" in place of choices',
    recognises=_recognises,
    read=_read,
)
