"""What a format of prompt files is: how it is recognised, and rows from what the file holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from circuits.prompt_files.content import Content
from circuits.prompt_files.records import Dropped, PromptRow

Rows = list[PromptRow | Dropped]


@dataclass(frozen=True)
class Format:
    """read(content, column): a row or what was dropped for each entry; column: which of several corrupted twins, by
    the name that the file gives it, the format's own choice if None. Raises PromptError with every bad entry.

    holds: how a file of it looks, in one line. pair_free: whether its prompts may lack their twins.
    """

    name: str
    summary: str
    holds: str
    recognises: Callable[[Content], bool]
    read: Callable[[Content, str | None], Rows]
    pair_free: bool = False
    metric: Callable[[Rows], str] = lambda rows: "logit-difference"


def spaced(prompt: str, word: str) -> str:
    """`word` as it goes on behind `prompt`: with a space in front unless one of the two brings it."""
    return word if word[:1].isspace() or prompt[-1:].isspace() else f" {word}"


def only_span(text: str, part: str) -> dict[str, tuple[int, int]]:
    """SUBJECT where `part` occurs once in `text`, and END, the text's last character."""
    end = {"END": (len(text) - 1, len(text))}
    if not part or text.count(part) != 1:
        return end
    start = text.index(part)
    return {"SUBJECT": (start, start + len(part))} | end
