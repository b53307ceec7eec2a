"""Key-value retrieval: which value was given for the key that is asked for, in a list of any length.

Data: our own sentences; colours, things and names of tasks/words.py. Paper: Liu et al. 2023, "Lost in the Middle: How
Language Models Use Long Contexts" (arXiv 2307.03172), section 3, whose keys and values are random identifiers; Feng &
Steinhardt 2023 (arXiv 2310.17191) on how models bind the two.

    clean     Owners:
              - red cup: Mary
              - blue hat: John
              Question: who owns the blue hat?
              Answer:                                  -> " John"
    corrupt   ... who owns the red cup?\\nAnswer:       -> " Mary"   (other-key)
    corrupt   ... - blue hat: Paul ...                 -> " Paul"   (other-value)
    negative  ... who owns the gold lamp?\\nAnswer:

    KEY "hat" and VALUE "John" in the list, ASKED "hat" in the question, END the last token

A form is a length: `short`, `medium` and `long` have 5, 20 and 60 entries; `pairs-N` has N of them, and `sentences-N`
has them in sentences. Every word is one token, so each form has one token layout; the template says in which third of
the list the answer stands.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from circuits.errors import CircuitError
from circuits.prompts import PromptPair
from tasks.any_length import AnyLength
from tasks.task import Lexicon, Task
from tasks.templates import end, fill
from tasks.words import COLOURS, NAMES, OBJECTS

STYLES = {
    "pairs": ("Owners:", "\n- {KEY}: {VALUE}"),
    "sentences": ("In the house are many things.", " The {KEY} belongs to {VALUE}."),
}
QUESTION = "\nQuestion: who owns the {ASKED}?\nAnswer:"
LENGTHS = {"short": "pairs-5", "medium": "pairs-20", "long": "pairs-60", "sentences": "sentences-5"}
FORMS = AnyLength(
    {
        "short": "a list of 5; pairs-N is a list of N",
        "medium": "a list of 20",
        "long": "a list of 60",
        "sentences": "5 sentences; sentences-N is N of them",
    },
    named=LENGTHS,
)


@lru_cache(maxsize=32)
def _template(style: str, n: int) -> str:
    heading, line = STYLES[style]
    return heading + "".join(line.replace("}", f"{i}}}") for i in range(n)) + QUESTION


def _entries(rng: random.Random, lexicon: Lexicon, n: int) -> tuple[list[str], list[str]]:
    """n + 1 different keys, and n + 1 values of which the first three stand nowhere else.

    Other values repeat where there are more entries than names.
    """
    colours, objects = lexicon.single("colours", COLOURS), lexicon.single("objects", OBJECTS)
    names = lexicon.single("names", NAMES)
    if n >= len(colours) * len(objects) or len(names) < 4:
        raise CircuitError(
            f"{lexicon.name} has {len(colours) * len(objects)} keys and {len(names)} values of one token; a list "
            f"of {n} needs {n + 1} keys and 4 values. Choose another length or another model."
        )
    keys = [divmod(i, len(objects)) for i in rng.sample(range(len(colours) * len(objects)), n + 1)]
    first, others = _apart(rng, names)
    return [f"{colours[c]} {objects[o]}" for c, o in keys], [*first, *_some(rng, others, n - 2)]


def _apart(rng: random.Random, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Three of the names, and the rest."""
    mixed = rng.sample(names, len(names))
    return mixed[:3], mixed[3:]


def _some(rng: random.Random, names: list[str], n: int) -> list[str]:
    """n of the names, none twice before all were taken."""
    whole = n // len(names)
    return [name for _ in range(whole) for name in names] + rng.sample(names, n - whole * len(names))


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    style, n = FORMS.style_and_length(form)
    (*keys, absent), (value, wrong, fresh, *values) = _entries(rng, lexicon, n)
    at, other = rng.sample(range(n), 2)
    rng.shuffle(values)
    for index, name in sorted({at: value, other: wrong}.items()):
        values.insert(index, name)
    words = {f"KEY{i}": key for i, key in enumerate(keys)} | {f"VALUE{i}": v for i, v in enumerate(values)}
    words["ASKED"] = keys[at]
    changed = {"ASKED": keys[other]} if corruption == "other-key" else {f"VALUE{at}": fresh}
    template = _template(style, n)
    clean, spans = fill(template, words)
    return PromptPair(
        clean=clean,
        corrupt=fill(template, words | changed)[0],
        answers=(f" {value}",),
        distractors=(f" {wrong if corruption == 'other-key' else fresh}",),
        positions={
            "KEY": spans[f"KEY{at}"],
            "VALUE": spans[f"VALUE{at}"],
            "ASKED": spans["ASKED"],
            "END": end(clean),
        },
        negative=fill(template, words | {"ASKED": absent})[0],
        template=f"{n} {style}, {('first', 'middle', 'last')[3 * at // n]} third",
        key=f"{keys[at]}|{value}",
    )


TASK = Task(
    name="key-value-retrieval",
    summary="Key-value retrieval: who owns the thing that is asked for, in a list of any length.",
    paper="Liu et al. 2023, arXiv 2307.03172",
    metric="logit-difference",
    forms=FORMS,
    corruptions={
        "other-key": "another thing of the list is asked for, so the answer changes",
        "other-value": "the thing that is asked for belongs to someone else",
    },
    generate=_generate,
)
