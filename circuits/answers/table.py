"""Answers by labels: what a node writes for each label when each is right, and how much of that knows the answer.

The one idea: net_n[answer, label], the mean over prompts with that answer, is
    unconditional_n[label] + conditional_n[answer, label],
the first its mean over answers, a bias for a label whichever is right. A node knows as far as the conditional part
raises the label that is right. Chance: any label of the prompt taken for the right one, many times over.
Where prompts differ in their labels few answers meet a label, so its mean over answers is taken as that of the right
one, and of the others, weighed as if all k labels were right equally often: 1/k and 1 - 1/k.
Source: Lieberum et al. 2023 (arXiv 2307.09458); the split's definition is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.answers.labels import Labels, on_right
from circuits.statistics import adjust_pvalues

DRAWS = 1000
"""At least; of more nodes more, for Holm asks for p-values as small as 0.05 over their number."""


@dataclass(frozen=True)
class Table:
    """cells: net_n[answer, label], in logits, NaN where no prompt has both. unconditional: their mean over answers,
    NaN for labels that are only right, or only wrong.

    knows: mean over prompts of the conditional part on the right label. chance: what 95% of the draws stay below.
    p_values: of knows, by Holm over the nodes.
    """

    cells: Float[np.ndarray, "node answer label"]
    unconditional: Float[np.ndarray, "node label"]
    knows: Float[np.ndarray, "node"]
    chance: Float[np.ndarray, "node"]
    p_values: Float[np.ndarray, "node"]

    @property
    def conditional(self) -> Float[np.ndarray, "node answer label"]:
        return np.asarray(self.cells - self.unconditional[:, None])

    @property
    def conditional_share(self) -> Float[np.ndarray, "node"]:
        """Of the cells' mean square: 0 for a bias, 1 where nothing is the same for all answers."""
        whole = np.nanmean(self.cells**2, axis=(1, 2))
        return np.asarray(np.nanmean(self.conditional**2, axis=(1, 2)) / np.maximum(whole, 1e-30))


def answer_table(net: Float[np.ndarray, "prompt node label"], labels: Labels, *, seed: int) -> Table:
    """net: of circuits.answers.effects. Needs labels that are `tabled`."""
    answer = labels.right.argmax(1)
    cells = np.stack([_mean(net[answer == a]) for a in range(len(labels.tokens))], 1)
    unconditional = _over_answers(cells, labels.chance)
    conditional = net - unconditional
    knows = _mean(on_right(conditional, labels.right))
    draws = max(DRAWS, 40 * net.shape[1])
    drawn = _with_any_label_right(conditional, labels, seed, draws)
    p = (1 + (drawn >= knows - 1e-9).sum(0)) / (1 + draws)
    return Table(cells, unconditional, knows, np.quantile(drawn, 0.95, axis=0), adjust_pvalues(p, "holm"))


def _over_answers(
    cells: Float[np.ndarray, "node answer label"], right: float
) -> Float[np.ndarray, "node label"]:
    """right: how often a label is the right one."""
    diagonal = np.eye(cells.shape[1], dtype=bool)
    others = _mean(np.where(diagonal, np.nan, cells).swapaxes(0, 1))
    return np.asarray(right * cells[:, diagonal] + (1 - right) * others)


def _mean(values: Float[np.ndarray, "sample *rest"]) -> Float[np.ndarray, "*rest"]:
    """Over the samples that have a value; NaN where none has."""
    there = ~np.isnan(values)
    n = there.sum(0)
    return np.asarray(np.where(n > 0, np.where(there, values, 0.0).sum(0) / np.maximum(n, 1), np.nan))


def _with_any_label_right(
    conditional: Float[np.ndarray, "prompt node label"], labels: Labels, seed: int, draws: int
) -> Float[np.ndarray, "draw node"]:
    """`knows` where any of each prompt's labels is taken for the right one."""
    rng = np.random.default_rng([seed, 0xA5])
    prompts = np.arange(len(labels.own))

    def draw() -> Float[np.ndarray, "node"]:
        taken = np.where(labels.own, rng.random(labels.own.shape), -1.0).argmax(1)
        return _mean(conditional[prompts, :, taken])

    return np.stack([draw() for _ in range(draws)])
