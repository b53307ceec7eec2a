"""What a method's scores are worth beside its controls: AUROC against known circuits, and a plain verdict.

The one idea: an AUROC is a claim only if a control that knows less does not reach it. Known circuits judge
here and never take part in scoring; where there are none, the controls still say whether the ranking is
something that they give as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from circuits.statistics import Best, auroc, best_balanced_harmonic_score, best_f1, rank_correlation

Samples = Mapping[str, Float[np.ndarray, "trial head"]]
"""Name of a score -> its values by trial; a single row where nothing is drawn at random."""

CLOSE = 0.9
"""A rank correlation from which two rankings are called nearly the same."""


@dataclass(frozen=True)
class Area:
    """AUROC over trials: mean, standard deviation (0 for one trial), and each trial's own."""

    mean: float
    sd: float
    trials: tuple[float, ...]


@dataclass(frozen=True)
class Judgement:
    """Scores against one reference circuit.

    found, missing: heads of the reference that the model has, and those that it lacks.
    levels, controls: the AUROC of every score; empty where the reference holds no head of the model or all.
    best_f1, best_balanced_harmonic_score: of each level's mean score, over all thresholds, so optimistic.
    """

    found: int
    missing: int
    levels: Mapping[str, Area]
    controls: Mapping[str, Area]
    best_f1: Mapping[str, Best | None]
    best_balanced_harmonic_score: Mapping[str, Best | None]


def _area(samples: Float[np.ndarray, "trial head"], positives: Bool[np.ndarray, "head"]) -> Area | None:
    values = [a for row in samples if (a := auroc(row, positives)) is not None]
    if not values:
        return None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Area(float(np.mean(values)), sd, tuple(values))


def _areas(samples: Samples, positives: Bool[np.ndarray, "head"]) -> dict[str, Area]:
    return {name: area for name, rows in samples.items() if (area := _area(rows, positives)) is not None}


def judge(
    heads: tuple[str, ...], levels: Samples, controls: Samples, references: Mapping[str, Collection[str]]
) -> dict[str, Judgement]:
    """Reference name -> how well each score finds its heads among `heads`."""
    result = {}
    for name, wanted in references.items():
        positives = np.array([head in wanted for head in heads])
        result[name] = Judgement(
            found=int(positives.sum()),
            missing=len(set(wanted) - set(heads)),
            levels=_areas(levels, positives),
            controls=_areas(controls, positives),
            best_f1={level: best_f1(rows.mean(0), positives) for level, rows in levels.items()},
            best_balanced_harmonic_score={
                level: best_balanced_harmonic_score(rows.mean(0), positives) for level, rows in levels.items()
            },
        )
    return result


def agreement(samples: Float[np.ndarray, "trial head"], controls: Samples) -> dict[str, float | None]:
    """Spearman's correlation of the mean score with each control's; None where one of them is constant."""
    found = {name: rank_correlation(samples.mean(0), rows.mean(0)) for name, rows in controls.items()}
    return {name: None if correlation is None else correlation.rho for name, correlation in found.items()}


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {values[name]:.2f}" for name in sorted(values, key=lambda n: -values[n]))


def _against_reference(name: str, ours: Area, controls: Mapping[str, Area]) -> str:
    line = f"{name}: AUROC {ours.mean:.2f} (sd {ours.sd:.2f}, {len(ours.trials)} trials)."
    equal = {rival: area.mean for rival, area in controls.items() if area.mean >= ours.mean - ours.sd}
    if not equal:
        return f"{line} No control comes within one sd of it."
    reached = _listed(equal)
    return f"{line} No evidence for the method: controls do as well (within one sd) or better, {reached}."


def verdict(level: str, judged: Mapping[str, Judgement], agreements: Mapping[str, float | None]) -> list[str]:
    """In plain words, a line for each reference, whether a control does as well as the scores of `level`.

    Without any reference that can judge: which controls rank the heads nearly the same way.
    """
    usable = {name: result for name, result in judged.items() if level in result.levels}
    if usable:
        return [_against_reference(name, r.levels[level], r.controls) for name, r in usable.items()]
    close = {name: rho for name, rho in agreements.items() if rho is not None and rho >= CLOSE}
    rivals = f"these controls do: {_listed(close)}" if close else "no control does"
    return [f"No reference circuit to judge by. Ranking the heads alike (Spearman >= {CLOSE}): {rivals}."]
