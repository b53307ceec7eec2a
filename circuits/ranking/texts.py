"""Texts to rank: a JSONL file, one object with a "text" a line, as tokens of one model.

The one idea: all that can be wrong with a line is said before any work, each with its line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.errors import CircuitError, PromptError
from circuits.model import Reader

SHOWN = 5


@dataclass(frozen=True)
class Text:
    """line: in its file, from 1. fields: what stands beside the text there."""

    line: int
    text: str
    fields: dict[str, Any]
    tokens: tuple[int, ...] = ()


def read_texts(path: Path, model: Reader) -> tuple[Text, ...]:
    """Raises CircuitError for a file that cannot be read or holds no text, naming every line that is at fault."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise CircuitError(f"{path} cannot be read ({problem}). Give a JSONL file of texts.") from None
    texts: list[Text] = []
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            found = _text(number, line, model)
            if isinstance(found, str):
                faults.append(found)
            else:
                texts.append(found)
    if faults:
        more = f"\nand {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise CircuitError("\n".join(f"{path}, {fault}" for fault in faults[:SHOWN]) + more)
    if not texts:
        raise CircuitError(f'{path} is empty. Write one JSON object a line, such as {{"text": "..."}}.')
    return tuple(texts)


def _text(number: int, line: str, model: Reader) -> Text | str:
    """The text, or what is wrong with the line."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as problem:
        return f"line {number}: no JSON ({problem}). Mend it, or leave it out."
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        return f'line {number}: holds no text. Write {{"text": "..."}}.'
    try:
        tokens, _ = model.tokenize(entry["text"])
    except PromptError as problem:
        return f"line {number}: {problem}"
    if len(tokens) < 2:
        return f"line {number}: {len(tokens)} token has no next one to predict. Leave it out."
    fields = {name: value for name, value in entry.items() if name != "text"}
    return Text(number, entry["text"], fields, tuple(tokens))


def by_length(texts: Sequence[Text], at_once: int) -> list[tuple[list[int], Int[Tensor, "text pos"]]]:
    """Places of texts of one length, some at a time, and their tokens: nothing is padded."""
    places: dict[int, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(len(text.tokens), []).append(place)
    parts = [some[i : i + at_once] for some in places.values() for i in range(0, len(some), at_once)]
    return [(part, torch.tensor([texts[place].tokens for place in part])) for part in parts]
