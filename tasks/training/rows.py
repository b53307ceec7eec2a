"""Rows of tokens with their targets, and how a task's prompts become some; every stream draws such rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from circuits.prompts import PromptPair
from tasks import TASKS
from tasks.held_out import held_out
from tasks.task import Lexicon, Task
from tasks.training.vocabulary import split, vocabulary, word_lexicon
from tasks.words import COLOURS, OBJECTS

BEGIN = 0
N_SPECIAL = 2
SMALL_OBJECTS, SMALL_COLOURS = OBJECTS[:8], COLOURS[:6]


@dataclass(frozen=True)
class Row:
    """tokens: begins with BEGIN. targets: index of a token -> the token that must come next."""

    tokens: tuple[int, ...]
    targets: Mapping[int, int]


Stream = Callable[["Words", random.Random], Row]


@dataclass(frozen=True)
class Words:
    """The vocabulary as the streams use it. small: only the first few objects and colours."""

    lexicon: Lexicon = field(default_factory=word_lexicon)
    known: tuple[str, ...] = field(default_factory=vocabulary)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.known)}

    @cached_property
    def small(self) -> Lexicon:
        kept = {
            "objects": SMALL_OBJECTS,
            "colours": SMALL_COLOURS,
            "colours in answers": tuple(c.capitalize() for c in SMALL_COLOURS),
        }
        return Lexicon(self.lexicon.n_tokens, self.lexicon.name, kept=kept)

    def encode(self, text: str) -> tuple[int, ...]:
        """Raises KeyError for a word that the vocabulary lacks: training text must have none."""
        return tuple(self.ids[word] for word in split(text))

    def prompt(self, text: str, answer: str) -> Row:
        """A prompt with one target, behind its last word."""
        tokens = (BEGIN, *self.encode(text))
        return Row(tokens, {len(tokens) - 1: self.encode(answer)[0]})


def task_pair(
    task: Task, rng: random.Random, lexicon: Lexicon, form: str, corruption: str | None = None
) -> PromptPair:
    """One pair of a task that is not held out."""
    corruption = corruption or next(iter(task.corruptions))
    while held_out(pair := task.generate(rng, lexicon, form, corruption)):
        pass
    return pair


def from_task(name: str, form: str) -> Stream:
    """Clean prompts of a task, each with its answer."""

    def draw(words: Words, rng: random.Random) -> Row:
        pair = task_pair(TASKS.load(name), rng, words.lexicon, form)
        return words.prompt(pair.clean, pair.answers[0])

    return draw
