"""evaluation.md: the evaluation as a methods section; each figure with its interval, chance level and prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from circuits.evaluation.appraisal import Appraisal
from circuits.evaluation.completeness import CANDIDATES, STEPS, Completeness
from circuits.evaluation.curves import Curves
from circuits.evaluation.faithfulness import Baseline
from circuits.evaluation.hypotheses import EPSILON, PERMUTATIONS
from circuits.evaluation.minimality import ALPHA, QUANTILE, Minimality
from circuits.evaluation.run_evaluation import Judged
from circuits.evaluation.stability import BAR
from cli.evaluation_words import (
    REFUSED,
    completeness_words,
    curve_words,
    elsewhere_words,
    faithfulness_words,
    minimality_words,
    size_words,
    stability_words,
)
from cli.report.markdown import table
from cli.wording import baseline_line, estimate, number, p_value, unsolved_warning

MEMBERS = 20
"""Members of a circuit that the table of minimality shows; evaluation.json holds them all."""


def evaluation_report(
    record: Mapping[str, Any],
    before: tuple[tuple[str, Baseline], ...],
    judged: tuple[Judged, ...],
    model: str,
    pictures: tuple[str, ...],
) -> str:
    """The whole report as Markdown; `record` is what evaluation.json holds."""
    parts = [
        f"# Evaluation of {record['run']['name']}",
        *_models(model, before),
        *(f"![{_PICTURES[name]}]({name})" for name in pictures),
        *_methods_section(record, judged),
        *(line for entry in judged for line in _circuit(entry)),
        "## What these figures are not to be compared with",
        REFUSED,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_PICTURES = {
    "curve.png": "Faithfulness over sizes, with random rankings in grey",
    "stability.png": "How alike the circuits of other draws of the prompts are, with the bar of 0.8",
}


def _models(model: str, before: tuple[tuple[str, Baseline], ...]) -> Iterator[str]:
    for task, itself in before:
        yield baseline_line(model, task, itself)
        if warning := unsolved_warning(model, itself):
            yield f"**Warning.** {warning}"


def _methods_section(record: Mapping[str, Any], judged: tuple[Judged, ...]) -> Iterator[str]:
    """How every figure was made, in the words in which a paper would say it."""
    yield "## How the circuits were judged"
    first = judged[0].appraisals[0]
    yield (
        "A circuit runs alone on clean prompts; what it leaves out is replaced "
        f"({', '.join(record['asked']['ablations'])} ablation). The metric ({record['asked']['metric']}) is "
        "read on a scale from everything replaced (0) to nothing replaced (1): faithfulness is a ratio of "
        "means over prompts, and may pass 1 where the circuit leaves out what works against the behaviour. "
        "Brackets are 95% percentile bootstrap intervals over prompts; one draw of prompts serves all sizes "
        "of a curve."
    )
    if any(found.curves for entry in judged for found in entry.appraisals):
        yield (
            "Curves follow MIB: ten sizes from 0.1% to 100%, CPR the trapezoid area under faithfulness on a "
            "linear axis, CMD the area between faithfulness and 1. CPR takes the largest scores first, CMD "
            "the largest sizes of score. The axis is the share that was asked for; of edges, those on no "
            "path from the input to the logits are left out, and the share that is left is stated beside it."
        )
    if first.completeness:
        yield (
            "Completeness follows Wang et al. 2022: sets of members are knocked out of circuit and model "
            f"alike, random ones (each member with chance 1/2) and one grown greedily, {STEPS} steps of up "
            f"to {CANDIDATES} candidates; a complete circuit shows no gap. The greedy set is searched for on "
            "the prompts that it is stated on, so its gap errs on the large side."
        )
    if first.minimality or first.tests:
        yield (
            "Minimality and the tests follow Shi et al. 2024. A member is needless where its removal does "
            f"not move the metric more than the removal of a stranger does, for {QUANTILE:.0%} of the "
            "strangers that random paths bring into the circuit (binomial test, Bonferroni, level "
            f"{ALPHA:g}). Equivalence counts the prompts on which the circuit beats the model "
            f"({0.5 - EPSILON:.0%} to {0.5 + EPSILON:.0%} counts as equal); independence is a permutation "
            f"test on HSIC with {PERMUTATIONS} permutations; sufficiency and partial necessity hold the "
            "circuit against random ones of its size. A hypothesis that is not rejected is not thereby "
            "shown."
        )
    if any(entry.redrawn.stability for entry in judged):
        yield (
            "Stability: the scores of the discovery prompts are drawn again with replacement, each draw's "
            f"circuit takes as many as the run's has, and pairs of circuits are compared; {BAR:g} is the "
            "least that Meloux et al. 2025 ask for. Chance is the same rule on noise."
        )


def _circuit(entry: Judged) -> Iterator[str]:
    circuit = entry.recorded.circuit
    yield f"## {circuit.method}"
    yield f"The circuit keeps {size_words(entry)}, chosen by: {circuit.selection}."
    for found in entry.appraisals:
        if len(entry.appraisals) > 1:
            yield f"### {found.verdict.ablation} ablation"
        yield from _appraisal(found)
    for task, found in entry.elsewhere:
        yield elsewhere_words(task, found)
    if entry.elsewhere:
        yield _stated(entry.elsewhere[-1][1])
    yield stability_words(entry.redrawn)


def _appraisal(found: Appraisal) -> Iterator[str]:
    yield faithfulness_words(found)
    yield _stated(found)
    if found.curves:
        yield curve_words(found.curves)
        yield _curve_table(found.curves)
    if found.completeness:
        yield completeness_words(found.completeness)
        yield _knockouts(found.completeness)
    if found.minimality:
        yield minimality_words(found.minimality)
        yield _members(found.minimality)
    if found.tests:
        yield _tests(found)
        yield " ".join(test.words for test in found.tests)
        few = min(test.n_prompts for test in found.tests)
        if few < found.verdict.n_prompts:
            yield (
                f"Random circuits, knock-outs and strangers ran on the first {few} of the judged prompts; "
                "all else on all of them."
            )


def _stated(found: Appraisal) -> str:
    return (
        "; ".join(f"{name}: {value}" for name, value in found.stated(found.verdict.n_prompts).items()) + "."
    )


def _curve_table(curves: Curves) -> str:
    rows = [
        (
            f"{100 * signed.share:g}%",
            str(signed.n),
            f"{signed.actual:.1%}",
            estimate(signed.faithfulness),
            f"{absolute.actual:.1%}",
            estimate(absolute.faithfulness),
            f"{number(chance.mean)} ({number(chance.low)} to {number(chance.high)})",
        )
        for signed, absolute, chance in zip(
            curves.signed.points, curves.absolute.points, curves.random.points, strict=True
        )
    ]
    header = ("size", "n", "left", "largest scores first", "left", "largest sizes first", "random rankings")
    return table(header, rows)


def _knockouts(found: Completeness) -> str:
    last = found.greedy[-1:]
    rows = [
        (name, str(len(k.removed)), estimate(k.circuit), estimate(k.model), estimate(k.gap))
        for name, k in (
            ("nothing", found.nothing_removed),
            *((f"greedy, step {len(k.removed)}", k) for k in (*found.greedy[:1], *last)),
            ("the worst", found.worst),
        )
    ]
    return table(("knocked out", "members", "circuit", "model", "gap"), rows)


def _members(found: Minimality) -> str:
    weakest = sorted(found.members, key=lambda member: member.change.value)[:MEMBERS]
    rows = [
        (
            member.name,
            estimate(member.change, 3),
            f"{member.beats} of {found.n_inflated}",
            p_value(member.p_needless),
            p_value(member.p_needed),
            member.verdict,
        )
        for member in weakest
    ]
    header = (
        "member, weakest first",
        "change without it",
        "strangers beaten",
        "p needless",
        "p needed",
        "verdict",
    )
    return table(header, rows)


def _tests(found: Appraisal) -> str:
    rows = [
        (
            test.name,
            test.hypothesis,
            p_value(test.p_value),
            "rejected" if test.rejected else "not rejected",
            "for" if test.favourable else "against",
        )
        for test in found.tests
    ]
    return table(("test", "hypothesis", "p", "outcome", "speaks for or against the circuit"), rows)
