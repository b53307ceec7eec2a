"""The page of an intervention: its report, with what it did beside what chance does, read off its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circuits.records import read_json
from cli.intervention_output import RECORD
from cli.page.effect_plot import effect_plot, later_plot
from cli.page.page import Page
from cli.page.plot import Plot, shortened
from cli.wording import p_value

Entry = Mapping[str, Any]
_DONE = {
    "scale": "Scaling the values",
    "mean": "Replacing the output by its mean over prompts",
    "knock-out": "Knocking out the output",
}


def folder_page(folder: Path) -> Page:
    held = read_json(folder / RECORD)
    words = (folder / "report.md").read_text(encoding="utf-8")
    plots: dict[str, list[Plot]] = {"effect.png": [], "downstream.png": []}
    for i, result in enumerate(held["results"]):
        n = result["effect"]["n_prompts"]
        where = f"{result['task']} in {held['model']['name']}, {n} prompts"
        plots["effect.png"].append(effect_plot(f"effect-{i}", f"{_what(held, result)}: {where}", result))
        if later := result["downstream"]:
            plots["downstream.png"].append(later_plot(f"later-{i}", f"Later heads: {where}", later))
    return Page(words, folder, verdict=list(verdict(held)), plots=plots)


def _what(held: Entry, result: Entry) -> str:
    """Knocking out the output of a1.h7 and a2.h3."""
    heads = result["heads"]
    named = f"{', '.join(heads[:4])}{f' and {len(heads) - 4} more' if len(heads) > 4 else ''}" or "no head"
    told = held["asked"]["do"] not in _DONE
    done = _DONE.get(held["asked"]["do"], "Telling the last token's attention")
    return f"{done} of {named}{' where to go' if told else ''}"


def verdict(held: Entry) -> Iterator[str]:
    """What was done, what came of it, and how often chance does as much; on the first set of prompts."""
    result = held["results"][0]
    effect, correct = result["effect"], result["effect"]["correct"]
    yield (
        f"{_what(held, result)} in {shortened(held['model']['name'])} is tried on {effect['n_prompts']} prompts of "
        f"{shortened(result['task'])}."
    )
    yield (
        f"Right answers go from {correct['before']['value']:.1%} to {correct['after']['value']:.1%}: a change of "
        f"{_points(correct['change'])}; {effect['fixed']} prompts become right and {effect['new_errors']} wrong."
    )
    if controls := result["controls"]:
        words = (
            f"{c['correct']['reached']} of {len(c['drawn'])} draws of {c['kind']} move them as far (p "
            f"{p_value(c['correct']['p_value'])})"
            for c in controls
        )
        yield f"{'; '.join(words)}."
    else:
        yield "There is no control: too few heads are left to draw from."


def _points(change: Entry) -> str:
    low, high = (f"{100 * change[end]:.1f}" for end in ("low", "high"))
    return f"{100 * change['value'] + 0.0:+.1f} points [{low}, {high}]"
