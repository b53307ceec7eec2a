"""Selection: from scores to a circuit, by one of four rules.

    smallest      the shortest prefix of the ranking that is faithful enough on the discovery prompts
    top           the n components with the largest scores
    threshold     all components whose score is at least a share of the largest one
    significance  all components whose mean differs from 0 (sign-flip permutation, corrected for many tests)

Size of score counts, not its sign: a component that works against the behaviour belongs to its circuit.
Prefixes are nested, so top n lies in top n + 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from circuits.circuit import Circuit
from circuits.errors import CircuitError
from circuits.scores import Scores
from circuits.statistics import adjust_pvalues, sign_flip_pvalues

MOST_PERMUTATIONS = 500_000
"""Some seconds of work; past it, a level so low for so many components finds nothing significant."""


class Selection(BaseModel):
    """How a circuit is chosen. Shares are of the components that the method scores, or of the largest score."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rule: Literal["smallest", "top", "threshold", "significance"] = "smallest"
    n: int = Field(10, ge=1, description="top: how many components")
    share: float = Field(0.1, gt=0, le=1, description="threshold: least share of the largest score")
    target: float = Field(0.9, gt=0, description="smallest: faithfulness to reach on the discovery prompts")
    most: float = Field(0.4, gt=0, le=1, description="smallest: largest share of components to keep")
    alpha: float = Field(0.05, gt=0, lt=1, description="significance: level after correction")
    correction: Literal["holm", "bonferroni", "benjamini-hochberg"] = "holm"


Faithfulness = Callable[[Sequence[Sequence[str]]], Sequence[float]]
"""Circuits (as node names) -> faithfulness of each on the discovery prompts."""


@dataclass(frozen=True)
class Choice:
    """The circuit, whether the rule got what it was asked for, and what it saw on the way."""

    circuit: Circuit
    reached: bool = True
    note: str = ""
    curve: tuple[float, ...] = field(default=())


def select(scores: Scores, selection: Selection, *, seed: int, faithfulness: Faithfulness) -> Choice:
    """The circuit of `scores` under `selection`; `faithfulness` is called by the rule "smallest" alone.

    Raises CircuitError where more components are asked for than there are.
    """
    return {"smallest": _smallest, "top": _top, "threshold": _threshold, "significance": _significance}[
        selection.rule
    ](scores, selection, seed, faithfulness)


def _circuit(scores: Scores, kept: Sequence[str], rule: str) -> Circuit:
    wanted = set(kept)
    return Circuit(tuple(c for c in scores.components if c in wanted), scores.method, rule)


def _top(scores: Scores, selection: Selection, seed: int, faithfulness: Faithfulness) -> Choice:
    if selection.n > len(scores.components):
        raise CircuitError(
            f"--top {selection.n} asks for more components than {scores.method} scores ({len(scores.components)})."
        )
    return Choice(_circuit(scores, scores.ranking()[: selection.n], f"top {selection.n} by size of score"))


def _threshold(scores: Scores, selection: Selection, seed: int, faithfulness: Faithfulness) -> Choice:
    size = np.abs(scores.values)
    kept = [
        c for c, s in zip(scores.components, size, strict=True) if s > 0 and s >= selection.share * size.max()
    ]
    return Choice(_circuit(scores, kept, f"at least {selection.share:.0%} of the largest score"), bool(kept))


def _significance(scores: Scores, selection: Selection, seed: int, faithfulness: Faithfulness) -> Choice:
    if scores.unit != "prompt":
        raise CircuitError(
            f"{scores.method} has no score for each prompt, so significance cannot be tested. "
            "Select by --top, by --threshold, or by --smallest."
        )
    permutations = _permutations(len(scores.components), selection.alpha)
    flipped = sign_flip_pvalues(scores.samples, permutations=permutations, seed=seed)
    p = adjust_pvalues(flipped, selection.correction)
    kept = [c for c, value in zip(scores.components, p, strict=True) if value <= selection.alpha]
    rule = f"sign-flip permutation, {selection.correction} at {selection.alpha:g}"
    return Choice(_circuit(scores, kept, rule), bool(kept), "" if kept else "no component is significant")


def _permutations(n_components: int, alpha: float) -> int:
    """Enough for the smallest possible p-value to stay below alpha once corrected, within reason."""
    return min(max(5000, math.ceil(2 * n_components / alpha)), MOST_PERMUTATIONS)


def _smallest(scores: Scores, selection: Selection, seed: int, faithfulness: Faithfulness) -> Choice:
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
