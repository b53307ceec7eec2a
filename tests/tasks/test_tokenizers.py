"""Every task under every tokenizer: aligned, answered, named where it says, or refused in one clear message."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tokenizers_made import MADE, PLACES_OF, TextReader, read_by

from circuits.batches import NEUTRAL, continuation, tokenize_pair, tokenize_rows
from circuits.errors import CircuitError
from circuits.prompts import PromptPair
from cli.prompt_source import lexicon_of
from tasks import TASKS
from tasks.task import Lexicon, Task

CORE = ("arithmetic", "colored-objects", "factual-recall", "ioi")
SCORINGS = ("one-token", "first-token", "whole-string")
REFUSED = ("one token for", "equally many tokens", "too few numbers", "distinct prompts for")
"""What a task may say of a tokenizer under which it has too few words."""

N = 6


def _reader(name: str) -> TextReader:
    reader = read_by(name)
    if reader is None:
        pytest.skip(f"the shared tokenizer {name} is absent")
    return reader


@cache
def _lexicon(tokenizer: str, scoring: str) -> Lexicon:
    return lexicon_of(_reader(tokenizer), scoring)  # type: ignore[arg-type]


def _drawn(
    task: Task, tokenizer: str, scoring: str, form: str, corruption: str, seed: int
) -> tuple[PromptPair, ...]:
    """A few pairs; none where the task says that it has too few words."""
    lexicon = _lexicon(tokenizer, scoring)
    try:
        return task.sample(N, seed=seed, lexicon=lexicon, form=form, corruption=corruption)
    except CircuitError as refusal:
        said = str(refusal)
        assert lexicon.name in said
        assert any(reason in said for reason in REFUSED), said
        if task.name in CORE:
            assert tokenizer not in MADE, said
            assert scoring == "one-token", said
        return ()


def _check(reader: TextReader, pair: PromptPair) -> None:
    tokens, spans = reader.tokenize(pair.clean)
    read = tokenize_pair(reader, pair, repr(pair.clean))
    assert len(read.clean) == len(read.corrupt)
    assert read.clean != read.corrupt
    for name, (start, stop) in pair.positions.items():
        at = read.positions[name]
        a, b = spans[at]
        # The token that ends the word: it holds its last character, and no token of the word is behind it.
        assert a < stop <= b, (pair, name, reader.token_string(tokens[at]))
        assert all(other >= stop or after >= b for other, after in spans[at + 1 :]), (pair, name)
        assert pair.clean[start:stop].strip() == pair.clean[start:stop] != ""
    strings = [
        tuple(continuation(reader, pair.clean, word) for word in side)
        for side in (pair.answers, pair.distractors)
    ]
    assert not set(strings[0]) & set(strings[1])
    if pair.scoring == "one-token":
        assert all(len(tokens) == 1 for side in strings for tokens in side)
    if pair.scoring == "first-token":
        assert not {t[0] for t in strings[0]} & {t[0] for t in strings[1]}
    rows = tokenize_rows(reader, pair, "")
    assert len(rows) == (sum(map(len, strings[0] + strings[1])) if pair.scoring == "whole-string" else 1)


@pytest.mark.parametrize("tokenizer", [*MADE, *(name for name in PLACES_OF if name not in MADE)])
@settings(max_examples=12, phases=[Phase.generate], deadline=None)
@given(data=st.data())
def test_pairs_fit_the_tokenizer(tokenizer: str, data: st.DataObject) -> None:
    reader = _reader(tokenizer)
    task = TASKS.load(data.draw(st.sampled_from(TASKS.names())))
    form, corruption = (data.draw(st.sampled_from(tuple(of))) for of in (task.forms, task.corruptions))
    scoring, seed = data.draw(st.sampled_from(SCORINGS)), data.draw(st.integers(0, 10_000))
    pairs = _drawn(task, tokenizer, scoring, form, corruption, seed)
    assert len({pair.clean for pair in pairs}) == len(pairs)
    assert {pair.scoring for pair in pairs} <= {scoring}
    assert pairs == _drawn(task, tokenizer, scoring, form, corruption, seed)
    for pair in pairs:
        _check(reader, pair)


@pytest.mark.parametrize(("task", "tokenizer"), list(product(CORE, MADE)))
def test_the_core_tasks_have_pairs_in_every_form(task: str, tokenizer: str) -> None:
    loaded = TASKS.load(task)
    for form, corruption in product(loaded.forms, loaded.corruptions):
        assert len(_drawn(loaded, tokenizer, "one-token", form, corruption, 0)) == N


def test_what_is_split_is_left_out_and_counted() -> None:
    digits = _lexicon("llama-like", "one-token")
    _drawn(TASKS.load("arithmetic"), "llama-like", "one-token", "addition", "operand", 0)
    assert digits.counts["results"] == 189
    assert _lexicon("llama-like", "whole-string").counts.get("results", 0) == 0


def test_operands_of_two_digits_align_where_digits_are_split() -> None:
    pairs = TASKS.load("arithmetic").sample(
        200, seed=0, lexicon=_lexicon("llama-like", "one-token"), form="subtraction"
    )
    assert {len(pair.answers[0]) for pair in pairs} == {1}
    assert max(len(pair.clean) for pair in pairs) == len("98-95=")


def test_a_pair_that_cannot_be_aligned_is_named_where_none_are_left() -> None:
    lexicon = Lexicon(lambda text, after: 1, "some", fault=lambda pair: f"{pair.clean!r} is crooked.")
    with pytest.raises(
        CircuitError, match=r"has 0 distinct prompts .* that were drawn do not fit: '.*' is crooked"
    ):
        TASKS.load("arithmetic").sample(2, seed=0, lexicon=lexicon, form="addition")


class _Merging:
    """A tokenizer that puts a space before every text, as Llama's, and joins "=" with the digit behind it."""

    name = "merging"
    pieces = ("▁", "=7", "▁a", "▁=", "▁.", "1", "7", "=", "a", ".", "\n", "▁7")

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        left, tokens, spans = "▁" + text, [], []
        while left:
            piece = max((p for p in self.pieces if left.startswith(p)), key=len)
            end = len(text) + 1 - len(left) + len(piece)
            tokens.append(self.pieces.index(piece))
            spans.append((max(0, end - len(piece) - 1), end - 1))
            left = left[len(piece) :]
        return tokens, spans

    def token_string(self, token: int) -> str:
        return self.pieces[token]

    def is_unknown(self, token: int) -> bool:
        return False


def test_a_word_that_merges_with_the_text_is_asked_behind_another_and_not_alone() -> None:
    """Alone it would be read with the space that stands before every text."""
    reader = _Merging()
    assert [reader.token_string(t) for t in reader.tokenize("7")[0]] == ["▁7"]
    assert [reader.token_string(t) for t in reader.tokenize("1=7")[0]] == ["▁", "1", "=7"]
    assert [reader.token_string(t) for t in continuation(reader, "1=", "7")] == ["7"]
    assert NEUTRAL[0] == "."
