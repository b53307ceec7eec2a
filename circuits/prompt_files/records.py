"""What a prompt file holds: rows, with or without a corrupted twin, and what was dropped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from circuits.prompts import PromptPair, Scoring

Way = Literal["resample", "mean"]
"""How corrupted twins are made that a file lacks, see circuits.prompt_files.pairing."""
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class PromptRow:
    """A prompt as its file gives it; see PromptPair for the fields that it shares.

    where: its place in the file ("line 3"). corrupt, distractors: empty where the file has no corrupted twin.
    answer_ids, distractor_ids: token ids in place of texts, which a tokenizer has yet to spell.
    swap: the named position that another prompt's may stand in for, so that a twin can be made; spans are swapped
    within a `kind` (names for names).
    """

    where: str
    clean: str
    answers: tuple[str, ...] = ()
    corrupt: str = ""
    distractors: tuple[str, ...] = ()
    positions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    negative: str = ""
    template: str = ""
    key: str = ""
    answer_ids: tuple[int, ...] = ()
    distractor_ids: tuple[int, ...] = ()
    swap: str = ""
    kind: str = ""
    scoring: Scoring = "one-token"

    @property
    def span(self) -> str:
        """The text that may be swapped; empty where there is none."""
        start, stop = self.positions.get(self.swap, (0, 0))
        return self.clean[start:stop]

    def pair(self) -> PromptPair:
        return PromptPair(
            self.clean, self.corrupt, self.answers, self.distractors, self.positions, self.negative, self.template,
            self.key, self.scoring,
        )  # fmt: skip


@dataclass(frozen=True)
class Dropped:
    """A row that is not used. kind: the reason in few words, for counts; reason: with its values."""

    where: str
    kind: str
    reason: str


@dataclass(frozen=True)
class PromptFile:
    """metric: the one that the format is published with."""

    path: Path
    format: str
    rows: tuple[PromptRow, ...]
    dropped: tuple[Dropped, ...] = ()
    metric: str = "logit-difference"

    @property
    def size(self) -> int:
        """Rows of the file: what was read and what was dropped."""
        return len(self.rows) + len(self.dropped)

    @property
    def bare(self) -> tuple[PromptRow, ...]:
        """The rows that have no corrupted twin."""
        return tuple(row for row in self.rows if not row.corrupt)

    @property
    def scorings(self) -> set[Scoring]:
        """Every way in which its answers are scored."""
        return {row.scoring for row in self.rows}

    @property
    def by_token_ids(self) -> bool:
        return any(row.answer_ids for row in self.rows)


def parted(rows: Iterable[PromptRow | Dropped]) -> tuple[tuple[PromptRow, ...], tuple[Dropped, ...]]:
    """What is kept, and what was dropped."""
    every = tuple(rows)
    return (
        tuple(row for row in every if isinstance(row, PromptRow)),
        tuple(row for row in every if isinstance(row, Dropped)),
    )


def counted(dropped: Iterable[Dropped]) -> dict[str, int]:
    """How many were dropped, by the kind of reason, the most frequent first."""
    return dict(Counter(entry.kind for entry in dropped).most_common())
