"""Arithmetic: the sum or the difference of two numbers from 0 to 99.

Data: made from the numbers themselves. Paper: Zhang et al. 2024, "Interpreting and Improving Large Language
Models in Arithmetic Calculation" (arXiv 2409.01659), which replaces the operator by a symbol without meaning
(here the negative). The default corruption replaces one operand (after Stolfo et al. 2023, arXiv 2305.15054).

    clean     37+45=    -> "82"
    corrupt   37+21=    -> "58"
    negative  37@45=

The corruption `operator` keeps the operands and takes the other operator (37-12= for 37+12=), as the third kind of
pair of Stolfo et al. does; forms say which operator the clean prompt has.

A difference is never below zero. A result that is not one token for the tokenizer at hand is left out, so one that
splits numbers into digits leaves results of one digit (98-95=); with longer answers all results count, by their first
digit or as a whole. Operands may be of several tokens, of equally many where one takes another's place.
"""

from __future__ import annotations

import random
from functools import lru_cache

from circuits.errors import CircuitError
from circuits.prompts import PromptPair
from tasks.task import Lexicon, Reference, Task
from tasks.templates import end, fill

LARGEST = 99
OPERANDS = tuple(str(i) for i in range(LARGEST + 1))
RESULTS = tuple(str(i) for i in range(2 * LARGEST + 1))
OPERATORS = {"mixed": "+-", "addition": "+", "subtraction": "-"}
NULL_SYMBOLS = "@#"
TRIES = 10_000


def result(a: int, operator: str, b: int) -> int:
    """The value of the problem; negative where b is larger than a."""
    return a + b if operator == "+" else a - b


@lru_cache(maxsize=64)
def _as_numbers(
    operands: tuple[str, ...], results: tuple[str, ...]
) -> tuple[tuple[int, ...], frozenset[int]]:
    return tuple(map(int, operands)), frozenset(map(int, results))


def _numbers(lexicon: Lexicon, operator: str) -> tuple[tuple[int, ...], frozenset[int]]:
    """The results that can be answers, and the operands, none of them above all sums that count."""
    results = lexicon.answers("results", RESULTS, after="1+1=", prefix="")
    most = LARGEST if operator == "-" else min(LARGEST, max(map(int, results)))
    return _as_numbers(OPERANDS[: most + 1], results)


def _as_long(lexicon: Lexicon, one: int, other: int) -> bool:
    return lexicon.length(str(one), "1+") == lexicon.length(str(other), "1+")


def _two_problems(
    rng: random.Random, lexicon: Lexicon, operator: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two pairs of operands that differ in one operand and in the result."""
    operands, results = _numbers(lexicon, operator)
    for _ in range(TRIES):
        a, b, c = rng.choice(operands), rng.choice(operands), rng.choice(operands)
        other, replaced = ((c, b), a) if rng.random() < 0.5 else ((a, c), b)
        values = {result(a, operator, b), result(other[0], operator, other[1])}
        if len(values) == 2 and values <= results and _as_long(lexicon, replaced, c):
            return (a, b), other
    raise CircuitError(
        f"{lexicon.name} has too few numbers of one token for arithmetic. Choose another model."
    )


def _two_operators(
    rng: random.Random, lexicon: Lexicon, operator: str, other: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Operands, twice, whose sum and difference are both results, and differ."""
    operands, results = _numbers(lexicon, "+")
    for _ in range(TRIES):
        a, b = rng.choice(operands), rng.choice(operands)
        values = {result(a, operator, b), result(a, other, b)}
        if len(values) == 2 and values <= results:
            return (a, b), (a, b)
    raise CircuitError(
        f"{lexicon.name} has too few numbers of one token for arithmetic. Choose another model."
    )


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    operator = rng.choice(OPERATORS[form])
    other = operator if corruption == "operand" else "+-".replace(operator, "")
    if other == operator:
        (a, b), (c, d) = _two_problems(rng, lexicon, operator)
    else:
        (a, b), (c, d) = _two_operators(rng, lexicon, operator, other)
    clean, spans = fill("{A}{OPERATOR}{B}=", {"A": str(a), "OPERATOR": operator, "B": str(b)})
    return PromptPair(
        clean=clean,
        corrupt=f"{c}{other}{d}=",
        answers=(str(result(a, operator, b)),),
        distractors=(str(result(c, other, d)),),
        positions=spans | {"END": end(clean)},
        negative=f"{a}{rng.choice(NULL_SYMBOLS)}{b}=",
        template=operator,
        key=f"{a}{operator}{b}",
    )


TASK = Task(
    name="arithmetic",
    summary="Arithmetic: the sum or the difference of two numbers from 0 to 99.",
    paper="Zhang et al. 2024, arXiv 2409.01659",
    metric="logit-difference",
    forms={
        "mixed": "sums and differences",
        "addition": "sums",
        "subtraction": "differences, never below zero",
    },
    corruptions={
        "operand": "one operand is another number, so the answer changes",
        "operator": "the operator is the other one, so the answer changes",
    },
    generate=_generate,
    references={
        "meta-llama/Llama-2-7b-hf": Reference(
            source="Zhang et al. 2024, arXiv 2409.01659, section 4",
            roles={
                "operand": ("a13.h11", "a12.h22", "a15.h15"),
                "operator": ("a14.h2", "a11.h8"),
                "other": ("a16.h0",),
            },
            note="the heads that the text names, for sums and differences of digits",
        )
    },
)
