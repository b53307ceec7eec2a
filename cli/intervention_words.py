"""Sentences on an intervention that both the terminal and the report use, so that they never disagree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cli.evaluation_words import some
from cli.wording import estimate, number, p_value, share

if TYPE_CHECKING:
    from circuits.evaluation.faithfulness import Estimate
    from circuits.interventions.choice import Choice
    from circuits.interventions.downstream import Downstream, Head
    from circuits.interventions.effect import Control, Effect, Shift
    from circuits.interventions.repair import Candidate, Repair
    from circuits.interventions.run_intervention import Result, Treatment
    from circuits.interventions.sweep import Sweep

OFFSETS = (
    "Offsets are learned from prompts that nothing is judged on; the random heads were trained in the same way, each "
    "set on its own. offsets.safetensors holds them, and what they add to the bias of attention, layer by layer."
)
OVERRIDE = (
    "What the override is told: where to attend in every prompt, judged prompts too. Where that is what is wrong, it "
    "knows much of the answer; where it is a named position, it knows the layout. So the figures are no accuracy "
    "that the model could reach by itself: they say whether what these heads do elsewhere is what this task lacks, "
    "for the rest of the circuit has to turn it into the answer."
)


def prompts_words(result: Result) -> str:
    """The prompts, short enough for the title of a picture."""
    return result.prompts.about.removeprefix("prompts of ").partition(", none of them")[0]


def treatment_words(treatment: Treatment, result: Result) -> str:
    """Knocking out a1.h7; telling the last token's attention of a1.h7 to go to S1 alone."""
    named, kind = some(result.heads), treatment.kind
    if kind == "scale":
        return f"Scaling the values of {named} by {factor_of(treatment, result):g}"
    if kind == "channel":
        channels, factor = some(treatment.channels), (*treatment.factors, 0.0)[0]
        return f"Scaling channels {channels} by {factor:g}" if factor else f"Cutting channels {channels}"
    if kind == "mean":
        return f"Replacing what {named} put out by the mean over prompts"
    if kind == "knock-out":
        return f"Knocking out {named}"
    if kind == "interpolate":
        return f"Moving {treatment.factors[0]:.0%} of the attention of {named} to each token itself"
    if kind == "calibrate":
        return f"Taking 60% of their attention from the sinks of {named}"
    if kind == "offsets":
        return f"Adding learned offsets to {named}"
    told = result.repair.told if result.repair else {", ".join(treatment.onto): result.heads}
    from circuits.interventions.repair import WRONG

    wrong = ", ".join(treatment.onto) or "the wrong positions"
    where = (f"{some(heads)} to go to {wrong if at == WRONG else at} alone" for at, heads in told.items())
    return f"Telling the last token's attention of {', and of '.join(where)}"


def factor_of(treatment: Treatment, result: Result) -> float:
    """The factor that the result of a scaling is stated for."""
    return result.sweep.chosen if result.sweep else treatment.factors[0]


def effect_words(found: Effect) -> str:
    """What changed, with the count of prompts that turned."""
    return (
        f"correct {_moved(found.correct)}; prefers the answer {_moved(found.preferred)}; says a distractor first "
        f"{_moved(found.distracted)}; metric {number(found.metric.before.value)} to "
        f"{number(found.metric.after.value)} (change {estimate(found.metric.change)}). Of {found.n_prompts} prompts "
        f"{found.fixed} became correct and {found.new_errors} are new errors."
    )


def _moved(shift: Shift) -> str:
    return f"{shift.before.value:.1%} to {shift.after.value:.1%} (change {_points(shift.change)})"


def _points(value: Estimate) -> str:
    """+12.0 points [8.0, 16.0]."""
    low, high = (number(100 * x, 1) for x in (value.low, value.high))
    return f"{100 * value.value + 0.0:+.1f} points [{low}, {high}]"


def control_words(control: Control) -> str:
    """Whether chance does it as well."""
    band, n = control.metric, len(control.drawn)
    spread = f"{number(min(band.changes))} to {number(max(band.changes))}"
    what = _drawn_words(control)
    right = control.correct
    start = (
        f"On {control.n_prompts} prompts {n} {what} change the metric by {spread} (here {number(band.own)}) and "
        f"correct by {_points_between(right.changes)} (here {100 * right.own + 0.0:+.1f})"
    )
    if not control.as_good:
        return f"{start}: none as far (p {p_value(band.p_value)})."
    verdict = {
        "random heads": "so the effect is not owed to these heads",
        "random positions": "so the effect is not owed to where they look",
        "random components": "so the effect is not owed to these components of the heads",
    }[control.kind]
    rare = band.p_value <= 0.1
    tail = "few, but some" if rare else verdict
    return f"{start}: {band.reached} of them at least as far (p {p_value(band.p_value)}), {tail}."


def _points_between(changes: tuple[float, ...]) -> str:
    low, high = (100 * bound + 0.0 for bound in (min(changes), max(changes)))
    return f"{low:+.1f} to {high:+.1f} points"


def _drawn_words(control: Control) -> str:
    if control.kind == "random components":
        return "draws of as many other components of the same heads"
    if control.matched is None:
        return "draws of as many random positions, with the same heads,"
    layers = "in the same layers" if control.matched == len(control.drawn) else "anywhere"
    if 0 < control.matched < len(control.drawn):
        layers = f"({control.matched} in the same layers, which have no more outside the circuit, the rest anywhere)"
    return f"random sets of as many heads {layers}"


def control_lines(result: Result) -> Iterator[str]:
    kinds = [control.kind for control in result.controls]
    yield from map(control_words, result.controls)
    if not {"random heads", "random components"} & set(kinds):
        yield "There is no control: too few heads, or components of them, are left to draw from."


def downstream_words(found: Downstream | None) -> str:
    """The later heads that changed most, and whether the circuit's scores say so."""
    if found is None:
        return (
            "Later heads: there are none, or the engine that reads their attention does not serve the model."
        )
    most = sorted(found.heads, key=lambda head: -abs(head.attribution.change.value))[:3]
    changed = "; ".join(_head_words(head) for head in most)
    return (
        f"Of {len(found.heads)} later heads these change most in what they write onto the logit difference: "
        f"{changed}. {members_words(found)} {prediction_words(found)}"
    )


def members_words(found: Downstream) -> str:
    """What becomes of the circuit's later heads together."""
    if not (members := found.members):
        return "None of them is in the circuit."
    before, after = (
        sum(getattr(head.attribution, side).value for head in members) for side in ("before", "after")
    )
    paid = ", ".join(
        f"{name} {' to '.join(number(_mean(members, name, side), 3) for side in ('before', 'after'))}"
        for name in members[0].attention
    )
    return (
        f"The circuit's {len(members)} later heads together write {number(before)} to {number(after)} logits"
        + (f"; their mean attention goes to {paid}." if paid else ".")
    )


def _mean(heads: tuple[Head, ...], name: str, side: str) -> float:
    values = [getattr(head.attention[name], side).value for head in heads]
    return float(sum(values) / len(values))


def _head_words(head: Head) -> str:
    paid = sorted(head.attention.items(), key=lambda item: -abs(item[1].change.value))[:2]
    moves = ", ".join(f"{name} {number(s.before.value)} to {number(s.after.value)}" for name, s in paid)
    shift = head.attribution
    wrote = f"{number(shift.before.value)} to {number(shift.after.value)} logits"
    return f"{head.name} {wrote}" + (f" (attention to {moves})" if moves else "")


def prediction_words(found: Downstream) -> str:
    if found.sizes is None:
        return "The run scores too few of them to say what its circuit predicts."
    verdict = (
        "as the circuit predicts" if found.predicted else "so what the circuit predicts is not borne out"
    )
    signed = "" if found.signed is None else f"; {number(found.signed.rho)} with signs"
    return (
        f"Sizes of change and sizes of the run's scores: Spearman {number(found.sizes.rho)} "
        f"(p {p_value(found.sizes.p_value)}{signed}), {verdict}."
    )


def sweep_words(sweep: Sweep) -> str:
    wanted = "answers" if sweep.toward == "answer" else "distractors"
    return (
        f"Of the factors {', '.join(f'{f:g}' for f in sweep.factors)}, {sweep.chosen:g} makes the model say {wanted} "
        f"most often on {sweep.tuning[0].n_prompts} prompts that it is not judged on; what follows is that factor on "
        f"{sweep.judged[0].n_prompts} others."
    )


def _candidate_words(candidate: Candidate) -> str:
    """a3.h7 looks at SUBJECT on the good task: 0.89 [..] (even attention 0.11), on the bad one 0.24 [..]."""
    assert candidate.good is not None
    assert candidate.bad is not None
    assert candidate.even is not None
    what = "what is wrong" if candidate.looks_at == "wrong" else candidate.looks_at
    lacks = "" if candidate.in_bad_circuit else "; the bad task's circuit lacks it"
    return (
        f"{candidate.head} looks at {what} on the good task: {estimate(candidate.good)} (even attention "
        f"{number(candidate.even)}), on the bad one {estimate(candidate.bad)}{lacks}."
    )


def _why_left(candidate: Candidate) -> str:
    if not candidate.looks_at:
        return "looking at nothing that both tasks name"
    if candidate.looks_at == "right":
        return "looking at what is right, which would be telling the answer"
    return "looking there on the bad task, too"


def repair_words(found: Repair) -> Iterator[str]:
    """Where candidates look, what was chosen, and what it does to judged prompts."""
    yield from (_candidate_words(candidate) for candidate in found.candidates if candidate.usable)
    others: dict[str, list[str]] = {}
    for candidate in found.candidates:
        if not candidate.usable:
            others.setdefault(_why_left(candidate), []).append(candidate.head)
    if others:
        left = "; ".join(f"{some(tuple(heads))} ({why})" for why, heads in others.items())
        yield f"Other heads of the good circuit are left alone: {left}."
    steps = ", then ".join(f"{head} ({share_:.1%})" for head, share_ in found.steps)
    yield f"Correct on tuning prompts: {found.tuning_before:.1%} as it is; {steps}."
    none = found.together.correct.before
    alone = "; ".join(f"{head} alone {share(found.alone[head].correct.after)}" for head in found.alone)
    yield (
        f"Correct on judged prompts: none {share(none)}; {alone}; chosen ({', '.join(found.chosen)}) "
        f"{share(found.together.correct.after)}."
    )
    if found.together.correct.change.low <= 0:
        yield "The share of right answers is not shown to rise on judged prompts (its interval holds 0 or less)."
    if found.steps[-1][1] <= found.tuning_before:
        yield "No head raises the share of right answers on tuning prompts: nothing is repaired."


def choice_words(choice: Choice) -> str:
    """Which heads gain by themselves."""
    gains = ", ".join(f"{head} {choice.gains[head]:+.3g}" for head in choice.chosen[:5])
    return (
        f"Chosen on {choice.n_prompts} prompts that nothing is judged on: {len(choice.chosen)} of "
        f"{len(choice.gains)} heads, calibrated by themselves, raise the answer's log-probability ({gains} nats"
        f"{', ...' if len(choice.chosen) > 5 else ''}; all {len(choice.gains)} sum to "
        f"{sum(choice.gains.values()):+.3g})."
    )


def result_lines(treatment: Treatment, result: Result) -> Iterator[str]:
    """All that is said of one prompt set."""
    if result.repair:
        yield from repair_words(result.repair)
    if result.sweep:
        yield sweep_words(result.sweep)
    if result.choice:
        yield choice_words(result.choice)
    done = treatment_words(treatment, result)
    yield f"{done}, on {result.effect.n_prompts} {result.prompts.about}: {effect_words(result.effect)}"
    yield from control_lines(result)
    yield downstream_words(result.downstream)
    if treatment.kind == "repair":
        yield OVERRIDE
    if treatment.kind == "offsets":
        yield OFFSETS
