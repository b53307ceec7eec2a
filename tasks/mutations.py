"""Mutations: the same multiple-choice prompts with other labels, other marks behind them, or less before them.

The one idea: one thing changes and the question stays, so what is lost is due to that thing. They are edits of texts
that have lines like "A. gray", so they serve a user's own prompts of that layout too; spans move with the text.
Source: Lieberum et al. 2023 (arXiv 2307.09458), who change letters, separators and preamble; the texts are ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from circuits.errors import CircuitError, PromptError, UnknownNameError
from circuits.prompts import PromptPair
from tasks.task import Lexicon
from tasks.templates import Span

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
DIGITS = tuple("123456789")
_LABEL = re.compile(r"^(\w+)(?=\. )", re.MULTILINE)
_MARK = re.compile(r"(?<=^\w)\.(?= )", re.MULTILINE)
_PREAMBLE = re.compile(r"\AQuestion: ")

Draw = Callable[[random.Random, Sequence[str], Sequence[str]], Sequence[str]]
"""The labels of a prompt, capitals that the tokenizer has -> what stands in their places, in that order."""


@dataclass(frozen=True)
class Mutation:
    """meaning: in words. draw: new labels, where they change. cut: what is replaced in texts, and by what."""

    meaning: str
    draw: Draw | None = None
    cut: tuple[re.Pattern[str], str] | None = None


def _capitals(rng: random.Random, labels: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    others = [letter for letter in known if letter not in labels]
    return rng.sample(others, len(labels)) if len(others) >= len(labels) else LETTERS[-len(labels) :]


def _reordered(rng: random.Random, labels: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """In another order, in which none keeps its place."""
    found = list(labels)
    while len(labels) > 1 and any(a == b for a, b in zip(found, labels, strict=True)):
        rng.shuffle(found)
    return found


MUTATIONS: Mapping[str, Mutation] = {
    "random-capitals": Mutation("other capitals, drawn for each prompt", _capitals),
    "other-letters": Mutation(
        "J, K, L, M in the places of the labels", lambda rng, own, known: LETTERS[9 : 9 + len(own)]
    ),
    "digits": Mutation("1, 2, 3, 4 in the places of the labels", lambda rng, own, known: DIGITS[: len(own)]),
    "permuted-labels": Mutation("the same labels in another order, drawn for each prompt", _reordered),
    "separators": Mutation('"A) gray" for "A. gray"', cut=(_MARK, ")")),
    "no-preamble": Mutation('without "Question:"', cut=(_PREAMBLE, "")),
}


def mutated(pairs: Sequence[PromptPair], name: str, *, seed: int, lexicon: Lexicon) -> tuple[PromptPair, ...]:
    """Each pair under the mutation; the same seed gives the same.

    Raises UnknownNameError; PromptError for a prompt without such lines, and CircuitError where the tokenizer cannot
    tell the new labels, or a prompt stays the same.
    """
    if name not in MUTATIONS:
        raise UnknownNameError("mutation", name, MUTATIONS)
    rng = random.Random(f"mutation/{name}/{seed}")
    known = [letter for letter in LETTERS if lexicon.length(letter, "?\n") == 1]
    found = tuple(
        _mutated(pair, MUTATIONS[name], rng, known, f"prompt {n + 1}") for n, pair in enumerate(pairs)
    )
    if same := [n + 1 for n, (a, b) in enumerate(zip(pairs, found, strict=True)) if a.clean == b.clean]:
        raise CircuitError(f"Mutation {name} changes nothing in prompt {same[0]}. Leave it out.")
    for pair in found:
        for answer in (*pair.answers, *pair.distractors):
            if lexicon.length(answer, pair.clean) != 1:
                raise CircuitError(
                    f"{answer.strip()!r} is not one token of {lexicon.name}, so mutation {name} cannot be asked "
                    "there. Leave it out, or choose another model."
                )
    return found


def _mutated(
    pair: PromptPair, mutation: Mutation, rng: random.Random, known: Sequence[str], where: str
) -> PromptPair:
    own = [found[1] for found in _LABEL.finditer(pair.clean)]
    if {a.strip() for a in (*pair.answers, *pair.distractors)} != set(own):
        raise PromptError(
            f"{where} has no lines like 'A. gray' for each of its answers and distractors, so there is nothing to "
            "mutate. Mutations are for multiple-choice, and prompts of its layout."
        )
    new = dict(zip(own, mutation.draw(rng, own, known), strict=True)) if mutation.draw else {}
    # Labels of the corrupted prompt alone stand for labels that nothing else uses.
    others = [found[1] for found in _LABEL.finditer(pair.corrupt) if found[1] not in own]
    free = [
        x for x in (DIGITS if set(new.values()) & set(DIGITS) else LETTERS) if x not in {*own, *new.values()}
    ]
    new |= dict(zip(others, free, strict=False)) if new else {}
    clean, spans = _rewritten(pair.clean, mutation, new, pair.positions)
    answers, distractors = (
        tuple(" " + new.get(a.strip(), a.strip()) for a in side) for side in (pair.answers, pair.distractors)
    )
    return replace(
        pair,
        clean=clean,
        corrupt=_rewritten(pair.corrupt, mutation, new, {})[0],
        answers=answers,
        distractors=distractors,
        positions=spans,
        negative=_rewritten(pair.negative, mutation, new, {})[0],
    )


def _rewritten(
    text: str, mutation: Mutation, new: Mapping[str, str], spans: Mapping[str, Span]
) -> tuple[str, dict[str, Span]]:
    if mutation.cut:
        pattern, by = mutation.cut
        edits = [(found.span(), by) for found in pattern.finditer(text)]
    else:
        edits = [(found.span(), new[found[1]]) for found in _LABEL.finditer(text)]
    return edited(text, edits, spans)


def edited(
    text: str, edits: Sequence[tuple[Span, str]], spans: Mapping[str, Span]
) -> tuple[str, dict[str, Span]]:
    """The text with some spans replaced, in order, and where other spans land."""
    parts, done = [], 0
    for (start, stop), by in edits:
        parts += [text[done:start], by]
        done = stop

    def moved(position: int) -> int:
        return position + sum(len(by) - (b - a) for (a, b), by in edits if b <= position)

    return "".join([*parts, text[done:]]), {name: (moved(a), moved(b)) for name, (a, b) in spans.items()}
