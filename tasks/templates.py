"""Fills the slots of a sentence and says where each word landed.

The one idea: a named position is the span of a slot, so it cannot drift from the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from string import Formatter

Span = tuple[int, int]
_TOKEN = re.compile(r"\w+|[^\w\s]")


@lru_cache(maxsize=4096)
def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    return tuple((literal, slot) for literal, slot, _, _ in Formatter().parse(template))


def fill(template: str, words: Mapping[str, str]) -> tuple[str, dict[str, Span]]:
    """The text with each `{slot}` replaced, and slot -> [start, stop) of its last appearance."""
    text, spans = "", {}
    for literal, slot in _parts(template):
        text += literal
        if slot is not None:
            spans[slot] = (len(text), len(text) + len(words[slot]))
            text += words[slot]
    return text, spans


def end(text: str) -> Span:
    """The span of the last character, which the last token covers under any tokenizer."""
    return (len(text) - 1, len(text))


def next_word(text: str, span: Span) -> Span:
    """The span of the word or punctuation mark behind `span`."""
    found = _TOKEN.search(text, span[1])
    return found.span() if found else end(text)
