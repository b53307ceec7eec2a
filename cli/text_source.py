"""General text: lines of a user's file, or pieces of prompts that end where no answer is due."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.errors import CircuitError

if TYPE_CHECKING:
    from circuits.batches import Batch
    from circuits.model import Model

MOST = 200
"""Lines, or pieces, that are read."""


@dataclass(frozen=True)
class Lines:
    """The lines of a file that hold anything."""

    path: Path
    lines: tuple[str, ...]

    def batches(self, model: Model) -> tuple[Any, ...]:
        """The tokens of each line, as far as 64 of them, by length."""
        import torch

        device = model.device
        return tuple(tokens.to(device) for tokens in map(torch.tensor, _by_length(self._tokens(model))))

    def unknown(self, model: Model) -> tuple[str, ...]:
        """Words of the lines that are read which the model's vocabulary lacks."""
        from circuits.batches import unknown_in

        return unknown_in(model, (line[:1000] for line in self.lines[:MOST]))

    def _tokens(self, model: Model) -> Iterable[list[int]]:
        for line in self.lines[:MOST]:
            yield model.tokenize(line[:1000])[0][:64]


def lines_of(path: Path) -> Lines:
    """Raises CircuitError where the file cannot be read, or holds no text."""
    try:
        lines = tuple(filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())))
    except (OSError, UnicodeDecodeError) as problem:
        raise CircuitError(f"{path} cannot be read as text: {problem}. Give a UTF-8 file.") from None
    if not lines:
        raise CircuitError(f"{path} holds no text. Give a file with a sentence a line, or leave --text out.")
    return Lines(path, lines)


def pieces_of(batches: Sequence[Batch], seed: int) -> tuple[Any, ...]:
    """Corrupted prompts, each cut behind a random token before its last."""
    import torch

    rng = random.Random(f"text/{seed}")
    rows = [row for batch in batches for row in batch.corrupt.tolist()][:MOST]
    pieces = [row[: rng.randint(2, max(2, len(row) - 1))] for row in rows]
    return tuple(torch.tensor(some, device=batches[0].corrupt.device) for some in _by_length(pieces))


def _by_length(rows: Iterable[list[int]]) -> list[list[list[int]]]:
    groups: dict[int, list[list[int]]] = defaultdict(list)
    for row in rows:
        groups[len(row)].append(row)
    return [groups[length] for length in sorted(groups)]
