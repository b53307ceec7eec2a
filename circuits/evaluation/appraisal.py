"""Appraisal: everything that is asked of one circuit under one ablation.

The one idea: a circuit is believed for what it withstands. Faithfulness with chance beside it, the curve of its
ranking over sizes, completeness, minimality, hypothesis tests; each states the prompts that it ran on. What needs
many random circuits runs on the first of the prompts, the circuit's own figures on all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circuits.circuit import Circuit
from circuits.errors import CircuitError
from circuits.evaluation.completeness import Completeness, completeness
from circuits.evaluation.curves import Curves, curves
from circuits.evaluation.faithfulness import Bench, Verdict, judge, require_finite, six_things
from circuits.evaluation.hypotheses import HypothesisTest, hypothesis_tests
from circuits.evaluation.minimality import Minimality, minimality
from circuits.progress import Progress, silent
from circuits.scores import Scores
from circuits.statistics import bootstrap_interval

FEW = 32
"""Prompts that hundreds of circuits run on: more would say little more of means that are held side by side."""

PARTS = ("curve", "completeness", "minimality", "tests")


@dataclass(frozen=True)
class Appraisal:
    """A circuit under one ablation; None (or empty) for what was left out.

    prompts: the prompt set in words; total: how many components or edges a circuit may leave out.
    settings: five of the six things that make figures comparable; the sixth is how many prompts, see stated.
    """

    verdict: Verdict
    prompts: str
    total: int
    settings: Mapping[str, str]
    curves: Curves | None = None
    completeness: Completeness | None = None
    minimality: Minimality | None = None
    tests: tuple[HypothesisTest, ...] = ()

    def stated(self, n_prompts: int) -> dict[str, str]:
        """All six things, for a figure on the first n_prompts."""
        first = "" if n_prompts == self.verdict.n_prompts else f"the first {n_prompts} of "
        return {**self.settings, "prompt set": f"{first}{self.verdict.n_prompts} {self.prompts}"}


def appraise(
    at: Bench,
    circuit: Circuit,
    scores: Scores | None,
    *,
    prompts: str,
    seed: int,
    skip: Collection[str] = (),
    progress: Progress = silent,
) -> Appraisal:
    """Every part that is not skipped; see require_numbers and require_difference for what should be asked before."""
    few = at.first(FEW).remembering()

    def part(name: str) -> Progress:
        return lambda what, done, total: progress(f"{circuit.method}, {name}: {what}", done, total)

    verdict = judge(at, circuit, seed=seed, progress=part("faithfulness"))
    wanted = {name: name not in skip for name in PARTS}
    return Appraisal(
        verdict,
        prompts,
        len(at.played),
        six_things(verdict, at.played, at.model.graph, ""),
        curves(at, scores, seed=seed, chance=few, progress=part("curve"))
        if wanted["curve"] and scores is not None
        else None,
        completeness(few, circuit, seed=seed, progress=part("completeness"))
        if wanted["completeness"]
        else None,
        minimality(few, circuit, seed=seed, progress=part("minimality")) if wanted["minimality"] else None,
        hypothesis_tests(at, few, circuit, seed=seed, progress=part("tests")) if wanted["tests"] else (),
    )


def require_numbers(at: Bench, circuit: Circuit, names: Sequence[str]) -> None:
    """Raises CircuitError naming the first prompt on which the metric of either end, or of the circuit, is no
    finite number. names: of each prompt, in the order of the prompt set."""
    metric = np.concatenate([at.ends.metric.numpy(), at.outcome([circuit.kept]).metric.numpy()])
    for what, row in zip(("all replaced", "all kept", "the circuit alone"), metric, strict=True):
        require_finite(row, names, f"with {what} ({at.ablation} ablation)")


def require_difference(at: Bench, prompts: str, seed: int) -> None:
    """Raises CircuitError where everything kept may do no better than nothing kept, for all that the prompts say."""
    nothing, everything = at.ends.metric.double().numpy()
    low, high = bootstrap_interval(everything - nothing, seed=seed)
    if low <= 0 <= high:
        raise CircuitError(
            f"On {prompts} the metric is {everything.mean():.3g} with all kept and {nothing.mean():.3g} with all "
            f"replaced ({at.ablation} ablation), which may be no difference at all: faithfulness is undefined. "
            "Choose other prompts, another task or another --ablation."
        )
