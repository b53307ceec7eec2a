"""Sentences on an evaluation that both the terminal and the report use, so that they never disagree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cli.wording import chance_words, estimate, number, p_value

if TYPE_CHECKING:
    from circuits.evaluation.appraisal import Appraisal
    from circuits.evaluation.completeness import Completeness, Knockout
    from circuits.evaluation.curves import Curves
    from circuits.evaluation.minimality import Minimality
    from circuits.evaluation.run_evaluation import Judged, Redrawn

REFUSED = (
    "Faithfulness under one ablation, granularity, component set, set of token positions, direction or "
    "prompt set is not faithfulness under another, so no figure here is set beside a published one that "
    "differs in any of the six: not beside the 87% of Wang et al. 2022 (heads at positions, mean ablation), "
    "not beside the 60 to 80% of Hanna et al. 2024 (edges, resample ablation), and neither of those beside "
    "a CPR, which is an area over sizes. CPR rewards what overshoots the model and is never given without "
    "CMD. Not compared either: areas under ROC curves across ablations, head numbers of models of different "
    "shape or size, SAE scores of different circuits, and overlaps without their chance level."
)


def what(judged: Judged) -> str:
    """edges, heads, or components."""
    if judged.recorded.edges:
        return "edges"
    return "components" if any(c[0] == "m" for c in judged.recorded.played) else "heads"


def size_words(judged: Judged) -> str:
    """11 of 36 components (31%)."""
    kept, total = len(judged.recorded.circuit.kept), len(judged.recorded.played)
    return f"{kept} of {total} {what(judged)} ({kept / total:.1%})"


def faithfulness_words(found: Appraisal) -> str:
    verdict = found.verdict
    return (
        f"Faithfulness {estimate(verdict.faithfulness)} under {verdict.ablation} ablation (metric "
        f"{number(verdict.circuit)}; {number(verdict.everything)} with everything kept, "
        f"{number(verdict.nothing)} with nothing), {chance_words(verdict)}."
    )


def curve_words(curves: Curves) -> str:
    random = curves.random
    return (
        f"Over ten sizes: CPR {estimate(curves.cpr)} (largest scores first; random rankings "
        f"{number(random.cpr.mean)}, {number(random.cpr.low)} to {number(random.cpr.high)}), CMD "
        f"{estimate(curves.cmd)} (largest sizes first, 0 is best; random {number(random.cmd.mean)}). By the "
        f"other order: CPR {estimate(curves.absolute.cpr)}, CMD {estimate(curves.signed.cmd)}."
    )


def completeness_words(found: Completeness) -> str:
    return (
        f"Completeness: without {len(found.random)} random halves of its members the circuit is "
        f"{estimate(found.mean_gap)} away from the model without the same, on average; {_worst(found.worst)}"
    )


def _worst(worst: Knockout) -> str:
    if not worst.removed:
        return f"no knock-out opens a wider gap than none at all ({estimate(worst.gap)})."
    return (
        f"the worst that was found, without {some(worst.removed)}: circuit {number(worst.circuit.value)}, "
        f"model {number(worst.model.value)} (gap {estimate(worst.gap)})."
    )


def minimality_words(found: Minimality | None) -> str:
    if found is None:
        return "Minimality: no strangers can be added to the circuit, so it cannot be tested."
    needless = found.named("needless")
    tail = f": {some(needless)}" if needless else ""
    return (
        f"Minimality: of {len(found.members)} members {len(found.named('needed'))} are shown to be needed, "
        f"{len(found.named('undecided'))} are undecided, {len(needless)} are needless{tail} (against "
        f"{found.n_inflated} strangers on random paths, Bonferroni)."
    )


def stability_words(redrawn: Redrawn) -> str:
    found = redrawn.stability
    if found is None:
        return f"Stability is not known: {redrawn.note}."
    from circuits.evaluation.stability import BAR

    side = "above" if found.stable else "below"
    return (
        f"Stability: circuits of {found.size} from {found.n_resamples} draws of {found.n_samples} "
        f"{found.unit}s share a Jaccard of {number(found.jaccard)} on average (95% of pairs "
        f"{number(found.low)} to {number(found.high)}), {side} the bar of {BAR:g}; noise gives "
        f"{number(found.chance)}."
    )


def elsewhere_words(task: str, found: Appraisal) -> str:
    verdict = found.verdict
    return (
        f"On {task} ({verdict.n_prompts} prompts): faithfulness {estimate(verdict.faithfulness)} under "
        f"{verdict.ablation} ablation, {chance_words(verdict)}."
    )


def test_lines(found: Appraisal) -> Iterator[str]:
    """A sentence a hypothesis test."""
    for test in found.tests:
        yield f"{test.name.capitalize()} (p {p_value(test.p_value)}): {test.words}"


def some(names: tuple[str, ...], most: int = 6) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
