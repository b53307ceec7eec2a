"""Colored objects: what colour is the thing that is asked for?

Data: our own things and colours (tasks/words.py) in the one-shot layout of Merullo et al. 2023, "Circuit
Component Reuse Across Tasks" (arXiv 2310.08744), section 3, made from the BIG-bench task "Reasoning about
Colored Objects". The colour is lower case in the list and capitalised in the answer. In the corrupted prompt
another thing of the same list is asked for, so the answer flips; in the negative, a thing that is not there.

    clean     Q: On the desk, there is a red pen, a blue cup, and a gold key. What color is the cup?
              A: Blue
              Q: On the table, I see a black ring, a pink bag, and a green plate. What color is the bag?
              A:                                                                              -> " Pink"
    corrupt   ... What color is the ring?\\nA:                                                 -> " Black"
    negative  ... What color is the lamp?\\nA:

The form `one-shot` (the default, the paper's) has the answered question first; `zero-shot` has the last
question alone. Token layout is fixed: where every word is one token, each position means the same everywhere.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from circuits.prompts import PromptPair
from tasks.task import Lexicon, Reference, Task, one_of
from tasks.templates import Span, end, fill
from tasks.words import COLOURS, OBJECTS, SURFACES

STARTS = ("there is", "you see", "I see")
LIST = (
    "Q: On the {surface}, {start} {an0}{COLOR0} {OBJECT0}, "
    "{an1}{COLOR1} {OBJECT1}, and {an2}{COLOR2} {OBJECT2}."
)
QUESTION = " What color is the {ASKED}?\nA:"

_BLOCK = re.compile(
    r"Q: On the \w+, [\w ]+? an? (\w+) (\w+), an? (\w+) (\w+), and an? (\w+) (\w+)\. What color is the (\w+)\?\nA:$"
)
"""The last list and question of a prompt: colour and thing three times, and what is asked for."""


def positions_of(prompt: str) -> dict[str, Span]:
    """The named positions of a prompt of this layout, whoever wrote it; END alone where it is of another."""
    found = _BLOCK.search(prompt)
    things = [found[i] for i in (2, 4, 6)] if found else []
    if not found or things.count(found[7]) != 1:
        return {"END": end(prompt)}
    asked = things.index(found[7])
    return _positions([found.span(i) for i in (1, 3, 5)], found.span(2 + 2 * asked), asked) | {
        "ASKED": found.span(7),
        "END": end(prompt),
    }


def _positions(colours: Sequence[Span], thing: Span, asked: int) -> dict[str, Span]:
    wrong = [span for i, span in enumerate(colours) if i != asked]
    return {"OBJECT": thing, "RIGHT": colours[asked], "WRONG1": wrong[0], "WRONG2": wrong[1]}


def _article(word: str) -> str:
    return "an " if word[0] in "aeiou" else "a "


def _colours(lexicon: Lexicon) -> tuple[str, ...]:
    """The colours that can be answers, capitalised; of one token in the list too, where that leaves enough."""
    said = [c.capitalize() for c in COLOURS]
    answers = set(lexicon.answers("colours in answers", said, after="A:", least=3))
    good = tuple(c for c in COLOURS if c.capitalize() in answers)
    short = tuple(c for c in good if lexicon.length(" " + c, "the") == 1)
    if len(short) < 3:
        return good
    lexicon.rejected["colours"] = tuple(c for c in COLOURS if lexicon.length(" " + c, "the") != 1)
    return short


def _block(rng: random.Random, colours: Sequence[str], objects: Sequence[str]) -> dict[str, str]:
    """The words of one list of three things."""
    words = {"surface": rng.choice(SURFACES), "start": rng.choice(STARTS)}
    for i, (colour, thing) in enumerate(zip(colours, objects, strict=True)):
        words |= {f"an{i}": _article(colour), f"COLOR{i}": colour, f"OBJECT{i}": thing}
    return words


def _shot(rng: random.Random, colours: Sequence[str], objects: Sequence[str]) -> str:
    asked = rng.randrange(3)
    text, _ = fill(LIST + QUESTION, _block(rng, colours, objects) | {"ASKED": objects[asked]})
    return f"{text} {colours[asked].capitalize()}\n"


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    palette, things = _colours(lexicon), one_of(rng, lexicon.alike("objects", OBJECTS, least=7))
    objects = rng.sample(things, 7)
    colours = rng.sample(palette, 3)
    before = _shot(rng, rng.sample(palette, 3), objects[3:6]) if form == "one-shot" else ""
    asked, other = rng.sample(range(3), 2)
    words = _block(rng, colours, objects[:3])
    template = before + LIST + QUESTION
    clean, spans = fill(template, words | {"ASKED": objects[asked]})
    return PromptPair(
        clean=clean,
        corrupt=fill(template, words | {"ASKED": objects[other]})[0],
        answers=(" " + colours[asked].capitalize(),),
        distractors=(" " + colours[other].capitalize(),),
        positions=_positions([spans[f"COLOR{i}"] for i in range(3)], spans[f"OBJECT{asked}"], asked)
        | {"ASKED": spans["ASKED"], "END": end(clean)},
        negative=fill(template, words | {"ASKED": objects[6]})[0],
        template=f"{words['start']} | thing {asked + 1} of 3",
        key=f"{objects[asked]}|{colours[asked]}",
    )


TASK = Task(
    name="colored-objects",
    summary="Colored objects: the colour of the one of three things that is asked for.",
    paper="Merullo et al. 2023, arXiv 2310.08744",
    metric="logit-difference",
    forms={
        "one-shot": "an answered question about another list comes first, as in the paper",
        "zero-shot": "one list and one question",
    },
    corruptions={"other-object": "another thing of the list is asked for, so the answer flips"},
    generate=_generate,
    references={
        "gpt2-medium": Reference(
            source="Merullo et al. 2023, arXiv 2310.08744, sections 4 and 5",
            roles={
                "mover": ("a15.h14", "a16.h15", "a17.h4", "a18.h5", "a19.h15"),
                "content gatherer": ("a11.h6", "a11.h7", "a12.h15"),
                "induction": ("a9.h3",),
                "duplicate token": ("a6.h4",),
            },
            note="the heads that the text names; the full list stands in a figure only",
            forms=("one-shot",),
        )
    },
)
