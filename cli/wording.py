"""Sentences that both the terminal and the report use, so that they never disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.audit import Agreement, Audit
    from circuits.comparison.gates import Gate
    from circuits.discovery import Discovery, Finding
    from circuits.evaluation.faithfulness import Baseline, Estimate, Verdict
    from circuits.missed import Missed


def number(value: float, digits: int = 2) -> str:
    """A rounded number that is never minus zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def p_value(p: float) -> str:
    """0.012, or < 0.001."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _equals(p: float) -> str:
    return f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def estimate(value: Estimate, digits: int = 2) -> str:
    """0.93 [0.91, 0.95]."""
    shown = (number(x, digits) for x in (value.value, value.low, value.high))
    return "{} [{}, {}]".format(*shown)


def share(value: Estimate) -> str:
    """93% [91%, 95%]."""
    return f"{value.value:.1%} [{value.low:.1%}, {value.high:.1%}]"


def baseline_line(model: str, task: str, before: Baseline, prompts: str = "") -> str:
    """How the model itself does, before anything is patched. prompts: what is to be said of them first."""
    return (
        f"{model} on {task}: {prompts}prefers the answer on {share(before.preferred)} of {before.n_prompts} judged "
        f"prompts, says it first on {share(before.correct)}; metric {estimate(before.metric_clean)} clean, "
        f"{estimate(before.metric_corrupt)} corrupt."
    )


def unsolved_warning(model: str, before: Baseline) -> str:
    """Empty where the model prefers answers clearly more often than not."""
    if before.solves:
        return ""
    return (
        f"{model} does not solve this task: it prefers the answer on {share(before.preferred)} of the prompts, where "
        "a coin gives 50%. Whatever is found below is no circuit for the task."
    )


def rounding_words(found: Discovery) -> str:
    """What half precision does to the effects; empty for fp32."""
    if (rounding := found.rounding) is None:
        return ""
    effect = f"a median effect of one component on one prompt is {rounding.effect:.2g}"
    if rounding.gap is None:
        return (
            f"In {rounding.dtype} rounding cannot be told from effects here ({effect}). Use --dtype float32."
        )
    words = f"{effect}; two computations that round differently are {rounding.gap:.2g} apart ({rounding.share:.0%})"
    advice = " Small effects are not to be trusted: use --dtype float32." if rounding.matters else ""
    return f"In {rounding.dtype} {words}.{advice}"


def chance_words(verdict: Verdict) -> str:
    """How the circuit stands to random ones of its size."""
    band = verdict.random
    outside = "above all" if band.p_value <= 1 / (band.n + 1) else "not clearly above"
    return (
        f"{outside} {band.n} random circuits of its size "
        f"(95% of them in {number(band.low)} to {number(band.high)}; p {_equals(band.p_value)})"
    )


def finding_words(finding: Finding) -> str:
    """One sentence a method: what was kept, and how faithful it is to judged prompts."""
    verdict = finding.verdicts[0]
    return (
        f"{finding.scores.method} keeps {kept_words(finding)} ({_share(finding):.0%}){_pruned_from(finding)}; "
        f"faithfulness {estimate(verdict.faithfulness)} ({verdict.ablation} ablation), {chance_words(verdict)}."
    )


def kept_words(finding: Finding) -> str:
    """11 of 36 components; 7 of 32 heads; 210 of 1,837 edges between 20 of 36 components."""
    circuit, scores = finding.circuit, finding.scores
    what = "components" if any(c[0] == "m" for c in scores.components) else "heads"
    nodes = f"{len(circuit)} of {len(scores.components)} {what}"
    if circuit.edges is None:
        return nodes
    return f"{len(circuit.edges):,} of {len(finding.ranked.components):,} edges between {nodes}"


def _share(finding: Finding) -> float:
    return len(finding.circuit.kept) / len(finding.ranked.components)


def _pruned_from(finding: Finding) -> str:
    """How good the ranking itself is: the fewer of its first components are faithful enough, the better."""
    prefix = finding.choice.prefix
    return "" if prefix is None else f", pruned from the first {prefix} of its ranking"


def reference_words(finding: Finding) -> list[str]:
    """A sentence for each known circuit: how well the scores rank its heads or edges, and the circuit holds them."""
    return [
        f"{match.reference}: AUROC {'undefined' if match.auroc is None else f'{match.auroc:.2f}'} over {match.of}; "
        f"precision {match.precision:.2f}, recall {match.recall:.2f}, F1 {match.f1:.2f} of the circuit's {match.of}."
        for match in finding.matches
    ]


def conclusions(details: Mapping[str, Any]) -> list[str]:
    """What a method itself concludes, in words."""
    return [str(line) for line in details.get("verdict", ())]


def audit_words(audit: Audit) -> str:
    """What the exact effects of a method's top edges say of it."""
    wrong, idle = audit.sign_errors, audit.false_positives
    nothing = f"no effect that shows (interval holds 0, or below {audit.least_share:.0%} of the largest)"
    return (
        f"The {len(audit.edges)} edges that {audit.method} ranks first, cut exactly on {audit.n_prompts} prompts "
        f"({audit.direction}, {audit.ablation} ablation): rank correlation {_agreement(audit.spearman)}, Pearson "
        f"{_agreement(audit.pearson)}; {_named('wrong sign', wrong)}; "
        f"{_named(nothing, idle)}."
    )


def missed_words(missed: Missed) -> str:
    """What of the components outside the circuit could still matter, and what patching it alone says."""
    limit = f"{number(missed.limit)} (10% of what replacing everything does)"
    asked = (
        f"Of {len(missed.bounds)} components outside the circuit, by {missed.n_subsets} random subsets of them "
        f"patched jointly on {missed.n_prompts} prompts"
    )
    idle = f"an idle component's bound is {number(missed.idle)}"
    if not missed.suspects:
        most = number(max(missed.bounds.values()))
        return f"{asked}, none has an effect above {limit}: at most {most} (95% each; {idle})."
    named = [
        one.component
        if one.alone is None or one.low is None or one.high is None
        else f"{one.component} (at most {number(one.bound)}, alone {number(one.alone)} "
        f"[{number(one.low)}, {number(one.high)}])"
        for one in missed.suspects
    ]
    return (
        f"{asked}, {len(missed.suspects)} may have an effect above {limit}, at 95% each ({idle}): "
        f"{_listed(named)}."
    )


def _agreement(value: Agreement) -> str:
    if value.value is None or value.low is None or value.high is None:
        return "undefined"
    return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"


def _named(what: str, edges: tuple[str, ...]) -> str:
    return f"{what}: {len(edges)} ({_listed(edges)})" if edges else f"{what}: none"


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def gate_words(gate: Gate) -> str:
    """overlap FAILED, 0.42 (at least 0.9; Jaccard of nodes)."""
    bound = "at least" if gate.at_least else "at most"
    failed = "" if gate.passed else " FAILED,"
    return f"{gate.name}{failed} {gate.value:.3g} ({bound} {gate.limit:g}; {gate.of})"
