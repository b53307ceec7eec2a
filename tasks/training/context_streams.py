"""Streams of the tasks whose answer is read off the context: examples, choices, lists.

The one idea: a prompt with several places where the answer is determined has a target at each of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from tasks import TASKS
from tasks.held_out import key_held_out
from tasks.in_context_classification import ARBITRARY, CLASSES, LINE, SHOTS
from tasks.multiple_choice import N_OPTIONS
from tasks.task import Lexicon
from tasks.training.rows import BEGIN, Row, Stream, Words, task_pair

N_LINES = 2 * SHOTS + 1
"""Examples of a row: as many as a prompt of the task shows, and the one that it asks for."""
LONGEST_LIST = 8
FEW = 0.8
"""How often a stream for beginners keeps to a few words."""
FEW_WORDS = tuple(members[0] for members in CLASSES.values())[:6]


def _lines(words: Words, shown: Sequence[tuple[str, str]], asked: Sequence[bool]) -> Row:
    """(word, label) in lines; a target at each label that is asked for."""
    tokens, targets = [BEGIN], {}
    for (word, label), wanted in zip(shown, asked, strict=True):
        tokens += words.encode(LINE.replace("%d", "").format(WORD=word, LABEL=label))
        if wanted:
            targets[len(tokens) - 2] = tokens[-1]
    return Row(tuple(tokens), targets)


def _determined(shown: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[bool]:
    """Which labels were said before, so that the class of their words is known; none whose key is held out."""
    found, said = [], set[str]()
    for word, label in shown:
        (other,) = (name for name in labels if name != label)
        found.append(label in said and not key_held_out(f"{word}|{label}|{other}"))
        said.add(label)
    return found


def _labels(rng: random.Random, classes: Sequence[str]) -> list[str]:
    """Half of the time without meaning, else the classes' own names, right or exchanged."""
    if rng.random() < 0.5:
        return rng.sample(ARBITRARY, 2)
    return rng.sample(list(classes), 2)


def examples(words: Words, rng: random.Random) -> Row:
    """In-context classification: nine words of two classes, each with its class's label."""
    while True:
        classes = rng.sample(sorted(CLASSES), 2)
        labels = _labels(rng, classes)
        drawn = [
            (word, labels[side])
            for side, name in enumerate(classes)
            for word in rng.sample(CLASSES[name], SHOTS + 1)
        ]
        shown = rng.sample(drawn, N_LINES)
        if any(asked := _determined(shown, labels)):
            return _lines(words, shown, asked)


def examples_again(words: Words, rng: random.Random) -> Row:
    """Lines of few words, each with a label of its own and said again: what it was called is looked up.

    Said again with replacement: where each is said once, the last follows from the others, and looking up is not
    learned.
    """
    few = rng.random() < FEW
    n = rng.randint(2, 4)
    labels = rng.sample(ARBITRARY[:4] if few else (*ARBITRARY, *CLASSES), n)
    known = FEW_WORDS if few else [word for members in CLASSES.values() for word in members]
    chosen = list(zip(rng.sample(known, n), labels, strict=True))
    shown = [*chosen, *rng.choices(chosen, k=N_LINES - n)]
    return _lines(words, shown, [place >= n for place in range(N_LINES)])


def choices(words: Words, rng: random.Random, lexicon: Lexicon | None = None) -> Row:
    """Multiple choice about colours; one in four with other letters than A to D."""
    corruption = "random-letters" if rng.random() < 0.25 else "position"
    lexicon = lexicon or words.lexicon
    pair = task_pair(TASKS.load("multiple-choice"), rng, lexicon, "colours", corruption)
    if corruption == "position":
        return words.prompt(pair.clean, pair.answers[0])
    # The layout is the clean one's, so the letter of the right option stands where it stood there.
    tokens = words.encode(pair.corrupt)
    place = len(words.encode(pair.clean[: pair.positions["LETTER"][0]]))
    return Row((BEGIN, *tokens), {len(tokens): tokens[place]})


def few_choices(words: Words, rng: random.Random) -> Row:
    """The same, four times in five with the few first things and colours; then every option's letter is asked for."""
    row = choices(words, rng, words.small if rng.random() < FEW else words.lexicon)
    tokens, targets = [*row.tokens, *row.targets.values()], dict(row.targets)
    # A prompt ends with its options, a letter, a full stop and a word each, and "Answer:".
    first = len(row.tokens) - 3 * N_OPTIONS - 2
    for option in rng.sample(range(N_OPTIONS), N_OPTIONS):
        letter, _, said = tokens[first + 3 * option :][:3]
        tokens.append(said)
        targets[len(tokens) - 1] = letter
        tokens.append(letter)
    return Row(tuple(tokens), targets)


def lists(
    words: Words, rng: random.Random, lexicon: Lexicon | None = None, longest: int = LONGEST_LIST
) -> Row:
    """List recall, of two things to `longest`."""
    form = f"items-{rng.randint(2, longest)}"
    pair = task_pair(TASKS.load("list-recall"), rng, lexicon or words.lexicon, form)
    return words.prompt(pair.clean, pair.answers[0])


def short_lists(words: Words, rng: random.Random) -> Row:
    """Two or three things, four times in five of the few first ones."""
    return lists(words, rng, words.small if rng.random() < FEW else words.lexicon, longest=3)


CONTEXT_STREAMS: Mapping[str, Stream] = {
    "examples": examples,
    "examples-again": examples_again,
    "choices": choices,
    "few-choices": few_choices,
    "lists": lists,
    "short-lists": short_lists,
}
"""Stream by name, of the words of `context_vocabulary`."""
