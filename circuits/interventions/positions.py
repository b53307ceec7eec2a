"""Where attention is told to go: positions that prompts name, those that are wrong, or others drawn at random.

The one idea: a rule, not a list of columns, so one intervention serves prompts of every length. A position is wrong
where the prompts call it so (WRONG1 ...), or where its token is a distractor, whatever its case: S1 and S2 of IOI,
the false capital of a counterfactual statement. In the same way RIGHT..., or an answer's token, is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.batches import Batch, TokenPair
from circuits.errors import CircuitError
from circuits.interventions.intervention import Onto
from circuits.model import Model


@dataclass(frozen=True)
class Named:
    """The positions called `names`."""

    names: tuple[str, ...]

    def __call__(self, batch: Batch) -> Bool[Tensor, "prompt pos"]:
        return _mask(batch, [[pair.positions[name] for name in self.names] for pair in batch.pairs])


@dataclass(frozen=True)
class Side:
    """Named positions that are wrong, or right, see the module."""

    model: Model
    right: bool = False

    def __call__(self, batch: Batch) -> Bool[Tensor, "prompt pos"]:
        return _mask(batch, [[pair.positions[name] for name in self.names_in(pair)] for pair in batch.pairs])

    def names_in(self, pair: TokenPair) -> tuple[str, ...]:
        """Those of one prompt."""
        tokens, start = (pair.answers, "RIGHT") if self.right else (pair.distractors, "WRONG")
        spelled = {self._spelling(token) for token in tokens}
        return tuple(
            name
            for name, place in pair.positions.items()
            if name.startswith(start) or self._spelling(pair.clean[place]) in spelled
        )

    def _spelling(self, token: int) -> str:
        return self.model.token_string(token).strip().casefold()

    def names(self, batches: Sequence[Batch]) -> tuple[str, ...]:
        """Those of any prompt, in the order in which prompts name them."""
        return tuple(
            dict.fromkeys(name for batch in batches for pair in batch.pairs for name in self.names_in(pair))
        )


@dataclass(frozen=True)
class Elsewhere:
    """As many positions as `onto` has, drawn at random for each prompt among those that no name points to.

    A prompt that has too few of them gives others that are not among `onto`. The draw of a prompt does not depend on
    how prompts are batched.
    """

    onto: Onto
    seed: int
    draw: int

    def __call__(self, batch: Batch) -> Bool[Tensor, "prompt pos"]:
        masks = self.onto(batch).cpu().numpy()
        rows = [self._drawn(*each) for each in zip(batch.index, batch.pairs, masks, strict=True)]
        return _mask(batch, rows)

    def _drawn(self, index: int, pair: TokenPair, mask: np.ndarray) -> list[int]:
        rng = np.random.default_rng([self.seed, self.draw, index])
        named = set(pair.positions.values())
        outside = rng.permutation(np.flatnonzero(~mask)).tolist()
        return sorted(outside, key=lambda place: place in named)[: int(mask.sum())]


def _mask(batch: Batch, places: Sequence[Sequence[int]]) -> Bool[Tensor, "prompt pos"]:
    mask = torch.zeros(batch.clean.shape, dtype=torch.bool, device=batch.clean.device)
    for row, columns in enumerate(places):
        mask[row, list(columns)] = True
    return mask


def common_names(batches: Sequence[Batch]) -> tuple[str, ...]:
    """The positions that every prompt names, in the order of the first."""
    pairs = [pair for batch in batches for pair in batch.pairs]
    return tuple(name for name in pairs[0].positions if all(name in pair.positions for pair in pairs))


def require_named(batches: Sequence[Batch], names: Sequence[str], prompts: str) -> None:
    """Raises CircuitError for positions that some prompt does not name. prompts: what to call them."""
    known = common_names(batches)
    if missing := [name for name in names if name not in known]:
        have = f"they name {', '.join(known)}" if known else "they name no position"
        raise CircuitError(
            f"Not every one of the {prompts} names {', '.join(missing)}: {have}. Choose one of those."
        )
