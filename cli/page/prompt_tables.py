"""The prompts of a run as a table of a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from circuits.prompts import PromptPair
from circuits.runs import RunFolder
from cli.page.page import macro

SHOWN = 12
MOST = 400
_HEADER = ("prompt", "half", "clean", "corrupted", "answers", "distractors")


def prompts_part(run: RunFolder) -> Markup:
    """The first judged prompts, and the others folded away."""
    halves = run.run.get("prompts", {})
    judged, found = (list(halves.get(half) or ()) for half in ("judged", "discovery"))
    order = [(i, "judged") for i in judged] + [(i, "discovery") for i in found]
    order = order or [(i, "") for i in range(len(run.prompts))]
    first, others = order[:SHOWN], order[SHOWN:MOST]
    shown = Markup('<div class="scrolls" tabindex="0" role="region" aria-label="prompts">{}</div>')
    body = shown.format(_table(run.prompts, first))
    if others:
        body += Markup("<details><summary>{} more</summary>{}</details>").format(
            len(others), shown.format(_table(run.prompts, others))
        )
    if left := len(order) - MOST:
        body += Markup("<p>{} more stand in prompts.jsonl.</p>").format(left) if left > 0 else Markup()
    return body


def _table(prompts: Sequence[PromptPair], order: Sequence[tuple[int, str]]) -> Markup:
    return macro("table", header=_HEADER, rows=list(_rows(prompts, order)), caption="")


def _rows(prompts: Sequence[PromptPair], order: Sequence[tuple[int, str]]) -> Iterator[tuple[str, ...]]:
    for i, half in order:
        pair = prompts[i]
        yield str(i + 1), half, pair.clean, pair.corrupt, _few(pair.answers), _few(pair.distractors)


def _few(words: Sequence[str], most: int = 4) -> str:
    more = f", ... ({len(words)})" if len(words) > most else ""
    return ", ".join(words[:most]) + more
