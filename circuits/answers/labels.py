"""Labels: what a prompt's answer is one of, and logits centred over them.

The one idea: what is added to the logits of all labels alike changes no answer, so each prompt's mean over its own
labels is taken off; what is left are net logits, and those of right and wrong labels sum to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.batches import Batch, by_prompt
from circuits.errors import PromptError
from circuits.model import Reader

MOST = 26
"""Labels that a table of answers by labels may have: as many as there are letters."""


@dataclass(frozen=True)
class Labels:
    """names, tokens: of all labels that occur, sorted by name. own, right: which are each prompt's, and its answers.

    Prompts in the order of the prompt set.
    """

    names: tuple[str, ...]
    tokens: tuple[int, ...]
    own: Bool[np.ndarray, "prompt label"]
    right: Bool[np.ndarray, "prompt label"]

    @property
    def chance(self) -> float:
        """Accuracy of who picks any of the labels."""
        return float((self.right.sum(1) / self.own.sum(1)).mean())

    @property
    def tabled(self) -> bool:
        """Whether bias and knowledge can be told apart: labels are few, one is right, and most are of `both`."""
        if (self.right.sum(1) != 1).any() or len(self.tokens) > MOST:
            return False
        return bool(self.both.sum() >= 2 and self.right[:, self.both].any(1).mean() > 0.5)

    @property
    def both(self) -> Bool[np.ndarray, "label"]:
        """Labels that are right in some prompts and wrong in others."""
        wrong = self.own & ~self.right
        return np.asarray(self.right.any(0) & wrong.any(0))


def labels_of(model: Reader, batches: Sequence[Batch]) -> Labels:
    """Raises PromptError for a prompt that has an answer alone, or none."""
    pairs = {i: pair for batch in batches for i, pair in zip(batch.index, batch.pairs, strict=True)}
    for i, pair in sorted(pairs.items()):
        if not (pair.answers and pair.distractors):
            raise PromptError(
                f"Prompt {i + 1} has {len(pair.answers)} answers and {len(pair.distractors)} distractors: labels are "
                "one of each at least. Give it what it lacks, or leave it out."
            )
    found = {token for pair in pairs.values() for token in (*pair.answers, *pair.distractors)}
    named = sorted((model.token_string(token).strip(), token) for token in found)
    tokens = tuple(token for _, token in named)
    rows = [pair for _, pair in sorted(pairs.items())]
    own = np.array([[t in (*pair.answers, *pair.distractors) for t in tokens] for pair in rows])
    right = np.array([[t in pair.answers for t in tokens] for pair in rows])
    return Labels(tuple(name for name, _ in named), tokens, own, right)


def net(
    logits: Float[np.ndarray, "prompt *part label"], own: Bool[np.ndarray, "prompt label"]
) -> Float[np.ndarray, "prompt *part label"]:
    """Less the mean over the prompt's own labels; NaN for labels that are not."""
    mask = own.reshape(len(own), *[1] * (logits.ndim - 2), own.shape[1])
    values = np.where(mask, logits, np.nan)
    return np.asarray(values - np.nanmean(values, axis=-1, keepdims=True))


def on_right(
    values: Float[np.ndarray, "prompt *part label"], right: Bool[np.ndarray, "prompt label"]
) -> Float[np.ndarray, "prompt *part"]:
    """The mean over the prompt's answers."""
    mask = right.reshape(len(right), *[1] * (values.ndim - 2), right.shape[1])
    return np.asarray(np.where(mask, values, 0.0).sum(-1) / mask.sum(-1))


def in_order(batches: Sequence[Batch], parts: Sequence[Tensor], dim: int = 0) -> np.ndarray:
    """Parts of all batches joined along `dim`, prompts in the order of the prompt set."""
    return np.asarray(by_prompt(batches, torch.cat(list(parts), dim), dim).double().cpu().numpy())
