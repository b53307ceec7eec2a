"""Scores from codes: a head matters where it says things on positives that it never says on negatives.

O'Neill and Bui 2024 (arXiv 2405.12522), sections on nodes and edges, and their code. A code table holds one
code for each example and head; `positive` marks the examples that show the behaviour. For head h let P be its
codes over positives and N those over negatives:

    codes       heads: 0  1          head 0: P = {4, 7}, N = {7}     -> |P \\ N| = 1
    positive           4  1          head 1: P = {1},    N = {1, 2}  -> |P \\ N| = 0
    positive           7  1
    negative           7  1
    negative           7  2

These are counts: they have no sign and measure no causal effect. The pair score is the same for pairs of
codes of two heads; it sorts keys instead of filling the published [head, head, code, code] array (6.6 GB for
GPT-2 small).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax


class CodeCounts(NamedTuple):
    """How many distinct codes of each column are in positives alone, in positives, in negatives."""

    exclusive: Int[np.ndarray, "column"]
    positive: Int[np.ndarray, "column"]
    negative: Int[np.ndarray, "column"]


def count_codes(keys: Int[np.ndarray, "example column"], positive: Bool[np.ndarray, "example"]) -> CodeCounts:
    """Counts of distinct keys, column by column. Keys are not negative."""
    # Sorted with the label as last bit, equal keys form a run that opens with a negative if there is one.
    marked = np.sort(keys.T.astype(np.int64) * 2 + positive, axis=1)
    label = (marked & 1).astype(bool)
    changes = np.diff(marked >> 1, axis=1) != 0
    edge = np.ones((len(marked), 1), dtype=bool)
    opens, closes = np.hstack([edge, changes]), np.hstack([changes, edge])
    return CodeCounts((opens & label).sum(1), (closes & label).sum(1), (opens & ~label).sum(1))


class Occurrences(NamedTuple):
    """One row a head and code that it shows: on how many positives, on how many negatives."""

    head: Int[np.ndarray, "row"]
    code: Int[np.ndarray, "row"]
    positives: Int[np.ndarray, "row"]
    negatives: Int[np.ndarray, "row"]


def occurrences(codes: Int[np.ndarray, "example head"], positive: Bool[np.ndarray, "example"]) -> Occurrences:
    """Every code that a head shows on any example; heads are columns."""
    width = int(codes.max()) + 1
    keys = np.arange(codes.shape[1]) * width + codes
    counts = [np.bincount(keys[label].ravel(), minlength=keys.max() + 1) for label in (positive, ~positive)]
    shown = np.flatnonzero(np.add(*counts))
    return Occurrences(*divmod(shown, width), *(count[shown] for count in counts))


def node_scores(
    codes: Int[np.ndarray, "example head"], positive: Bool[np.ndarray, "example"], *, normalise: bool = False
) -> Float[np.ndarray, "head"]:
    """|P \\ N| for each head; with `normalise` divided by |P u N|."""
    counts = count_codes(codes, positive)
    return counts.exclusive / (counts.exclusive + counts.negative if normalise else 1.0)


def pair_scores(
    codes: Int[np.ndarray, "example head"], positive: Bool[np.ndarray, "example"], *, normalise: bool = False
) -> Float[np.ndarray, "head head"]:
    """The number of code pairs that two heads show together on positives and never on negatives.

    Symmetric, zero on the diagonal. With `normalise` divided by the sum (not the union) of the numbers of
    pairs on positives and on negatives, as published.
    """
    n_heads, width = codes.shape[1], int(codes.max()) + 1
    table = np.zeros((n_heads, n_heads))
    for head in range(n_heads - 1):
        counts = count_codes(codes[:, head, None] * width + codes[:, head + 1 :], positive)
        table[head, head + 1 :] = counts.exclusive / (counts.positive + counts.negative if normalise else 1.0)
    return table + table.T


def appearances(table: Float[np.ndarray, "head head"]) -> Float[np.ndarray, "head"]:
    """How often each head is among the first n_heads^2 / 2 endpoints of the ordered pairs, best pair first.

    The published ranking rule. Pairs that tie across the cut share what is left before it equally, which is
    the mean over every order in which they could be walked, so no head gains by its number.
    """
    n_heads = len(table)
    if n_heads < 2:
        return np.zeros(n_heads)
    off_diagonal = ~np.eye(n_heads, dtype=bool)
    entries = n_heads**2 // 2
    cut = np.sort(table[off_diagonal])[::-1][(entries - 1) // 2]
    above, tied = table > cut, (table == cut) & off_diagonal
    above &= off_diagonal
    share = (entries - 2 * above.sum()) / (2 * tied.sum())
    weight = above + share * tied
    return np.asarray(weight.sum(0) + weight.sum(1))


def pair_head_scores(
    codes: Int[np.ndarray, "example head"], positive: Bool[np.ndarray, "example"], *, normalise: bool = False
) -> Float[np.ndarray, "head"]:
    """Heads scored by their pairs: pair_scores, then appearances. Still a score of heads, not of edges."""
    return appearances(pair_scores(codes, positive, normalise=normalise))


def above_threshold(scores: Float[np.ndarray, "head"], threshold: float) -> Bool[np.ndarray, "head"]:
    """The published way to keep heads: those whose softmax over all heads is at or above `threshold`.

    The softmax keeps the order of the scores, so it changes no AUROC.
    """
    return np.asarray(softmax(scores) >= threshold)
