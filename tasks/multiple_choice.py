"""Multiple choice: the letter that stands before the right option.

Papers: Wiegreffe et al. 2024, "Answer, Assemble, Ace: Understanding How LMs Answer Multiple Choice Questions"
(arXiv 2407.15018), section 3, for colours copied from the prompt (MIB's MCQA, arXiv 2504.13151); the form
`facts` has the shape of ARC, where the model must know the answer. Questions are our own (tasks/facts.py).

    clean           Question: The box is brown. What color is the box?
                    A. gray
                    B. brown
                    C. white
                    D. black
                    Answer:                                     -> " B", against " A", " C", " D"
    corrupt         A. gray   B. black  C. white  D. brown      -> " D"   (position)
    corrupt         C. gray   D. brown  B. white  A. black      -> " D"   (letters)
    corrupt         R. gray   K. brown  V. white  N. black                (random-letters)
    negative        ... What color is the lamp?

Every option is one token, and so is every letter, so the layout is fixed for one question. Where a tokenizer joins
a letter with the line's end, the next ones serve: the clean labels are the first four letters that fit.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from circuits.prompts import PromptPair
from tasks.facts import FACTS
from tasks.task import Lexicon, Task
from tasks.templates import end, fill
from tasks.words import COLOURS, NO_COUNTRY, OBJECTS

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
N_OPTIONS = 4
LAYOUT = "Question: {question}" + "".join(f"\n{{L{i}}}. {{O{i}}}" for i in range(N_OPTIONS)) + "\nAnswer:"
COLOUR_QUESTIONS = (
    "The {THING} is {colour}. What color is the {ASKED}?",
    "I have a {THING} that is {colour}. Which color does the {ASKED} have?",
    "Someone painted the {THING} {colour}. What is the color of the {ASKED}?",
)
FACT_QUESTIONS = {
    "capital": "What is the capital of {ASKED}?",
    "language": "What is the main language of {ASKED}?",
    "continent": "On which continent is {ASKED}?",
}


class Question(NamedTuple):
    """A question and its twin without an answer, the right option and the wrong ones."""

    label: str
    text: str
    words: Mapping[str, str]
    unanswerable: Mapping[str, str]
    right: str
    wrong: Sequence[str]


def _about_colour(rng: random.Random, lexicon: Lexicon) -> Question:
    thing, absent = rng.sample(lexicon.single("objects", OBJECTS), 2)
    right, *wrong = rng.sample(lexicon.single("colours", COLOURS, least=N_OPTIONS), N_OPTIONS)
    number = rng.randrange(len(COLOUR_QUESTIONS))
    words = {"THING": thing, "colour": right, "ASKED": thing}
    return Question(
        f"colour {number + 1}", COLOUR_QUESTIONS[number], words, words | {"ASKED": absent}, right, wrong
    )


def _about_fact(rng: random.Random, lexicon: Lexicon) -> Question:
    relation = rng.choice(tuple(FACT_QUESTIONS))
    options = tuple(dict.fromkeys(answer for _, answer in FACTS[relation]))
    known = lexicon.single(f"options ({relation})", options, after="A.", least=N_OPTIONS)
    subject, right = rng.choice([fact for fact in FACTS[relation] if fact[1] in known])
    wrong = rng.sample([option for option in known if option != right], N_OPTIONS - 1)
    nothing = {"ASKED": rng.choice(NO_COUNTRY)}
    return Question(relation, FACT_QUESTIONS[relation], {"ASKED": subject}, nothing, right, wrong)


QUESTIONS = {"colours": _about_colour, "facts": _about_fact}


def _letters(lexicon: Lexicon) -> tuple[str, ...]:
    """The letters that are one token before an option and in the answer."""

    def fits(letter: str) -> bool:
        alone = lexicon.breaks(letter, "?\n") and lexicon.length(letter, "?\n") == 1
        return alone and lexicon.length(" " + letter, "Answer:") == 1

    return lexicon.keep("letters of options", LETTERS, fits, least=2 * N_OPTIONS)


def _corrupted(
    rng: random.Random, corruption: str, options: Sequence[str], letters: Sequence[str], place: int
) -> tuple[list[str], list[str]]:
    """Options and labels of the corrupted prompt; the right option stands at `place` in the clean one."""
    options, labels = list(options), list(letters[:N_OPTIONS])
    other = rng.choice([i for i in range(N_OPTIONS) if i != place])
    if corruption == "position":
        options[place], options[other] = options[other], options[place]
    elif corruption == "letters":
        rest = rng.sample([label for i, label in enumerate(labels) if i != other], N_OPTIONS - 1)
        labels = [*rest[:place], labels[other], *rest[place:]]
    else:
        labels = rng.sample(letters[N_OPTIONS:], N_OPTIONS)
    return options, labels


def _prompt(
    question: Question, words: Mapping[str, str], options: Sequence[str], labels: Sequence[str]
) -> tuple[str, dict[str, tuple[int, int]]]:
    lines = {f"O{i}": option for i, option in enumerate(options)}
    lines |= {f"L{i}": label for i, label in enumerate(labels)}
    return fill(LAYOUT.replace("{question}", question.text), {**words, **lines})


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    letters = _letters(lexicon)
    labels = letters[:N_OPTIONS]
    question = QUESTIONS[form](rng, lexicon)
    place = rng.randrange(N_OPTIONS)
    options = [*question.wrong[:place], question.right, *question.wrong[place:]]
    clean, spans = _prompt(question, question.words, options, labels)
    return PromptPair(
        clean=clean,
        corrupt=_prompt(question, question.words, *_corrupted(rng, corruption, options, letters, place))[0],
        answers=(" " + labels[place],),
        distractors=tuple(" " + label for i, label in enumerate(labels) if i != place),
        positions={
            "ASKED": spans["ASKED"],
            "LETTER": spans[f"L{place}"],
            "OPTION": spans[f"O{place}"],
            "END": end(clean),
        },
        negative=_prompt(question, question.unanswerable, options, labels)[0],
        template=f"{question.label} | answer {labels[place]}",
        key=f"{question.words['ASKED']}|{question.right}|{labels[place]}",
    )


TASK = Task(
    name="multiple-choice",
    summary="Multiple choice: the letter of the right one of four options.",
    paper="Wiegreffe et al. 2024, arXiv 2407.15018",
    metric="logit-difference",
    forms={
        "colours": "the right option is copied from the question (MCQA)",
        "facts": "the right option must be known (the form of ARC)",
    },
    corruptions={
        "position": "the right option trades places with another, so the letter changes",
        "letters": "the same letters stand before other options, so the letter changes",
        "random-letters": "four other letters, so none of the clean prompt's is right",
    },
    generate=_generate,
)
