"""The doctor: every defect is found, in every pair that has it; and nothing is found where nothing is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_model import FakeModel
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.errors import PromptError
from circuits.halves import split
from circuits.models.bridge import BridgeModel
from circuits.prompt_check import check_prompts, require_usable
from circuits.prompts import PromptPair

VOCABULARY = ("the", "Mary", "John", "Tom", "saw", "met", "and", "then", "in", "park")


class WordModel(FakeModel):
    """A tokenizer alone: a word a token, known or not; no text of more than fifteen."""

    name = "words"

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        tokens, spans, start = [], [], 0
        for word in text.split():
            start = text.index(word, start)
            tokens.append(VOCABULARY.index(word) if word in VOCABULARY else 99)
            spans.append((start, start + len(word)))
            start += len(word)
        if len(tokens) > 15:
            raise PromptError("too long")
        return tokens, spans

    def is_unknown(self, token: int) -> bool:
        return token == 99


MODEL = WordModel()


def _pair(io: str = "Mary", s: str = "John", place: str = "park", **changes: object) -> PromptPair:
    clean, corrupt = (f"{io} and {s} met in {place} then {x} saw" for x in (s, io))
    return replace(
        PromptPair(clean, corrupt, (f" {io}",), (f" {s}",), template=place, key=f"{io}|{s}"), **changes
    )


GOOD = [_pair(), _pair("John", "Mary"), _pair("Tom", "Mary"), _pair("Mary", "Tom")]
BAD: dict[str, tuple[PromptPair, str]] = {
    "unequal": (_pair(corrupt="Mary saw"), "9 tokens and corrupt 2"),
    "same text": (_pair(corrupt=_pair().clean), "same text"),
    "two tokens": (_pair(answers=(" Mary Tom",)), "2 tokens"),
    "unknown answer": (_pair(answers=(" Zoe",)), "not in the vocabulary"),
    "both": (_pair(distractors=(" Mary", " Tom")), "both an answer and a distractor"),
    "too long": (_pair(clean="the " * 20), "too long"),
    "no token": (_pair(positions={"GAP": (4, 5)}), "holds no token"),
}


def test_nothing_is_wrong_with_good_pairs() -> None:
    check = check_prompts(MODEL, GOOD)
    assert (check.n, check.unusable, check.copies.extra) == (4, {}, 0)
    assert check.alignment.lengths == {9: 4}
    assert check.alignment.first_differences == {7: 4}
    assert check.alignment.n_differences == {1: 4}
    assert check.words.answer_lengths == check.words.distractor_lengths == {1: 4}
    assert (check.balance.answer_first, check.balance.answer_second) == (4, 0)
    assert check.balance.answers == {" Mary": 2, " John": 1, " Tom": 1}
    require_usable(check, "words")


def test_all_that_is_wrong_is_reported_and_not_the_first_alone() -> None:
    pairs = [*GOOD, *(pair for pair, _ in BAD.values())]
    check = check_prompts(MODEL, pairs)
    assert sorted(check.unusable) == list(range(4, 11))
    for (_, said), why in zip(BAD.values(), check.unusable.values(), strict=True):
        assert said in why
    assert check.alignment.unequal == (4,)
    assert check.alignment.same_text == check.alignment.same_tokens == (5,)
    assert check.words.answer_lengths == {1: 9, 2: 1}
    assert check.words.unknown_answers == (7,)
    with pytest.raises(PromptError) as refused:
        require_usable(check, "words")
    assert str(refused.value).startswith("7 of 11 prompts cannot be used with words:\nprompt 5: clean is 9")
    assert all(f"prompt {i}: " in str(refused.value) for i in range(5, 12))


@pytest.mark.parametrize("name", BAD)
def test_one_bad_pair_is_refused_in_the_words_of_a_run(name: str) -> None:
    pair, said = BAD[name]
    check = check_prompts(MODEL, [GOOD[0], pair])
    with pytest.raises(PromptError, match=f"^prompt 2: .*{said}") as ours:
        require_usable(check, "words")
    if name != "too long":  # the tokenizer's own words, which name no pair
        with pytest.raises(PromptError) as theirs:
            make_batches(MODEL, [GOOD[0], pair])
        assert str(ours.value) == str(theirs.value)


def test_copies_by_text_by_tokens_and_with_other_answers() -> None:
    spaced = _pair(clean=_pair().clean.replace(" ", "  "))
    other = _pair(answers=(" Tom",))
    check = check_prompts(MODEL, [GOOD[0], GOOD[1], GOOD[0], spaced, other])
    assert check.copies.by_text == ((0, 2, 4),)
    assert check.copies.by_tokens == ((0, 2, 3, 4),)
    assert check.copies.contradicting == ((0, 2, 4),)
    assert check.copies.extra == 3


def test_leaks_are_counted_over_the_judged_half() -> None:
    """Two pairs: the judged one has the words of the other where they are left out, and no more."""
    leaks = check_prompts(MODEL, [GOOD[0], GOOD[2]]).leaks
    assert leaks is not None
    assert (leaks.n_judged, leaks.text, leaks.tokens, leaks.key, leaks.words) == (1, 0, 0, 0, 0)
    assert (leaks.tokens_but_names, leaks.template) == (1, 1)
    spaced = _pair(clean=_pair().clean.replace(" ", "  "))
    again = check_prompts(MODEL, [GOOD[0], spaced]).leaks
    assert again is not None
    assert (again.text, again.tokens, again.key, again.words) == (0, 1, 1, 1)
    apart = check_prompts(MODEL, [GOOD[0], _pair("Tom", place="the")], judge_on="templates").leaks
    assert apart is not None
    assert apart.template == apart.tokens_but_names == 0
    assert check_prompts(MODEL, [GOOD[0], GOOD[2]], judge_on="templates").leaks is None


@settings(max_examples=25)
@given(st.lists(st.sampled_from([*GOOD, _pair(place="the")]), min_size=2, max_size=12), st.integers(0, 2))
def test_keys_that_leak_by_brute_force(pairs: list[PromptPair], seed: int) -> None:
    leaks = check_prompts(MODEL, pairs, seed=seed).leaks
    if len({pair.clean for pair in pairs}) < 2:
        assert leaks is None
        return
    halves = split(pairs, seed)
    expected = sum(
        any(pairs[i].key == pairs[j].key for j in halves.discovery) for i in halves.judged
    )  # fmt: skip
    assert leaks is not None
    assert (leaks.key, leaks.text, leaks.n_judged) == (expected, 0, len(halves.judged))


def test_a_part_of_a_word_is_not_the_answer_in_the_prompt() -> None:
    pair = PromptPair("Timmy saw tom", "x", (" Tim",), (" Tom",))
    balance = check_prompts(MODEL, [pair, pair]).balance
    assert (balance.answer_first, balance.answer_second) == (0, 0)


def test_pairs_that_a_model_can_read_are_usable(gpt2: BridgeModel) -> None:
    pairs = prompt_pairs(12)
    check = check_prompts(gpt2, pairs)
    assert not check.unusable
    lengths = [len(pair.clean) for batch in make_batches(gpt2, pairs) for pair in batch.pairs]
    assert check.alignment.lengths == {n: lengths.count(n) for n in sorted(set(lengths))}
