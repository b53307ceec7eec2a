"""List recall: the one thing of a list that was not taken.

Data: our own sentences; things of tasks/words.py. Paper: Merullo et al. 2024, "Talking Heads: Understanding
Inter-Layer Communication in Transformer Language Models" (arXiv 2406.09519), whose Laundry List asks for a thing of a
list of growing length; its template is not published, so the wording, and that all others are named again, are ours.

    clean     On the table there is a cup, a hat, a lamp and a pen. I took the pen, the cup and the lamp.
              What is left is the                                                   -> " hat"
    corrupt   ... I took the pen, the cup and the hat. What is left is the          -> " lamp"   (other-item)
    corrupt   On the table there is a cup, a key, a lamp and a pen. ...             -> " key"    (fresh-item)
    negative  ... I took the ring, the cup and the lamp. ...

    ITEM "hat" in the list, OTHER "lamp" in the list, TAKEN "lamp" in the second sentence, END the last token

As in IOI what is said twice must be left out; here there are many such things, and the answer may stand anywhere in
the list. A form is a length: `short`, `medium` and `long` have 3, 5 and 10 things, `items-N` has N of them. The
template says in which third of the list the answer stands.
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
from tasks.words import OBJECTS, SURFACES

START, TOOK, ASK = "On the {surface} there is ", "I took ", "What is left is the"
FORMS = AnyLength(
    {"short": "a list of 3; items-N is a list of N", "medium": "a list of 5", "long": "a list of 10"},
    named={"short": "items-3", "medium": "items-5", "long": "items-10"},
)


def _enumeration(articles: Sequence[str], slots: Sequence[str]) -> str:
    """a {A}, a {B} and a {C}"""
    said = [f"{article} {{{slot}}}" for article, slot in zip(articles, slots, strict=True)]
    return " and ".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else said[0]


@lru_cache(maxsize=256)
def _template(articles: tuple[str, ...]) -> str:
    listed = _enumeration(articles, [f"ITEM{i}" for i in range(len(articles))])
    taken = _enumeration(("the",) * (len(articles) - 1), [f"TAKEN{i}" for i in range(len(articles) - 1)])
    return f"{START}{listed}. {TOOK}{taken}. {ASK}"


def _things(lexicon: Lexicon, n: int) -> tuple[str, ...]:
    things = lexicon.single("objects", OBJECTS)
    if n + 2 > len(things):
        raise CircuitError(
            f"{lexicon.name} has {len(things)} things of one token; a list of {n} needs {n + 2}. Choose a shorter "
            "list or another model."
        )
    return things


def _generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
    _, n = FORMS.style_and_length(form)
    *items, fresh, absent = rng.sample(_things(lexicon, n), n + 2)
    at, other = rng.sample(range(n), 2)
    order = rng.sample([i for i in range(n) if i != at], n - 1)
    taken = [items[i] for i in order]
    place = order.index(other)
    words = {f"ITEM{i}": item for i, item in enumerate(items)}
    words |= {f"TAKEN{i}": item for i, item in enumerate(taken)} | {"surface": rng.choice(SURFACES)}
    # An article is said as the clean list has it, so that lists differ in the thing alone.
    template = _template(tuple("an" if item[0] in "aeiou" else "a" for item in items))
    changed = {f"TAKEN{place}": items[at]} if corruption == "other-item" else {f"ITEM{at}": fresh}
    clean, spans = fill(template, words)
    return PromptPair(
        clean=clean,
        corrupt=fill(template, words | changed)[0],
        answers=(f" {items[at]}",),
        distractors=(f" {items[other] if corruption == 'other-item' else fresh}",),
        positions={
            "ITEM": spans[f"ITEM{at}"],
            "OTHER": spans[f"ITEM{other}"],
            "TAKEN": spans[f"TAKEN{place}"],
            "END": end(clean),
        },
        negative=fill(template, words | {f"TAKEN{place}": absent})[0],
        template=f"{n} items, {('first', 'middle', 'last')[3 * at // n]} third",
        key=f"{items[at]}|{items[other]}",
    )


TASK = Task(
    name="list-recall",
    summary="List recall: the one thing of a list that was not taken.",
    paper="Merullo et al. 2024, arXiv 2406.09519",
    metric="logit-difference",
    forms=FORMS,
    corruptions={
        "other-item": "the answer was taken, and another thing was not, so the answer changes",
        "fresh-item": "another thing stands in the answer's place of the list",
    },
    generate=_generate,
)
