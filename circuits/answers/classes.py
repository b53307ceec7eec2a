"""Classes of nodes, by what they write onto labels, where they look, and how they act.

The one idea: the first rule that holds names the class, and every threshold stands here:
    amplification    knows the answer, and looks at the prompt's end
    correct-label    knows the answer
    content-gatherer acts on the answer through others alone, and looks at what the prompt is about
    indirect         acts on the answer through others alone
    single-label     a bias, most of it for one label
    uniform          looks at the labels, at all of them alike
Knowing, and acting, must stand out from chance over all nodes (Holm, LEVEL).
Source: the classes are those of Lieberum et al. 2023 (arXiv 2307.09458), found there by eye; rules and thresholds
are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.answers.looks import Looks
from circuits.answers.table import Table
from circuits.statistics import adjust_pvalues, sign_flip_pvalues

LEVEL = 0.05
HALF = 0.5
"""Of the conditional share, and of attention."""
EVEN = 0.9
"""Entropy of attention over labels, in its largest."""
ONE = 0.8
"""Of all that a bias raises, what one label gets."""
VISIBLE = 0.05
"""Of the model's own net logit: biases smaller than that are none."""
DIRECT = 0.2
"""Of the total effect: who does less of it directly acts through others."""


@dataclass(frozen=True)
class Acting:
    """Direct and total effects of each node, as means, and p-values by Holm over nodes that they are nothing."""

    direct: Float[np.ndarray, "node"]
    total: Float[np.ndarray, "node"]
    p_direct: Float[np.ndarray, "node"]
    p_total: Float[np.ndarray, "node"]

    @property
    def through_others(self) -> np.ndarray:
        clear = (self.p_total <= LEVEL) & (self.total > 0)
        return np.asarray(clear & (np.abs(self.direct) < DIRECT * self.total))


def acting(
    direct: Float[np.ndarray, "prompt node"], total: Float[np.ndarray, "prompt node"], seed: int
) -> Acting:
    # Of 5000 draws no p-value is below what Holm over a few hundred nodes asks for.
    draws = max(5000, int(2 * direct.shape[1] / LEVEL))
    p_direct, p_total = (
        adjust_pvalues(sign_flip_pvalues(each, permutations=draws, seed=seed), "holm")
        for each in (direct, total)
    )
    return Acting(direct.mean(0), total.mean(0), p_direct, p_total)


def classes(acts: Acting, table: Table | None, heads: dict[int, int], looks: Looks, own: float) -> list[str]:
    """The class of each node, "" where no rule holds. heads: place of a node -> its place among heads.

    table: None where labels differ too much for one. own: the model's net logit of the right label.
    """
    found = (_that_hold(node, acts, table, heads.get(node), looks, own) for node in range(len(acts.total)))
    return [next(iter(names), "") for names in found]


def _that_hold(
    node: int, acts: Acting, table: Table | None, head: int | None, looks: Looks, own: float
) -> list[str]:
    paid = {} if head is None else {name: float(each[head]) for name, each in looks.attention.items()}
    found = []
    if table is not None and knows(table)[node]:
        found += ["amplification"] * (paid.get("end", 0.0) >= HALF) + ["correct-label"]
    if acts.through_others[node]:
        at_content = paid.get("content", 0.0) > 2 * looks.chance.get("content", 1.0)
        found += ["content-gatherer"] * at_content + ["indirect"]
    if table is not None and one_label(table, own)[node]:
        found.append("single-label")
    if paid.get("labels", 0.0) >= HALF and looks.evenness is not None:
        found += ["uniform"] * bool(looks.evenness[head] >= EVEN)
    return found


def knows(table: Table) -> np.ndarray:
    """Nodes whose writes follow the answer, and more so than they follow a bias."""
    clear = (table.p_values <= LEVEL) & (table.knows > 0)
    return np.asarray(clear & (table.conditional_share >= HALF))


def one_label(table: Table, own: float) -> np.ndarray:
    """Nodes that raise one label whatever the answer."""
    bias = np.nan_to_num(table.unconditional)
    visible = bias.max(1) >= VISIBLE * abs(own)
    return np.asarray((table.conditional_share < HALF) & visible & (_first_share(bias) >= ONE))


def _first_share(bias: Float[np.ndarray, "node label"]) -> Float[np.ndarray, "node"]:
    """What the label that is raised most gets of all that is raised."""
    raised = np.maximum(bias, 0.0)
    return np.asarray(raised.max(1) / np.maximum(raised.sum(1), 1e-30))


def chance_of_one_label(n_labels: int, seed: int, draws: int = 10_000) -> float:
    """How often a random bias over so many labels raises but one of them."""
    drawn = np.random.default_rng(seed).normal(size=(draws, n_labels))
    return float((_first_share(drawn - drawn.mean(1, keepdims=True)) >= ONE).mean())
