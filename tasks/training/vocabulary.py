"""The word-level tokenizers of the built-in models: every word of the tasks, the numbers, and spare words.

The one idea: one word is one token, in a text as in an answer, so prompts align by construction. The
tokenizer is an ordinary Hugging Face one (WordLevel behind a split at spaces and punctuation). There are two word
lists: that of the four tasks, and a longer one, which begins with it, of the tasks that are read off the context.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tasks import (
    arithmetic,
    colored_objects,
    facts,
    in_context_classification,
    ioi,
    list_recall,
    multiple_choice,
    words,
)
from tasks.task import Lexicon
from tasks.training.spare_words import SPARE

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<unk>"
_SLOT = re.compile(r"\{\w+\}")
_WORD = re.compile(r"\w+|[^\w\s]+")


def split(text: str) -> list[str]:
    """The words and punctuation marks of `text`, as the tokenizer cuts them."""
    return _WORD.findall(text)


def _sentences() -> Iterator[str]:
    """Every sentence of the tasks, slots and all."""
    yield from (*ioi.FRAMES, *ioi.OPENINGS, *ioi.ASIDES, *ioi.GIVERS)
    yield from (colored_objects.LIST, colored_objects.QUESTION, *colored_objects.STARTS, "a an")
    yield facts.IN_CONTEXT
    for phrasings in facts.PHRASINGS.values():
        yield from phrasings
    yield "+ - = . , : ; ? ! ' ( ) " + " ".join(arithmetic.NULL_SYMBOLS)


def _listed() -> Iterator[str]:
    yield from (*words.NAMES, *words.PLACES, *words.GIFTS, *words.OBJECTS, *words.SURFACES, *words.NO_COUNTRY)
    for colour in words.COLOURS:
        yield from (colour, colour.capitalize())
    for country in facts.COUNTRIES:
        yield from (word for word in country if word != "-")


def _unique(found: Iterable[str]) -> list[str]:
    return sorted(set(found) - set(arithmetic.RESULTS))


def vocabulary() -> tuple[str, ...]:
    """All tokens in the order of their ids: two special ones, the numbers, then the words sorted."""
    sentences = (word for sentence in _sentences() for word in split(_SLOT.sub(" ", sentence)))
    found = _unique([*sentences, *_listed(), *SPARE.split()])
    return (END_OF_TEXT, UNKNOWN, *arithmetic.RESULTS, *found)


def _context_sentences() -> Iterator[str]:
    """Every sentence of the tasks that are read off the context."""
    yield from (in_context_classification.LINE.replace("%d", ""), in_context_classification.QUERY)
    yield from (multiple_choice.LAYOUT, *multiple_choice.COLOUR_QUESTIONS)
    yield from (list_recall.START, list_recall.TOOK, list_recall.ASK)


def _context_words() -> Iterator[str]:
    yield from (*in_context_classification.CLASSES, *in_context_classification.FOREIGN)
    yield from (*in_context_classification.ARBITRARY, *multiple_choice.LETTERS)
    for members in in_context_classification.CLASSES.values():
        yield from members


def context_vocabulary() -> tuple[str, ...]:
    """`vocabulary`, and behind it the words of the tasks that are read off the context."""
    known = vocabulary()
    sentences = (word for text in _context_sentences() for word in split(_SLOT.sub(" ", text)))
    return (*known, *sorted({*sentences, *_context_words()} - set(known)))


def word_lexicon() -> Lexicon:
    """What the tasks ask of the tokenizer: every word is one token."""
    return Lexicon(lambda text, after: len(split(text)), "the built-in word list")


def save_tokenizer(folder: Path, known: Sequence[str] | None = None) -> None:
    """The tokenizer of the words `known`, by default those of the four tasks.

    Writes tokenizer.json and tokenizer_config.json, which AutoTokenizer loads without a network."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    ids = {word: i for i, word in enumerate(known or vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True), AddedToken(UNKNOWN, special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "unk_token": UNKNOWN,
        "model_max_length": 128,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
