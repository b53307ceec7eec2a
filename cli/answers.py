"""`--answers`: whether an answer is one token, stands for its first, or is scored whole; and what follows.

The one idea: the pairs themselves say how they are scored, so whatever reads a run's prompts reads them alike. Whole
strings take the log-probability, which adds up over tokens; logits do not, so what reads those is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from circuits.errors import CircuitError, UnknownNameError
from circuits.prompts import PromptPair, Scoring

if TYPE_CHECKING:
    from cli.prompt_source import Prompts

OF_STRINGS = "log-probability-difference"
"""The metric of whole strings."""

READS_LOGITS = "logit-attribution"


def scoring_named(name: str | None) -> Scoring | None:
    """Raises UnknownNameError for what is none of the three."""
    for known in get_args(Scoring):
        if name == known:
            return known  # type: ignore[no-any-return]
    if name is not None:
        raise UnknownNameError("way to score answers", name, get_args(Scoring))
    return None


def scored(own: Prompts | None, scoring: Scoring | None) -> Prompts | None:
    """The user's own prompts, scored as asked; as their file says where nothing is."""
    if own is None or own.file is None or scoring is None:
        return own
    rows = tuple(replace(row, scoring=scoring) for row in own.file.rows)
    return replace(own, file=replace(own.file, rows=rows))


def scorings(pairs: Sequence[PromptPair]) -> tuple[Scoring, ...]:
    """All that occur."""
    return tuple(name for name in get_args(Scoring) if any(pair.scoring == name for pair in pairs))


def whole(scoring: Scoring | None, own: Prompts | None) -> bool:
    """Whether whole strings are scored, as the option or the user's file says."""
    return scoring == "whole-string" or bool(own and own.file and "whole-string" in own.file.scorings)


def methods_for(strings: bool, asked: list[str] | None, core: Sequence[str]) -> list[str]:
    """The methods that are asked for, or those of the core that can read such answers."""
    if strings and asked and READS_LOGITS in asked:
        raise CircuitError(
            f"{READS_LOGITS} splits the logits of single tokens, and log-probabilities of whole strings are no sum "
            "of such parts. Leave it out, or use --answers first-token."
        )
    return asked or [name for name in core if not strings or name != READS_LOGITS]


def metric_for(strings: bool, asked: str | None) -> str | None:
    """The metric that is asked for, or that of whole strings; None for the task's own."""
    if strings and asked not in (None, OF_STRINGS):
        raise CircuitError(
            f"--metric {asked} reads single tokens, and these answers are scored as whole strings, which take "
            f"{OF_STRINGS}. Leave --metric out, or use --answers first-token."
        )
    return OF_STRINGS if strings else asked
