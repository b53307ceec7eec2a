"""Prompt pairs: a clean prompt, its corrupted twin, and what tells a right answer from a wrong one.

The one idea: everything a method needs to know about a task is in its pairs. Positions are character
spans of the clean text, so a pair is the same under every tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Scoring = Literal["one-token", "first-token", "whole-string"]
"""What of an answer counts: the one token that it is, its first token, or the log-probability of all of it."""


@dataclass(frozen=True)
class PromptPair:
    """A clean prompt and its corrupted twin.

    answers: continuations that are right after `clean`, as they stand in the text (" Mary", "82").
    distractors: continuations that are wrong after `clean` (and, where the corruption flips the
        answer, right after `corrupt`).
    positions: name -> [start, stop) character span in `clean` ("IO", "S1", "S2", "END" ...).
    negative: a prompt of the same shape in which the behaviour is not called for, which the SAE method
        sets against `clean`; empty where `corrupt` serves.
    template: the frame that the words were put in, for strata and for halves by template, which keep variants of
        one sentence together: "3 | ABBA" and "3 | BABA".
    key: what makes the pair new to a model: `circuit train` holds out pairs by key
        (a pair of names, a problem of arithmetic). Empty for a user's own prompts.
    scoring: how answers and distractors are read.
    """

    clean: str
    corrupt: str
    answers: tuple[str, ...]
    distractors: tuple[str, ...]
    positions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    negative: str = ""
    template: str = ""
    key: str = ""
    scoring: Scoring = "one-token"
