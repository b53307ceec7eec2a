"""What the models are trained on: endless seeded rows of tokens, a stream for each skill.

The one idea: the tasks' streams are the tasks' own generators with the held-out keys refused; the auxiliary
streams teach the parts (look a word up, repeat a word) on the same words, and refuse the same keys.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from tasks import TASKS
from tasks.held_out import key_held_out
from tasks.training.context_streams import CONTEXT_STREAMS
from tasks.training.rows import (
    BEGIN,
    N_SPECIAL,
    SMALL_COLOURS,
    SMALL_OBJECTS,
    Row,
    Stream,
    Words,
    from_task,
    task_pair,
)
from tasks.training.vocabulary import split
from tasks.words import COLOURS, OBJECTS


def three_names(words: Words, rng: random.Random) -> Row:
    """IOI sentences in which nobody is named twice: either of the pair may receive the thing."""
    form = rng.choice(("plain", "distractors", "two-givers"))
    while True:
        pair = task_pair(TASKS.load("ioi"), rng, words.lexicon, form, "abc")
        corrupt = split(pair.corrupt)
        places = (len(split(pair.clean[: pair.positions[name][0]])) for name in ("IO", "S1"))
        names = [corrupt[i] for i in places]
        if not key_held_out("|".join(sorted(names))):
            return words.prompt(pair.corrupt, rng.choice(names))


def hard_ioi(words: Words, rng: random.Random) -> Row:
    """Distractor names, two givers, or three names: so that counting and position do not help."""
    stream = rng.choice((HARD["distractors"], HARD["two-givers"], three_names))
    return stream(words, rng)


HARD = {form: from_task("ioi", form) for form in ("distractors", "two-givers")}


def _things(rng: random.Random, n: int) -> list[tuple[str, str]]:
    """n things with different colours, none held out; four times in five from the few first words."""
    few = rng.random() < 0.8
    objects, colours = (SMALL_OBJECTS, SMALL_COLOURS) if few else (OBJECTS, COLOURS)
    while True:
        things = list(zip(rng.sample(objects, n), rng.sample(colours, n), strict=True))
        if not any(key_held_out(f"{thing}|{colour}") for thing, colour in things):
            return things


def _list(things: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{'an' if c[0] in 'aeiou' else 'a'} {c} {thing}" for thing, c in things)


def _lookups(words: Words, text: str, lookups: Sequence[tuple[str, str]]) -> Row:
    """`text`, then each (asked, answer, ...) said in turn, with a target at every answer."""
    tokens, targets = [BEGIN, *words.encode(text)], {}
    for asked, answer in lookups:
        tokens += words.encode(asked)
        answered = words.encode(answer)
        targets[len(tokens) - 1] = answered[0]
        tokens += answered
    return Row(tuple(tokens), targets)


def pairs(words: Words, rng: random.Random) -> Row:
    """Look-ups at once: "a red cup, a blue pen. pen blue, cup red,"."""
    things = _things(rng, rng.choice((2, 3, 4)))
    asked = rng.sample(things, len(things))
    return _lookups(
        words, _list(things) + ".", [(t, c) if i == 0 else (", " + t, c) for i, (t, c) in enumerate(asked)]
    )


def statements(words: Words, rng: random.Random) -> Row:
    """Look-ups across a few words: "I see a red cup, a blue pen, and ... The cup is blue."."""
    things = _things(rng, 3)
    surface, begin = rng.choice(("table", "desk", "floor")), rng.choice(("I see", "there is"))
    listed = f"On the {surface}, {begin} {_list(things)}."
    asked = rng.sample(things, 3)
    return _lookups(words, listed, [(f"{'.' if i else ''} The {t} is", c) for i, (t, c) in enumerate(asked)])


def few_colours(words: Words, rng: random.Random) -> Row:
    """Zero-shot colored objects, four times in five with the few first words."""
    lexicon = words.small if rng.random() < 0.8 else words.lexicon
    pair = task_pair(TASKS.load("colored-objects"), rng, lexicon, "zero-shot")
    return words.prompt(pair.clean, pair.answers[0])


def repeats(words: Words, rng: random.Random) -> Row:
    """A short block of random words, said twice: the second time is foreseeable."""
    n_vocab = len(words.ids)
    pool = range(N_SPECIAL, n_vocab)
    if rng.random() < 0.5:
        pool = range(first := rng.randrange(N_SPECIAL, n_vocab - 64), first + 64)
    block = rng.choices(pool, k=rng.randint(4, 12))
    prefix = rng.choices(pool, k=rng.randint(1, 8)) if rng.random() < 0.4 else []
    tokens = (BEGIN, *prefix, *block, *block)
    second = 1 + len(prefix) + len(block)
    return Row(tokens[:-1], {i: tokens[i + 1] for i in range(second, len(tokens) - 1)})


STREAMS: Mapping[str, Stream] = {
    "arithmetic": from_task("arithmetic", "mixed"),
    "facts": from_task("factual-recall", "mixed"),
    "ioi": from_task("ioi", "plain"),
    "hard-ioi": hard_ioi,
    "colors": from_task("colored-objects", "zero-shot"),
    "colors-after-example": from_task("colored-objects", "one-shot"),
    "few-colors": few_colours,
    "pairs": pairs,
    "statements": statements,
    "repeats": repeats,
    **CONTEXT_STREAMS,
}
"""Stream by name; the recipe says how many rows of which."""
