"""Lexicons that the task tests run under: words, and the GPT-2 tokenizer where it is at hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tasks.task import Lexicon

_WORD = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class Reader:
    """split: a text to its tokens, as strings."""

    split: Callable[[str], list[str]]
    lexicon: Lexicon


def _words() -> Reader:
    return Reader(_WORD.findall, Lexicon(lambda text, after: len(_WORD.findall(text)), "words"))


def _splitting(pattern: str, name: str) -> Reader:
    """A tokenizer that cuts a text where `pattern` does."""
    token = re.compile(pattern)

    def n_tokens(text: str, after: str) -> int:
        return len(token.findall(after + text)) - len(token.findall(after))

    def breaks(text: str, after: str) -> bool:
        return not any(found.start() < len(after) < found.end() for found in token.finditer(after + text))

    return Reader(token.findall, Lexicon(n_tokens, name, breaks=breaks))


@cache
def _gpt2() -> Reader:
    """The tokenizer of GPT-2, from the shared folder beside the checkout."""
    transformers = pytest.importorskip("transformers")
    where = Path(__file__).resolve().parents[3] / "shared" / "tokenizers" / "gpt2"
    if not where.is_dir():
        pytest.skip("the shared GPT-2 tokenizer is absent")
    tokenizer = transformers.AutoTokenizer.from_pretrained(where, local_files_only=True)

    def n_tokens(text: str, after: str) -> int:
        return len(tokenizer(after + text)["input_ids"]) - len(tokenizer(after)["input_ids"])

    def breaks(text: str, after: str) -> bool:
        spans = tokenizer(after + text, return_offsets_mapping=True)["offset_mapping"]
        return not any(start < len(after) < stop for start, stop in spans)

    return Reader(tokenizer.tokenize, Lexicon(n_tokens, "gpt2", breaks=breaks))


@pytest.fixture(scope="session", params=["words", "gpt2"])
def reader(request: pytest.FixtureRequest) -> Reader:
    return _words() if request.param == "words" else _gpt2()


@pytest.fixture(scope="session")
def words() -> Lexicon:
    return _words().lexicon


@pytest.fixture(scope="session")
def gpt2_reader() -> Reader:
    return _gpt2()


@pytest.fixture(scope="session")
def digits() -> Reader:
    """Every digit and the space before it is a token, as Llama's tokenizer has it; words keep their space."""
    return _splitting(r" ?[^\W\d]+|\d|\n|[^\S\n]|[^\w\s]+", "digits")


@pytest.fixture(scope="session")
def threes() -> Reader:
    """Digits go in threes from the left, as in Llama 3."""
    return _splitting(r" ?[^\W\d]+|\d{1,3}|\n|[^\S\n]|[^\w\s]+", "threes")
