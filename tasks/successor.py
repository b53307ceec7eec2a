"""Successor: what comes next in a sequence that everyone knows?

Paper: Gould et al. 2023, "Successor Heads: Recurring, Interpretable Attention Heads In The Wild" (arXiv
2312.09230): numbers, number words, days, months and letters share the heads that count on. Prompts are our own;
the corruption without a pattern is after Lan, Torr & Barez 2024 (arXiv 2311.04131).

    clean     She wrote: Monday, Tuesday, Wednesday,    -> " Thursday"
    corrupt   She wrote: Friday, Saturday, Sunday,      -> " Monday"      (shifted)
    corrupt   She wrote: Sunday, Tuesday, Friday,                         (shuffled)
    negative  She wrote: Thursday, Monday, Saturday,

Three to six words stand in the list. Days and months go round. In `shifted` the distractor is the right answer
of the corrupted prompt; in `shuffled`, which has none, it is the last word of the clean one. Where a number
takes a token of its own for its space, numbers are written without ("3,4,5,").
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from circuits.errors import CircuitError
from circuits.prompts import PromptPair
from tasks.task import Lexicon, Reference, Task
from tasks.templates import Span, end
from tasks.words import listed

ITEMS: dict[str, tuple[str, ...]] = {
    "days": listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "months": listed(
        """January February March April May June July August September October November December"""
    ),
    "numbers": tuple(str(i) for i in range(100)),
    "number-words": listed(
        """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty"""
    ),
    "letters": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
}
CYCLES = frozenset({"days", "months"})
WHO = ("I", "She", "He", "They", "We", "The teacher")
SAID = ("wrote", "said", "read", "typed", "sang")
LENGTHS = (3, 4, 5, 6)
SEPARATORS = {"commas": ",", "semicolons": ";", "spaces": ""}
TRIES = 10_000


def _gap(lexicon: Lexicon, form: str) -> str:
    """What stands between a separator and the next word: nothing where a number's space is a token of its own."""
    return "" if form == "numbers" and lexicon.length(" 7", "5, 6,") > 1 else " "


def _known(lexicon: Lexicon, form: str, gap: str) -> tuple[int, ...]:
    """Places in the order whose word is one token."""
    kept = set(lexicon.single(form, ITEMS[form], after="9,", prefix=gap))
    return tuple(place for place, word in enumerate(ITEMS[form]) if word in kept)


def _next(form: str, place: int) -> int | None:
    """The place behind `place`; None behind the last of what does not go round."""
    following = place + 1
    return following % len(ITEMS[form]) if form in CYCLES or following < len(ITEMS[form]) else None


@lru_cache(maxsize=256)
def _runs(form: str, known: tuple[int, ...], length: int) -> tuple[tuple[int, ...], ...]:
    """Every sequence of `length` known places in order, one a start."""
    runs = []
    for start in known:
        run = [start]
        while len(run) < length and (place := _next(form, run[-1])) in known and place is not None:
            run.append(place)
        if len(run) == length:
            runs.append(tuple(run))
    return tuple(runs)


def _two_runs(
    rng: random.Random, lexicon: Lexicon, form: str, known: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two sequences of one length, the successor last, that start in different places."""
    possible = [runs for length in LENGTHS if len(runs := _runs(form, known, length + 1)) > 1]
    if not possible:
        raise CircuitError(
            f"Too few {form} in a row are one token for {lexicon.name}. Choose another model, or another --form."
        )
    one, other = rng.sample(rng.choice(possible), 2)
    return one, other


def _patternless(
    rng: random.Random, lexicon: Lexicon, form: str, known: Sequence[int], run: Sequence[int]
) -> tuple[int, ...]:
    """As many known places as `run` has before its last, in an order that leads nowhere, and not to its last."""
    size = len(ITEMS[form])
    for _ in range(TRIES):
        drawn = tuple(rng.sample(known, len(run) - 1))
        steps = [(b - a) % size for a, b in pairwise(drawn)]
        if len(set(steps)) > 1 and not {1, size - 1} & set(steps) and _next(form, drawn[-1]) != run[-1]:
            return drawn
    raise CircuitError(
        f"Too few {form} are one token for {lexicon.name} to stand without a pattern. Choose another model, or "
        "another --form."
    )


def _write(opening: str, words: Sequence[str], separator: str, gap: str) -> tuple[str, Span, Span]:
    """The prompt, and where its first and its last word stand."""
    text = f"{opening} " + (separator + gap).join(words) + separator
    start, stop = len(opening) + 1, len(text) - len(separator)
    return text, (start, start + len(words[0])), (stop - len(words[-1]), stop)


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    gap = _gap(lexicon, form)
    known = _known(lexicon, form, gap)
    (*shown, answer), (*shifted, wrong) = _two_runs(rng, lexicon, form, known)
    opening = f"{rng.choice(WHO)} {rng.choice(SAID)}:"
    between = rng.choice([name for name, mark in SEPARATORS.items() if mark or gap])
    if corruption == "shuffled":
        shifted, wrong = list(_patternless(rng, lexicon, form, known, (*shown, answer))), shown[-1]
    elsewhere = _patternless(rng, lexicon, form, known, (*shown, answer))

    def prompt(places: Sequence[int]) -> tuple[str, Span, Span]:
        return _write(opening, [ITEMS[form][place] for place in places], SEPARATORS[between], gap)

    clean, first, last = prompt(shown)
    return PromptPair(
        clean=clean,
        corrupt=prompt(shifted)[0],
        answers=(gap + ITEMS[form][answer],),
        distractors=(gap + ITEMS[form][wrong],),
        positions={"FIRST": first, "LAST": last, "END": end(clean)},
        negative=prompt(elsewhere)[0],
        template=f"{between} | {len(shown)}",
        key=clean,
    )


TASK = Task(
    name="successor",
    summary="Successor: the next day, month, number or letter of a sequence.",
    paper="Gould et al. 2023, arXiv 2312.09230",
    metric="logit-difference",
    forms={
        "days": "days of the week",
        "months": "months of the year",
        "numbers": "numbers from 0 to 99",
        "number-words": "one to twenty, in words",
        "letters": "capital letters",
    },
    corruptions={
        "shifted": "the sequence starts elsewhere, so the answer changes",
        "shuffled": "words of the same kind in an order without a pattern",
    },
    generate=_generate,
    references={
        "EleutherAI/pythia-1.4b": Reference(
            source="Gould et al. 2023, arXiv 2312.09230",
            roles={"successor": ("a12.h0",)},
            note="the paper's case; its score, from the weights alone, is eight times the next head's",
        )
    },
)
