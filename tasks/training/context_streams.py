"""Streams of the tasks whose answer is read off the context: examples, choices, lists.

The one idea: a prompt with several places where the answer is determined has a target at each of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from tasks import TASKS
from tasks.held_out import key_held_out
from tasks.in_context_classification import ARBITRARY, CLASSES, LINE
from tasks.task import Lexicon
from tasks.training.rows import BEGIN, Row, Stream, Words, task_pair

LONGEST_LIST = 8
FEW = 0.8
"""How often a stream for beginners keeps to a few words."""


def _shown(words: Words, examples: Sequence[tuple[str, str]], labels: Sequence[str]) -> Row:
    """(word, label) in lines; a target at each label that was said before, unless its key is held out."""
    line = LINE.replace("%d", "")
    tokens, targets, said = [BEGIN], {}, set[str]()
    for word, label in examples:
        asked, _ = line.format(WORD=word, LABEL=label).rsplit(f" {label}", 1)
        tokens += words.encode(asked)
        (other,) = (name for name in labels if name != label)
        if label in said and not key_held_out(f"{word}|{label}|{other}"):
            targets[len(tokens) - 1] = words.ids[label]
        tokens.append(words.ids[label])
        said.add(label)
    return Row(tuple(tokens), targets)


def _thinned(words: Words, rng: random.Random, row: Row, fillers: Sequence[str]) -> Row:
    """A row without some of its fillers: all, none, or each in one of two rows.

    What is to be looked up then stands beside what it is looked up by, or a few words from it: the near case is
    learned first, and the far one from it.
    """
    share = rng.choice((0.0, 0.5, 1.0))
    dropped = {words.ids[word] for word in fillers if rng.random() < share}
    kept = [i for i, token in enumerate(row.tokens) if token not in dropped]
    new = {old: i for i, old in enumerate(kept)} | {len(row.tokens): len(kept)}
    targets = {new[place + 1] - 1: token for place, token in row.targets.items()}
    return Row(tuple(row.tokens[i] for i in kept), targets)


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
            (word, labels[side]) for side, name in enumerate(classes) for word in rng.sample(CLASSES[name], 5)
        ]
        row = _shown(words, rng.sample(drawn, 9), labels)
        if row.targets:
            return row


def examples_again(words: Words, rng: random.Random) -> Row:
    """Lines of few words, each with a label of its own and said several times: what it was called is looked up."""
    few = rng.random() < FEW
    every = [word for members in CLASSES.values() for word in (members[:2] if few else members)]
    n = rng.randint(2, 5)
    labels = rng.sample(ARBITRARY if few else (*ARBITRARY, *CLASSES), n)
    chosen = list(zip(rng.sample(every, n), labels, strict=True))
    shown = [*chosen, *(pair for _ in range(2) for pair in rng.sample(chosen, n))][: LONGEST_LIST + 1]
    tokens, targets = [BEGIN], {}
    for place, (word, label) in enumerate(shown):
        tokens += words.encode(LINE.replace("%d", "").format(WORD=word, LABEL=label))
        if place >= n:
            targets[len(tokens) - 2] = tokens[-1]
    return _thinned(words, rng, Row(tuple(tokens), targets), ("Word", "Kind", ":", "."))


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
    for option in rng.sample(range(4), 4):
        letter, _, said = tokens[len(row.tokens) - 14 + 3 * option :][:3]
        tokens.append(said)
        targets[len(tokens) - 1] = letter
        tokens.append(letter)
    return _thinned(words, rng, Row(tuple(tokens), targets), ("Question", "Answer", ":", "."))


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
