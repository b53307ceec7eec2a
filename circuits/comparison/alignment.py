"""Alignment: which head of one model is which head of another, where their names mean nothing to each other.

The one idea: a head is known by what it looks at and writes (its role scores), by what it does for the task (its
effect on each of the same prompts) and by where it sits (its relative depth). Likeness is the mean of these three
parts, and the best one-to-one matching is found exactly (Hungarian algorithm; Crouse 2016, as in scipy). No torch
here, no model.

A best matching always looks good: out of many heads some go together. So it is held against matchings of models
whose heads swapped their effects within each layer: the same roles and the same effects are there at the same depths,
but whose role goes with which effects is chance. What is left above that is what makes heads the same heads. Shuffles
across layers would not do: in any transformer early heads have other effects than late ones, so that independent
random models would seem alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from circuits.comparison.structured_null import permutation_pvalue, shuffles
from circuits.errors import CircuitError
from circuits.statistics import resample_weights

PERMUTATIONS = 499
REDRAWS = 200
SURE = 0.9
"""Share of redraws of the prompts in which a head keeps its partner, from which on a pair counts as sure."""
NOTHING = 0.01
"""An effect of this share of the behaviour counts as little: heads that both have less are alike in doing nothing."""

Part = Literal["roles", "effects", "depth"]
PARTS: tuple[Part, ...] = get_args(Part)
Similarity = Float[np.ndarray, "first second"]


@dataclass(frozen=True)
class HeadProfiles:
    """What is known of every head of one model. roles: names of the rows of role_scores, each score in [0, 1].

    effects: what patching the head takes off the metric on each prompt, as a share of the whole difference between
    clean and corrupt prompts (root mean square).
    """

    heads: tuple[str, ...]
    layers: Int[np.ndarray, " head"]
    n_layers: int
    roles: tuple[str, ...]
    role_scores: Float[np.ndarray, "role head"]
    effects: Float[np.ndarray, "prompt head"]

    @property
    def depth(self) -> Float[np.ndarray, " head"]:
        """0 in the first layer, 1 in the last."""
        return np.asarray(self.layers / max(self.n_layers - 1, 1))

    def of_roles(self, names: Iterable[str]) -> HeadProfiles:
        """With these roles alone."""
        kept = tuple(names)
        rows = self.role_scores[[self.roles.index(name) for name in kept]]
        return HeadProfiles(self.heads, self.layers, self.n_layers, kept, rows, self.effects)


@dataclass(frozen=True)
class Pair:
    """Two heads that are matched. similarity: the mean of its three parts.

    correlation: of the two heads' effects over prompts, None where one of them is constant. margin: similarity beyond
    the largest that either has with any other head; below zero where the partner was given away. stability: share of
    redraws of the prompts in which these two are matched.
    """

    first: str
    second: str
    similarity: float
    roles: float
    effects: float
    depth: float
    correlation: float | None
    margin: float
    stability: float


@dataclass(frozen=True)
class Alignment:
    """A matching of heads, in the order of the first model's. roles: those that both models were scored on.

    similarity: mean over pairs. chance, low, high: its mean and 95% where the heads of either model swap their
    effects within layers; p_value: one-sided.
    """

    pairs: tuple[Pair, ...]
    unmatched_first: tuple[str, ...]
    unmatched_second: tuple[str, ...]
    roles: tuple[str, ...]
    n_prompts: int
    similarity: float
    chance: float
    low: float
    high: float
    p_value: float

    @property
    def matched(self) -> tuple[tuple[str, str], ...]:
        return tuple((pair.first, pair.second) for pair in self.pairs)

    @property
    def sure(self) -> int:
        """How many pairs return in nearly all redraws of the prompts."""
        return sum(pair.stability >= SURE for pair in self.pairs)


def align(first: HeadProfiles, second: HeadProfiles, seed: int = 0) -> Alignment:
    """The matching of greatest mean similarity, and how far to trust it.

    Raises CircuitError where the profiles are not of the same prompts, or no role was scored in both models.
    """
    first, second = _comparable(first, second)
    parts = part_similarities(first, second)
    whole = combined(parts)
    rows, columns = matching(whole)
    observed = float(whole[rows, columns].mean())
    chance = _chance(parts, (first.layers, second.layers), seed)
    stable = _stability(first, second, parts, (rows, columns), seed)
    low, high = np.quantile(chance, [0.025, 0.975]).tolist()
    return Alignment(
        tuple(_pairs(first, second, parts, (rows, columns), stable)),
        _others(first.heads, rows),
        _others(second.heads, columns),
        first.roles,
        len(first.effects),
        observed,
        float(chance.mean()),
        low,
        high,
        permutation_pvalue(observed, chance),
    )


def matched_without_effects(first: HeadProfiles, second: HeadProfiles) -> tuple[tuple[str, str], ...]:
    """The matching by roles and depth alone: it knows nothing of the task that circuits were found on."""
    first, second = _comparable(first, second)
    parts = part_similarities(first, second)
    rows, columns = matching((parts["roles"] + parts["depth"]) / 2)
    return tuple(zip(_named(first.heads, rows), _named(second.heads, columns), strict=True))


def part_similarities(first: HeadProfiles, second: HeadProfiles) -> dict[Part, Similarity]:
    """Every head of the first beside every head of the second.

    roles: 1 - the Euclidean distance of role scores, but not below 0. effects: see effect_agreement. depth: 1 - the
    distance of relative depths.
    """
    apart = first.role_scores[:, :, None] - second.role_scores[:, None, :]
    return {
        "roles": np.maximum(1 - np.sqrt((apart**2).sum(0)), 0.0),
        "effects": effect_agreement(first.effects, second.effects),
        "depth": 1 - np.abs(first.depth[:, None] - second.depth[None, :]),
    }


def effect_agreement(
    first: Float[np.ndarray, "prompt first"],
    second: Float[np.ndarray, "prompt second"],
    weights: Float[np.ndarray, " prompt"] | None = None,
) -> Similarity:
    """The identity coefficient 2 <xy> / (<xx> + <yy>) of effects, means over prompts (Zegers and ten Berge 1985).

    1 where two heads have the same effect on every prompt, lower where sizes or prompts differ, negative where one
    supports what the other opposes. `NOTHING` squared is added above and below, so that two heads without effects
    are alike.
    """
    w = np.full(len(first), 1 / len(first)) if weights is None else weights
    both = 2 * (first * w[:, None]).T @ second
    sizes = (w @ first**2)[:, None] + (w @ second**2)[None, :]
    return np.asarray((both + NOTHING**2) / (sizes + NOTHING**2))


def combined(parts: dict[Part, Similarity]) -> Similarity:
    return np.asarray(sum(parts[name] for name in PARTS) / len(PARTS))


def matching(similarity: Similarity) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Rows and columns of the one-to-one matching whose sum is greatest, in the order of rows."""
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return np.asarray(rows), np.asarray(columns)


def _comparable(first: HeadProfiles, second: HeadProfiles) -> tuple[HeadProfiles, HeadProfiles]:
    if len(first.effects) != len(second.effects):
        raise CircuitError(
            f"Effects on {len(first.effects)} and on {len(second.effects)} prompts: heads are aligned on the same "
            "ones."
        )
    both = [name for name in first.roles if name in second.roles]
    if not both:
        raise CircuitError(
            "No role was scored in both models, so their heads cannot be aligned by behaviour."
        )
    return first.of_roles(both), second.of_roles(both)


def _chance(
    parts: dict[Part, Similarity],
    layers: tuple[Int[np.ndarray, " first"], Int[np.ndarray, " second"]],
    seed: int,
) -> Float[np.ndarray, " draw"]:
    """Mean similarity of the best matching for every draw of the null."""
    firsts, seconds = (
        np.concatenate(list(shuffles(of, PERMUTATIONS, seed + i))) for i, of in enumerate(layers)
    )
    found = []
    for rows, columns in zip(firsts, seconds, strict=True):
        drawn = combined(parts | {"effects": parts["effects"][np.ix_(rows, columns)]})
        found.append(float(drawn[matching(drawn)].mean()))
    return np.array(found)


def _stability(
    first: HeadProfiles,
    second: HeadProfiles,
    parts: dict[Part, Similarity],
    matched: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> Float[np.ndarray, " pair"]:
    """Share of redraws of the prompts in which each pair is matched again; roles stay as they are."""
    again = np.zeros(len(matched[0]))
    draws = resample_weights(len(first.effects), REDRAWS, seed)
    for weights in draws:
        effects = effect_agreement(first.effects, second.effects, weights)
        rows, columns = matching(combined(parts | {"effects": effects}))
        partner = np.full(len(first.heads), -1)
        partner[rows] = columns
        again += partner[matched[0]] == matched[1]
    return np.asarray(again / len(draws))


def _pairs(
    first: HeadProfiles,
    second: HeadProfiles,
    parts: dict[Part, Similarity],
    matched: tuple[np.ndarray, np.ndarray],
    stable: Float[np.ndarray, " pair"],
) -> Iterable[Pair]:
    whole = combined(parts)
    margins = _margins(whole)
    for row, column, stability in zip(*(x.tolist() for x in (*matched, stable)), strict=True):
        yield Pair(
            first.heads[row],
            second.heads[column],
            float(whole[row, column]),
            **{name: float(parts[name][row, column]) for name in PARTS},
            correlation=_correlation(first.effects[:, row], second.effects[:, column]),
            margin=float(margins[row, column]),
            stability=stability,
        )


def _margins(whole: Similarity) -> Similarity:
    """How far each entry lies above the largest other one of its row and column."""
    return np.asarray(whole - np.maximum(_largest_other(whole), _largest_other(whole.T).T))


def _largest_other(table: Similarity) -> Similarity:
    """The largest of the row without the entry itself; minus infinity where there is no other."""
    if table.shape[1] == 1:
        return np.full(table.shape, -np.inf)
    order = np.argsort(-table, axis=1, kind="stable")
    rows = np.arange(len(table))
    best = np.repeat(table[rows, order[:, 0]][:, None], table.shape[1], axis=1)
    best[rows, order[:, 0]] = table[rows, order[:, 1]]
    return best


def _correlation(x: Float[np.ndarray, " prompt"], y: Float[np.ndarray, " prompt"]) -> float | None:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _named(heads: tuple[str, ...], places: Int[np.ndarray, " pair"]) -> list[str]:
    return [heads[place] for place in places.tolist()]


def _others(heads: tuple[str, ...], places: Int[np.ndarray, " pair"]) -> tuple[str, ...]:
    taken = set(places.tolist())
    return tuple(head for place, head in enumerate(heads) if place not in taken)
