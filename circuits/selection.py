"""Selection: from scores to a circuit, by one of five rules.

    pruned        from the weakest score up, leave out whatever the discovery prompts do not need
    smallest      the shortest prefix of the ranking that is faithful enough on the discovery prompts
    top           the n components with the largest scores
    threshold     all components whose score is at least a share of the largest one
    significance  all components whose mean differs from 0 (sign-flip permutation, corrected for many tests)

Size of score counts, not its sign: a component that works against the behaviour belongs to its circuit.
Prefixes are nested, so top n lies in top n + 1. Pruning is what ACDC does to edges (Conmy et al. 2023, arXiv
2304.14997), done to components in the order of their scores; it sees what single scores miss, such as a
component that matters only beside another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from circuits.circuit import Circuit
from circuits.errors import CircuitError
from circuits.progress import Progress, silent
from circuits.scores import Scores
from circuits.statistics import adjust_pvalues, sign_flip_pvalues

AT_ONCE = 8
"""Steps of pruning that are asked at once while they go well."""

MOST_PERMUTATIONS = 500_000
"""Some seconds of work; past it, a level so low for so many components finds nothing significant."""


class Selection(BaseModel):
    """How a circuit is chosen. Shares are of the components that the method scores, or of the largest score."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rule: Literal["pruned", "smallest", "top", "threshold", "significance"] = "pruned"
    n: int = Field(10, ge=1, description="top: how many components")
    share: float = Field(0.1, gt=0, le=1, description="threshold: least share of the largest score")
    target: float = Field(0.9, gt=0, description="pruned, smallest: faithfulness on the discovery prompts")
    most: float = Field(
        0.4, gt=0, le=1, description="share of the components above which a circuit is not small"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="significance: level after correction")
    correction: Literal["holm", "bonferroni", "benjamini-hochberg"] = "holm"


Faithfulness = Callable[[Sequence[Sequence[str]]], Sequence[float]]
"""Circuits (as node names) -> faithfulness of each on the discovery prompts."""


@dataclass(frozen=True)
class Choice:
    """The circuit, whether the rule got what it was asked for, and what it saw on the way.

    curve: faithfulness of every prefix of the ranking that was tried. prefix: the first that reached the target.
    """

    circuit: Circuit
    reached: bool = True
    note: str = ""
    curve: tuple[float, ...] = ()
    prefix: int | None = None


def select(
    scores: Scores,
    selection: Selection,
    *,
    seed: int,
    faithfulness: Faithfulness,
    progress: Progress = silent,
) -> Choice:
    """The circuit of `scores` under `selection`; `faithfulness` is asked by "pruned" and "smallest".

    Raises CircuitError for scores that the rule does not fit, see check.
    """
    check(selection, scores.method, len(scores.components), scores.unit)
    if selection.rule == "pruned":
        return _pruned(scores, selection, faithfulness, progress)
    if selection.rule == "smallest":
        return _smallest(scores, selection, faithfulness)
    if selection.rule == "significance":
        return _significance(scores, selection, seed)
    return (_top if selection.rule == "top" else _threshold)(scores, selection)


def check(selection: Selection, method: str, n_components: int, unit: str) -> None:
    """Raises CircuitError where more components are asked for than `method` scores, or a test it has no data for."""
    if selection.rule == "top" and selection.n > n_components:
        raise CircuitError(
            f"--top {selection.n} asks for more components than {method} scores ({n_components})."
        )
    if selection.rule == "significance" and unit != "prompt":
        raise CircuitError(
            f"{method} has no score for each prompt, so significance cannot be tested. "
            "Select by --top, by --threshold, or by --smallest."
        )


def _circuit(scores: Scores, kept: Sequence[str], rule: str) -> Circuit:
    wanted = set(kept)
    return Circuit(tuple(c for c in scores.components if c in wanted), scores.method, rule)


def _top(scores: Scores, selection: Selection) -> Choice:
    return Choice(_circuit(scores, scores.ranking()[: selection.n], f"top {selection.n} by size of score"))


def _threshold(scores: Scores, selection: Selection) -> Choice:
    size = np.abs(scores.values)
    kept = [
        c for c, s in zip(scores.components, size, strict=True) if s > 0 and s >= selection.share * size.max()
    ]
    return Choice(_circuit(scores, kept, f"at least {selection.share:.0%} of the largest score"), bool(kept))


def _significance(scores: Scores, selection: Selection, seed: int) -> Choice:
    permutations = n_permutations(len(scores.components), selection.alpha)
    flipped = sign_flip_pvalues(scores.samples, permutations=permutations, seed=seed)
    p = adjust_pvalues(flipped, selection.correction)
    kept = [c for c, value in zip(scores.components, p, strict=True) if value <= selection.alpha]
    rule = f"sign-flip permutation, {selection.correction} at {selection.alpha:g}"
    return Choice(_circuit(scores, kept, rule), bool(kept), "" if kept else "no component is significant")


def n_permutations(n_components: int, alpha: float) -> int:
    """Enough for the smallest possible p-value to stay below alpha once corrected, within reason."""
    return min(max(5000, math.ceil(2 * n_components / alpha)), MOST_PERMUTATIONS)


def _smallest(scores: Scores, selection: Selection, faithfulness: Faithfulness) -> Choice:
    ranking = scores.ranking()
    most = max(1, int(selection.most * len(ranking)))
    curve = tuple(faithfulness([ranking[:n] for n in range(1, most + 1)]))
    good = [n for n, value in enumerate(curve, start=1) if value >= selection.target]
    n = good[0] if good else int(np.argmax(curve)) + 1
    rule = (
        f"shortest prefix of the ranking with faithfulness >= {selection.target:g} on the discovery prompts"
    )
    if good:
        return Choice(_circuit(scores, ranking[:n], rule), True, "", curve)
    best = round(curve[n - 1], 2) + 0.0
    note = f"no prefix of up to {most} components reaches {selection.target:g}; the best ({best:.2f}) is kept"
    return Choice(_circuit(scores, ranking[:n], rule), False, note, curve)


def _pruned(scores: Scores, selection: Selection, faithfulness: Faithfulness, progress: Progress) -> Choice:
    """Starts from the shortest faithful prefix, then tries to do without each of its components, weakest first."""
    ranking = scores.ranking()
    curve = tuple(faithfulness([ranking[:n] for n in range(1, len(ranking) + 1)]))
    start = next((n for n, value in enumerate(curve, start=1) if value >= selection.target), len(ranking))
    kept = _without_needless(ranking[:start], selection.target, faithfulness, progress)
    rule = (
        f"pruned from the weakest score up while faithfulness is >= {selection.target:g} on discovery prompts"
    )
    reached = curve[start - 1] >= selection.target
    return Choice(_circuit(scores, kept, rule), reached, _spread(len(kept), selection, curve), curve, start)


def _without_needless(
    ranking: Sequence[str], target: float, faithfulness: Faithfulness, progress: Progress
) -> list[str]:
    """Leaves out one component after another, weakest first, whenever the rest stays faithful enough.

    While it goes well, several steps are asked at once, each as if those before it had gone well; the outcome is
    that of one at a time, for up to the first that fails the question was the right one.
    """
    kept, waiting, at_once = list(ranking), list(reversed(ranking)), 1
    while waiting and len(kept) > 1:
        steps = waiting[: min(at_once, len(kept) - 1)]
        rests = [[c for c in kept if c not in steps[: n + 1]] for n in range(len(steps))]
        failed = [n for n, value in enumerate(faithfulness(rests)) if value < target]
        good = failed[0] if failed else len(steps)
        kept = rests[good - 1] if good else kept
        waiting = waiting[good + bool(failed) :]
        at_once = 1 if failed else min(2 * at_once, AT_ONCE)
        progress("pruning", len(ranking) - len(waiting), len(ranking))
    return kept


def _spread(kept: int, selection: Selection, curve: Sequence[float]) -> str:
    """Why there is no small circuit, where there is none: the work is spread over many components."""
    most = max(1, int(selection.most * len(curve)))
    if kept <= most:
        return ""
    best = round(max(curve[:most]), 2) + 0.0
    return (
        f"no small circuit: the behaviour is spread over {kept} of {len(curve)} components, and no prefix of up to "
        f"{most} of them ({selection.most:.0%}) passes {best:.2f} on the discovery prompts"
    )
