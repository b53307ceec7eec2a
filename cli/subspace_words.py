"""Sentences on subspaces that both the terminal and the report use, so that they never disagree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cli.wording import estimate, number, share

if TYPE_CHECKING:
    from circuits.evaluation.faithfulness import Estimate
    from circuits.subspaces.alignment import Alignment
    from circuits.subspaces.layer_search import Search
    from circuits.subspaces.steering import Steered, Steering
    from circuits.subspaces.study import Study

EFFECTS = ("what is patched", "FLDD %", "95% interval", "accuracy")
SWEEP = ("c", "memory", "context", "other", "memory ratio", "logit difference")

MEANING = (
    "FLDD: by how many percent the patch lowers the logit difference of the prompt's own answer over the source's; "
    "100 leaves no preference, 200 turns it around. Accuracy: share of prompts whose most likely token of all "
    "becomes the source's answer. Every pair is patched both ways."
)


def title(found: Study, model: str, task: str) -> str:
    return f"Subspaces of {model} at {found.place} ({found.width} dimensions), prompts of {task}"


def prompts_words(found: Study) -> str:
    fresh = "of other templates" if found.new == "templates" else "of the same templates"
    left = (
        f" {found.left_out} pairs are left out, for the model does not give both answers."
        if found.left_out
        else ""
    )
    return (
        f"Learned on {found.n_learned} pairs, judged on {found.n_judged} others {fresh}; runs of judged prompts "
        f"prefer their own answer on {found.own:.1%}.{left} Prompts run forward: {found.passes.whole} through all "
        f"layers, {found.passes.above} through those above the site, {found.passes.backward} of them back as well."
    )


def effect_rows(found: Alignment) -> Iterator[tuple[str, str, str, str]]:
    for name, effect in found.effects.items():
        words = f"learned, rank {found.rank}" if name == "learned" else name
        fldd = effect.fldd
        bounds = f"{number(fldd.low, 1)} to {number(fldd.high, 1)}"
        yield words, number(fldd.value, 1), bounds, f"{effect.accuracy.value:.1%}"
    for words, drawn in (("random subspaces", found.random), ("seen parts of these", found.split.random)):
        if not drawn:
            continue
        values, hits = (sorted(each[i] for each in drawn) for i in (0, 1))
        spread = f"{number(values[0], 1)} to {number(values[-1], 1)} (all)"
        mean = sum(values) / len(values)
        yield f"{len(values)} {words}", number(mean, 1), spread, f"{hits[-1]:.1%} at most"


def split_words(found: Alignment) -> str:
    """What reads the place, and how much of the subspace that sees."""
    split = found.split
    if found.place.in_stream and not split.readers:
        return (
            "The part above that the site acts through most sees over half of it, so the subspace is not split. Name "
            "readers that you ask about with --reader."
        )
    by = ", ".join(split.readers) or f"the output matrix of m{found.place.layer}"
    return f"Read by {by}: they see {split.chance:.1%} of the space, and {split.seen:.1%} of the learned subspace."


def verdict_words(found: Alignment) -> str:
    """Genuine, an illusion, or what lies between, and why."""
    if found.verdict == "untested" and not found.split.chance:
        return "Untested: whether the model reads what was learned is open."
    learned, site = (found.effects[name].fldd.value for name in ("learned", "whole site"))
    start = {
        "genuine": "Genuine: what the readers see of it",
        "mixed": "In part an illusion: what the readers see of it",
        "illusion": "An illusion: what the readers see of it",
        "no effect": "No effect: it does no more than random subspaces, or less than 5%.",
        "other readers": "Read by others: what these readers do not see, patched alone, has over half of the effect. "
        "Name what else reads the site with --reader.",
        "untested": "Untested: the readers see nearly all of the space, or so little that any direction's seen part "
        "does as much. Name others with --reader.",
    }[found.verdict]
    if found.verdict in ("no effect", "other readers", "untested") or found.split.kept is None:
        return start
    kept = f"{start}, patched alone, keeps {_percent(found.split.kept)} of the effect."
    if learned > 1.2 * max(site, 1.0):
        kept += (
            f" It does {learned / max(site, 1.0):.1f} times what the whole site does ({number(site, 1)}%), as a "
            "pathway would that is dormant in the model's own runs."
        )
    elif learned < 0.5 * site:
        kept += f" It is {learned / site:.0%} of what the whole site does: most goes by other directions."
    return kept


def _percent(value: Estimate) -> str:
    return f"{value.value:.0%} [{value.low:.0%}, {value.high:.0%}]"


def search_words(intent: str, found: Search) -> str:
    if not found.layers:
        return f"Towards {intent}: no set of layers brings the source's answer by the last token's attention."
    ends = found.reading
    return (
        f"Towards {intent}: the last token's attention in layers {', '.join(map(str, found.layers))} brings the "
        f"source's answer to {number(ends.source[-1])} in the last layer (the base's own: {number(ends.base[-1])}; "
        f"the source's runs reach {number(found.reached)}). {found.n_readings} sets were tried."
    )


def sweep_rows(found: Steering) -> Iterator[tuple[str, ...]]:
    for place, each in enumerate(found.sweep):
        mark = {found.up: " c+", found.down: " c-"}.get(place, "")
        yield (
            f"{number(each.c)}{mark}",
            f"{each.memory.value:.1%}",
            f"{each.context.value:.1%}",
            f"{each.other:.1%}",
            _ratio(each),
            estimate(each.difference),
        )


def _ratio(each: Steered) -> str:
    return "-" if each.memory_ratio is None else number(each.memory_ratio)


def steering_words(found: Steering) -> str:
    """PairAcc beside chance, and what it says."""
    best, mean = max(found.random), sum(found.random) / len(found.random)
    verdict = (
        "It is a knob: it turns more prompts both ways than any random direction."
        if found.works
        else "It is no knob: random directions, with c chosen alike, turn as many prompts both ways."
    )
    rises = "rises with c throughout" if found.monotone else "does not rise with c throughout"
    return (
        f"PairAcc {share(found.pair_accuracy)}; {len(found.random)} random directions {mean:.1%}, the best "
        f"{best:.1%}. {verdict} The logit difference of memory over context {rises}. With nothing done the model "
        f"answers from memory on {found.own[0]:.1%} and from the context on {found.own[1]:.1%}."
    )
