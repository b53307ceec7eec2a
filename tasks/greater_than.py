"""Greater-than: which years can end what began in 1732?

Paper: Hanna, Liu & Variengien 2023, "How does GPT-2 compute greater-than?" (arXiv 2305.00586), section 2: the
year ends in two digits above those it began with, so there are many right answers and the metric is the
probability of all right years minus that of all wrong ones. Sentences and nouns are our own.

    clean      The war lasted from the year 1732 to the year 17   -> "33", "34", ... "99", against "00" ... "32"
    corrupt    The war lasted from the year 1701 to the year 17   (start-01)
    corrupt    The war lasted from the year 1758 to the year 17   (other-year)
    negative   The siege lasted from the year 1701 to the year 17

A tokenizer that writes a year as century and two digits (GPT-2: " 17" "32") is the paper's case; a year that it
writes otherwise (" 1901", "112" "3") is rejected, and is neither answer nor distractor. Where years are whole
words the prompt stops before the century and the answers are whole years (" 1733"); where every digit is a token
the answers are the tens above ("4" ... "9"), and a ten that has years on both sides (1732 and 1733) is in neither.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from circuits.errors import CircuitError
from circuits.prompts import PromptPair
from tasks.task import Lexicon, Reference, Task
from tasks.templates import end, fill
from tasks.words import OBJECTS, listed

FRAMES = {
    "lasted": "The {NOUN} lasted from the year {CENTURY}{YEAR} to the year",
    "began": "The {NOUN} began in the year {CENTURY}{YEAR} and was over in the year",
    "price": "The price of the {NOUN} rose from {CENTURY}{YEAR} to",
}
LASTING = listed(
    """war siege drought famine trial voyage treaty project strike festival campaign revolt feud truce alliance
    reign dispute journey expedition plague rebellion blockade tour exhibition contract boom crisis occupation
    debate experiment partnership marriage friendship conflict construction reform mission rivalry recession
    retreat ban boycott lease inquiry harvest illness exile pilgrimage hunt search survey migration"""
)
YEARS = tuple(str(year) for year in range(1100, 2000))
PROBES = ("1342", "1457", "1538", "1645", "1736", "1873")
_BEFORE = "to the year"


def _whole(lexicon: Lexicon, year: str) -> bool:
    return lexicon.length(" " + year, _BEFORE) == 1


def _two_digits(lexicon: Lexicon, year: str) -> bool:
    before = f"{_BEFORE} {year[:2]}"
    return lexicon.length(year[2:], before) == 1 and lexicon.breaks(year[2:], before)


def _digits(lexicon: Lexicon, year: str) -> bool:
    before = f"{_BEFORE} {year[:2]}"
    return (
        lexicon.length(year[2], before) == 1
        and lexicon.length(year[2:], before) == 2
        and lexicon.breaks(year[2:], before)
    )


@dataclass(frozen=True)
class Layout:
    """How a tokenizer writes years: what of " 1732" stands at the prompt's end, and what is asked for."""

    name: str
    fits: Callable[[Lexicon, str], bool]
    said: slice
    asked: slice

    def stop(self, year: str) -> str:
        return (" " + year)[self.said]

    def next(self, year: str) -> str:
        return (" " + year)[self.asked]


LAYOUTS = (
    Layout("whole years", _whole, slice(0, 0), slice(0, 5)),
    Layout("century and two digits", _two_digits, slice(0, 3), slice(3, 5)),
    Layout("digits", _digits, slice(0, 3), slice(3, 4)),
)


def layout_of(lexicon: Lexicon) -> Layout:
    """How most years are written. Raises CircuitError where it is none of the layouts."""
    for layout in LAYOUTS:
        if 2 * sum(layout.fits(lexicon, year) for year in PROBES) > len(PROBES):
            return layout
    raise CircuitError(
        f"Years such as {PROBES[0]} are neither one token for {lexicon.name} nor a century and two digits nor "
        "digit by digit, so greater-than has no answers. Choose another model."
    )


def _years(lexicon: Lexicon, layout: Layout) -> tuple[str, ...]:
    return lexicon.keep("years", YEARS, lambda year: layout.fits(lexicon, year))


def _sides(year: str, years: tuple[str, ...], layout: Layout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What can come next of the years above, and of those at or below; what is of both is in neither."""
    above = dict.fromkeys(layout.next(other) for other in years if other > year)
    below = dict.fromkeys(layout.next(other) for other in years if other <= year)
    return tuple(w for w in above if w not in below), tuple(w for w in below if w not in above)


def _draw(rng: random.Random, lexicon: Lexicon, layout: Layout) -> tuple[str, str, tuple[str, ...]]:
    """A year to begin in, another of its century, and the years of that century."""
    every = _years(lexicon, layout)
    for _ in range(1_000):
        year = rng.choice(every)
        century = tuple(y for y in every if y[:2] == year[:2])
        if "02" <= year[2:] <= "98" and year[:2] + "01" in century and all(_sides(year, century, layout)):
            return year, rng.choice([y for y in century if y[2:] > "01" and y != year]), century
    raise CircuitError(
        f"Of no century are the first year and years above it one token for {lexicon.name}, so greater-than has no "
        "pairs. Choose another model."
    )


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    layout = layout_of(lexicon)
    kind, list_of_nouns = ("objects", OBJECTS) if form == "price" else ("things that last", LASTING)
    noun, another = rng.sample(lexicon.single(kind, list_of_nouns, after="The"), 2)
    year, other, century = _draw(rng, lexicon, layout)
    first = century[0][:2] + "01"
    template = FRAMES[form] + layout.stop(year)

    def said(noun: str, year: str) -> dict[str, str]:
        return {"NOUN": noun, "CENTURY": year[:2], "YEAR": year[2:]}

    clean, spans = fill(template, said(noun, year))
    answers, distractors = _sides(year, century, layout)
    return PromptPair(
        clean=clean,
        corrupt=fill(template, said(noun, first if corruption == "start-01" else other))[0],
        answers=answers,
        distractors=distractors,
        positions=spans | {"END": end(clean)},
        negative=fill(template, said(another, first))[0],
        template=f"{form} | century {year[:2]}",
        key=f"{noun}|{year}",
    )


TASK = Task(
    name="greater-than",
    summary="Greater-than: a year above the one it began in.",
    paper="Hanna et al. 2023, arXiv 2305.00586",
    metric="probability-difference",
    forms={
        "lasted": "from the year 1732 to the year 17, as in the paper",
        "began": "began in the year 1732 and was over in the year 17",
        "price": "a price that rose from 1732 to 17",
    },
    corruptions={
        "start-01": "it began in the century's first year, so nearly every year will do",
        "other-year": "it began in another year of the century",
    },
    generate=_generate,
    references={
        "gpt2": Reference(
            source="Hanna et al. 2023, arXiv 2305.00586; list as in ACDC (Conmy et al. 2023)",
            roles={
                "early": ("a0.h1", "a0.h3", "a0.h5"),
                "year": ("a5.h5", "a6.h1", "a6.h9", "a7.h10", "a8.h11", "a9.h1"),
            },
            note="the circuit has the MLPs 0 to 3 and 8 to 11 beside these heads",
            forms=("lasted",),
        )
    },
)
