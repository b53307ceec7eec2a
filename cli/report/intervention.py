"""An intervention on paper: report.md, bars before and after (or curves of a sweep), and the heads behind it.

The one idea: chance is in the picture, as dots beside every bar: what the same does to other heads, or elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from cli.intervention_output import Done, arms
from cli.intervention_words import (
    OVERRIDE,
    choice_words,
    control_lines,
    effect_words,
    members_words,
    prediction_words,
    prompts_words,
    repair_words,
    sweep_words,
    treatment_words,
)
from cli.report.figure import INK, PALE, axes_at, blank, paper_style
from cli.report.markdown import table
from cli.wording import estimate, number, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from circuits.evaluation.faithfulness import Estimate
    from circuits.interventions.downstream import Downstream
    from circuits.interventions.run_intervention import Result
    from circuits.interventions.sweep import Sweep

_WIDTH, _HEIGHT, _LEFT, _GAP, _BOTTOM, _TOP = 2.6, 1.7, 0.6, 0.45, 0.45, 0.3
_AFTER, _DISTRACTED = "#2166ac", "#b2182b"
SHOWN = 12


def intervention_report(done: Done, pictures: tuple[str, ...]) -> str:
    """The whole report as Markdown."""
    return "\n\n".join(_sections(done, pictures)) + "\n"


_PICTURES = {
    "effect.png": "Before and after, with controls as grey dots",
    "downstream.png": "Later heads: the run's scores, and the change of what each writes onto the logit difference",
}


def _sections(done: Done, pictures: tuple[str, ...]) -> Iterator[str]:
    yield f"# Intervention on {done.run.path.absolute().name}"
    yield from (f"![{_PICTURES[name]}]({name})" for name in pictures)
    yield (
        f"Model {done.model.name}; heads and scores of {done.method}; seed {done.asked.seed}. Figures are means over "
        "clean prompts. Brackets are 95% percentile bootstrap intervals over prompts; those of changes are of paired "
        "differences. Controls are as good if they move the metric as far the same way; p has the +1 correction."
    )
    for result in done.results:
        yield f"## {result.prompts.about}"
        yield from _result(done, result)
    if done.treatment.kind == "repair":
        yield "## What the override knows"
        yield OVERRIDE


def _result(done: Done, result: Result) -> Iterator[str]:
    if result.repair:
        yield "\n".join(f"- {line}" for line in repair_words(result.repair))
    if result.sweep:
        yield sweep_words(result.sweep)
    if result.choice:
        yield choice_words(result.choice)
    what = treatment_words(done.treatment, result)
    yield f"{what}: {effect_words(result.effect)}"
    yield _arms(result)
    yield "\n".join(f"- {line}" for line in control_lines(result))
    if result.downstream:
        yield "### Later heads"
        yield f"{members_words(result.downstream)} {prediction_words(result.downstream)}"
        yield _later(result.downstream)


def _arms(result: Result) -> str:
    rows = [
        (
            what,
            share(effect.correct.after),
            share(effect.distracted.after),
            estimate(effect.metric.after),
            estimate(effect.metric.change),
            str(effect.fixed),
            str(effect.new_errors),
        )
        for what, effect in arms(result)
    ]
    plain = result.effect
    before = (
        "nothing done",
        share(plain.correct.before),
        share(plain.distracted.before),
        estimate(plain.metric.before),
        "",
        "",
        "",
    )
    header = ("", "correct", "says a distractor", "metric", "change of metric", "fixed", "new errors")
    return table(header, [before, *rows])


def _later(found: Downstream) -> str:
    most = sorted(found.heads, key=lambda head: -abs(head.attribution.change.value))[:SHOWN]
    names = tuple(found.heads[0].attention)
    rows = [
        (
            head.name,
            "yes" if head.member else "no",
            "" if head.score is None else number(head.score),
            f"{number(head.attribution.before.value)} to {number(head.attribution.after.value)}",
            estimate(head.attribution.change),
            *(
                f"{number(shift.before.value)} to {number(shift.after.value)}"
                for shift in head.attention.values()
            ),
        )
        for head in most
    ]
    header = (
        "head",
        "in circuit",
        "score",
        "logit attribution",
        "change",
        *(f"attention to {n}" for n in names),
    )
    return table(header, rows)


# Pictures


def effect_picture(done: Done) -> Figure:
    """A panel a prompt set: bars of correct answers with controls, or curves over the factors of a sweep."""
    figure = blank(_LEFT + len(done.results) * (_WIDTH + _GAP), _BOTTOM + _HEIGHT + _TOP)
    with paper_style():
        for i, result in enumerate(done.results):
            axes = axes_at(figure, _LEFT + i * (_WIDTH + _GAP), _BOTTOM, _WIDTH, _HEIGHT)
            _curves(axes, result.sweep) if result.sweep else _bars(axes, result)
            axes.set_ylim(-0.03, 1.05)
            axes.set_title(prompts_words(result), size=6, weight="bold", loc="left")
            axes.tick_params(width=0.4, length=2, labelsize=6)
            axes.spines[["top", "right"]].set_visible(False)
            if i == 0:
                axes.set_ylabel("share of prompts")
    return figure


def _bars(axes: Axes, result: Result) -> None:
    bars: list[tuple[str, Estimate]] = [("nothing\ndone", result.effect.correct.before)]
    bars += [
        (what.replace(" alone", "\nalone").replace("the intervention", "done"), effect.correct.after)
        for what, effect in arms(result)
    ]
    for place, (_, value) in enumerate(bars):
        last = place == len(bars) - 1
        axes.bar(place, value.value, width=0.6, color=_AFTER if last else PALE)
        axes.plot((place, place), (value.low, value.high), color=INK, linewidth=0.8)
    for control in result.controls:
        shares = result.effect.correct.before.value + np.array(control.correct.changes)
        spread = np.linspace(-0.2, 0.2, len(shares)) if len(shares) > 1 else np.zeros(1)
        axes.plot(len(bars) + spread, shares, ".", color=INK, markersize=2)
        bars.append((control.kind.replace(" ", "\n"), result.effect.correct.before))
    axes.set_xticks(range(len(bars)), [name for name, _ in bars])


def _curves(axes: Axes, sweep: Sweep) -> None:
    for name, colour, label in (("correct", _AFTER, "answer"), ("distracted", _DISTRACTED, "distractor")):
        after = [getattr(effect, name).after for effect in sweep.judged]
        low, mean, high = ([getattr(e, side) for e in after] for side in ("low", "value", "high"))
        axes.fill_between(sweep.factors, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(
            sweep.factors, mean, color=colour, marker="o", markersize=2, linewidth=1, label=f"says {label}"
        )
        tuning = [getattr(effect, name).after.value for effect in sweep.tuning]
        axes.plot(sweep.factors, tuning, color=colour, linewidth=0.6, linestyle=":")
    axes.axvline(sweep.chosen, color=INK, linewidth=0.6, linestyle="--", label=f"chosen: {sweep.chosen:g}")
    axes.axvline(1, color=PALE, linewidth=0.6)
    axes.set_xlabel("factor on the value vectors (dotted: prompts that chose)", labelpad=2)
    axes.legend(fontsize=5, frameon=False)


def downstream_picture(done: Done) -> Figure:
    """A panel a prompt set: score of each later head, and how its logit attribution changed."""
    shown = [result for result in done.results if result.downstream]
    figure = blank(_LEFT + len(shown) * (_WIDTH + _GAP), _BOTTOM + _HEIGHT + _TOP)
    with paper_style():
        for i, result in enumerate(shown):
            axes = axes_at(figure, _LEFT + i * (_WIDTH + _GAP), _BOTTOM, _WIDTH, _HEIGHT)
            assert result.downstream is not None
            _scatter(axes, result.downstream)
            axes.set_title(prompts_words(result), size=6, weight="bold", loc="left")
            if i == 0:
                axes.set_ylabel("change of logit attribution")
    return figure


def _scatter(axes: Axes, found: Downstream) -> None:
    scored = [head for head in found.heads if head.score is not None]
    for head in scored:
        colour = _AFTER if head.member else PALE
        axes.plot(head.score or 0.0, head.attribution.change.value, "o", markersize=3, color=colour)
    for head in sorted(scored, key=lambda head: -abs(head.attribution.change.value))[:4]:
        place = (head.score or 0.0, head.attribution.change.value)
        axes.annotate(head.name, place, xytext=(3, 2), textcoords="offset points", size=5)
    axes.axhline(0, color=INK, linewidth=0.4, linestyle=":")
    axes.set_xlabel("score in the run (blue: in its circuit)", labelpad=2)
    axes.tick_params(width=0.4, length=2, labelsize=6)
    axes.spines[["top", "right"]].set_visible(False)
