"""report.md: the run in words and tables, the verdict first, what to doubt beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.evaluation_words import REFUSED
from cli.reproduce import command
from cli.wording import (
    audit_words,
    baseline_line,
    conclusions,
    estimate,
    finding_words,
    kept_words,
    missed_words,
    number,
    p_value,
    reference_words,
    rounding_words,
    share,
    unsolved_warning,
)

if TYPE_CHECKING:
    from circuits.circuit import Circuit
    from circuits.discovery import Discovery, Finding
    from circuits.scores import Scores

TOP = 15


def report(found: Discovery, run: Mapping[str, Any]) -> str:
    """The whole report as Markdown; `run` is what run.json holds."""
    parts = [
        f"# {run['config']['task']} in {found.model}",
        *_verdict(found),
        *_pictures(found),
        *_judgement(found),
        *(line for finding in found.findings for line in _method(found, finding)),
        *_overlaps(found),
        "## What these figures are not to be compared with",
        REFUSED,
        *_settings(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(found: Discovery) -> Iterator[str]:
    yield baseline_line(found.model, "these prompts", found.baseline)
    if warning := unsolved_warning(found.model, found.baseline):
        yield f"**Warning.** {warning}"
    if found.rounding is not None:
        yield f"{'**Warning.** ' if found.rounding.matters else ''}{rounding_words(found)}"
    for finding in found.findings:
        yield finding_words(finding)
        if finding.choice.note:
            yield f"Note on {finding.scores.method}: {finding.choice.note}."


def _pictures(found: Discovery) -> Iterator[str]:
    first = found.findings[0].scores.method
    yield f"![The circuit that {first} finds](circuit.svg)"
    for finding in found.findings:
        name = finding.scores.method
        yield f"![Scores of {name} by layer and head](heatmap-{name}.png)"
        if finding.scores.by_position:
            yield f"![Scores of {name} by position](positions-{name}.png)"


def _judgement(found: Discovery) -> Iterator[str]:
    from circuits.evaluation.faithfulness import (
        six_things,  # brings torch, which a comparison's tables do without
    )

    yield "## Judged on prompts that nothing was found on"
    rows = [
        (
            finding.scores.method,
            kept_words(finding),
            verdict.ablation,
            estimate(verdict.faithfulness),
            f"{number(verdict.random.low)} to {number(verdict.random.high)}",
            p_value(verdict.random.p_value),
            share(verdict.preferred),
            share(verdict.correct),
        )
        for finding in found.findings
        for verdict in finding.verdicts
    ]
    header = (
        "method",
        "kept",
        "ablation",
        "faithfulness",
        "random band",
        "p",
        "answer preferred",
        "answer first",
    )
    yield table(header, rows)
    first = found.findings[0]
    prompts = (
        f"{len(found.halves.judged)} judged prompts; {len(found.halves.discovery)} others were discovered on"
        + (", none of a judged template" if found.plan.judge_on == "templates" else "")
    )
    stated = six_things(first.verdicts[0], first.ranked.components, found.graph, prompts)
    yield (
        "Faithfulness is a ratio of means: 0 with everything replaced, 1 with nothing replaced; it may pass 1 where "
        "the circuit leaves out what works against the behaviour. Brackets are 95% bootstrap intervals over prompts; "
        f"the band holds 95% of {first.verdicts[0].random.n} random circuits with as many heads and MLPs, or "
        "as many edges grown from the logits by random scores."
    )
    yield "; ".join(f"{name}: {value}" for name, value in stated.items() if name != "ablation") + "."


def _method(found: Discovery, finding: Finding) -> Iterator[str]:
    scores = finding.scores
    yield f"## {scores.method}"
    yield f"Kept by: {finding.circuit.selection}. Positive scores support the behaviour."
    yield _top(scores, finding.circuit, "component")
    if scores.edges is not None:
        yield _top(scores.edges, finding.circuit, "edge")
        yield "A component's score is the sum over the edges that leave it."
    yield from _audit(finding)
    if finding.missed is not None:
        yield missed_words(finding.missed)
    yield from reference_words(finding)
    yield from conclusions(scores.details)
    yield from _details(scores.details)


def _audit(finding: Finding) -> Iterator[str]:
    """The method's largest edges beside what cutting them does."""
    if (audit := finding.audit) is None:
        return
    yield audit_words(audit)
    rows = [
        (
            edge.edge,
            f"{edge.score:.4g}",
            f"{edge.exact:.4g} [{edge.low:.4g}, {edge.high:.4g}]",
            "wrong sign" if edge.sign_error else "no effect that shows" if edge.false_positive else "",
        )
        for edge in audit.edges[:TOP]
    ]
    yield table(("edge", "score", "exact effect", "verdict"), rows)


def _top(scores: Scores, circuit: Circuit, what: str) -> str:
    rows = [
        (
            str(n),
            name,
            f"{scores.of(name):.4g}",
            f"{scores.stderr_of(name):.2g}",
            "yes" if name in circuit else "",
        )
        for n, name in enumerate(scores.ranking()[:TOP], start=1)
    ]
    return table(("rank", what, "score", f"standard error over {scores.unit}s", "in circuit"), rows)


def _details(details: Mapping[str, Any]) -> Iterator[str]:
    if "parts" in details:
        parts = ", ".join(f"{name} {value:.3f}" for name, value in details["parts"].items())
        yield (
            f"Beside the components: {parts}; all parts sum to the logit difference of "
            f"{details['logit_difference']:.3f} (largest gap on a prompt {details['largest_gap']:.1e})."
        )

    for line in details.get("notes", ()):
        yield str(line)
    yield from _controls(details)


def _controls(details: Mapping[str, Any]) -> Iterator[str]:
    """The AUROC of the method and of each control, for each known circuit."""
    for name, known in details.get("references", {}).items():
        entries = {**{f"{level} score": a for level, a in known["levels"].items()}, **known["controls"]}
        if entries:
            yield f"AUROC against {name}, mean over trials and standard deviation; the controls run on the same data:"
            yield table(
                ("score", "AUROC", "sd"),
                [(n, f"{a['mean']:.2f}", f"{a['sd']:.2f}") for n, a in entries.items()],
            )
            yield (
                "Shuffled labels do not make a count of codes vanish: a head that uses many codes has many that only "
                "one side shows. Where their AUROC is far from 0.5, the known heads are simply more varied."
            )
            yield from _best(known)
    agreement = {n: rho for n, rho in details.get("agreement_with_controls", {}).items() if rho is not None}
    if agreement:
        yield "Rank correlation of the scores with each control's:"
        yield table(("control", "Spearman"), [(n, f"{rho:.2f}") for n, rho in agreement.items()])


def _best(known: Mapping[str, Any]) -> Iterator[str]:
    for what, name in (("best_f1", "F1"), ("best_balanced_harmonic_score", "balanced harmonic score")):
        values = [f"{level} {best['value']:.2f}" for level, best in known[what].items() if best is not None]
        if values:
            yield f"Best {name} over all thresholds, chosen on the reference and so optimistic: {', '.join(values)}."


def _overlaps(found: Discovery) -> Iterator[str]:
    if not found.overlaps:
        return
    yield "## Do the methods agree?"
    rows = []
    for pair in found.overlaps:
        o, rank = pair.overlap, pair.correlation_of_size
        rows.append(
            (
                f"{pair.first}, {pair.second}",
                f"{o.shared} of {o.first_size} and {o.second_size}",
                _number(o.jaccard),
                _number(o.chance_jaccard),
                _number(o.overlap_coefficient),
                p_value(o.p_value),
                "" if rank is None else f"{rank.rho:.2f} (p {p_value(rank.p_value)})",
            )
        )
    header = (
        "methods",
        "shared",
        "Jaccard",
        "by chance",
        "overlap coefficient",
        "p",
        "rank correlation of sizes",
    )
    yield table(header, rows)
    yield (
        "Compared are the largest scores among what both methods score, as many as the first circuit has (MLPs "
        "do not count beside a method for heads). p: hypergeometric, that random sets of these sizes share as many."
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _settings(run: Mapping[str, Any]) -> Iterator[str]:
    yield "## Settings"
    yield f"```text\n{command(run)}\n```"
    if not run["config"]["form"]:
        yield "prompts.jsonl is the one in this folder."
    yield table(("setting", "value"), [(name, _plain(value)) for name, value in run["config"].items()])
    rejected = {kind: n for kind, n in run["prompts"]["rejected_words"].items() if n}
    if rejected:
        words = ", ".join(f"{n} {kind}" for kind, n in rejected.items())
        yield f"Left out for the tokenizer, which splits or joins them: {words}."
    if dropped := run["prompts"].get("dropped"):
        reasons = ", ".join(f"{n} {kind}" for kind, n in dropped.items())
        yield f"Prompts of the file that were left out: {reasons}."
    if made := run["prompts"].get("corrupt_prompts_made_by"):
        yield f"The file has no corrupted prompts for some or all of its prompts; they were made by {made}."
    if screening := run["prompts"].get("screening"):
        yield (
            f"Asked of the model first, on all {screening['drawn']} prompts: it prefers the answer on "
            f"{screening['accuracy']['value']:.1%}. {screening['left_out']} that it fails were left out."
        )


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    return str(value)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
