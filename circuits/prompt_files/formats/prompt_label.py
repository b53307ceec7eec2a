"""A JSON list of [prompt, label], with a second one for the corrupted twins in the same order.

Merullo et al. 2023 (arXiv 2310.08744, github.com/jmerullo/circuit_reuse) publish colored objects so; the label of
the corrupted prompt is the distractor of the clean one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from circuits.errors import PromptError
from circuits.prompt_files.content import Content, Entry, content_of, refuse
from circuits.prompt_files.formats.format import Format, Rows
from circuits.prompt_files.records import PromptRow
from circuits.prompts import PromptPair


def read_prompt_lists(clean: Path, corrupt: Path) -> tuple[PromptPair, ...]:
    """The pairs of two JSON lists of [prompt, label]. Raises PromptError that names every bad entry by its index."""
    pairs = tuple(row.pair() for row in twin_rows(clean, corrupt))
    if len(pairs) < 2:
        raise PromptError(
            f"{clean} holds {len(pairs)} prompts; at least 2 are needed, one to discover on and one to judge on."
        )
    return pairs


def twin_rows(clean: Path, corrupt: Path) -> tuple[PromptRow, ...]:
    """The same as rows, however few."""
    ours, theirs = _listed(clean), _listed(corrupt)
    if len(ours) != len(theirs):
        raise PromptError(
            f"{clean} holds {len(ours)} prompts and {corrupt} {len(theirs)}: each needs its corrupted twin, in order."
        )
    problems = [
        f"index {i}: {what} {one!r} is that of the corrupted twin as well"
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=True))
        for what, one, two in (("prompt", mine.clean, other.clean), ("label", *mine.answers, *other.answers))
        if one == two
    ]
    refuse(problems, f"{clean} and {corrupt} have {{}}", "bad pair", "bad pairs")
    return tuple(
        replace(mine, corrupt=other.clean, distractors=other.answers)
        for mine, other in zip(ours, theirs, strict=True)
    )


def _listed(path: Path) -> list[PromptRow]:
    content = content_of(path)
    if content.carrier != "list":
        raise PromptError(
            f"{path} is no JSON list of [prompt, label]. JSON Lines hold both sides of a pair: leave out "
            "--corrupt-prompts."
        )
    return rows(content)


def rows(content: Content) -> list[PromptRow]:
    content.refuse(
        Entry(number, f"{json.dumps(value)[:60]} is not [prompt, label], two texts that are not empty")
        for number, value in content.entries
        if not _is_labelled(value)
    )
    return [PromptRow(content.where(n), text, (label,)) for n, (text, label) in content.entries]


def _is_labelled(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str) and x for x in entry)


def _recognises(content: Content) -> bool:
    return content.carrier == "list" and not isinstance(content.first, dict)


def _read(content: Content, column: str | None) -> Rows:
    return [*rows(content)]


FORMAT = Format(
    name="prompt-label",
    summary="one side of pairs, as Merullo et al. 2023 publish colored objects; the other by --corrupt-prompts",
    holds='[["...", " x"], ...]',
    recognises=_recognises,
    read=_read,
    pair_free=True,
)
