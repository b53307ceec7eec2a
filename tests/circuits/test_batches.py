"""Batches: equal lengths, nothing lost, and errors that name the pair and its tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import prompt_pairs

from circuits.batches import continuation, make_batches, tokenize_pair, unknown_words
from circuits.donors import first_difference, resample_donor
from circuits.errors import CircuitError, PromptError
from circuits.models.bridge import BridgeModel
from circuits.prompts import PromptPair

PAIR = PromptPair("Mary and John went to the store, John gave a drink to",
                  "Mary and John went to the store, Mary gave a drink to", (" Mary",), (" John",))  # fmt: skip


def _refusal(model: BridgeModel, **changes: object) -> str:
    with pytest.raises(PromptError) as refusal:
        make_batches(model, [PAIR, replace(PAIR, **changes)])  # type: ignore[arg-type]
    return str(refusal.value)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 20), batch_size=st.integers(1, 25), seed=st.integers(0, 5))
def test_every_pair_is_in_one_batch_of_its_length(
    gpt2: BridgeModel, n: int, batch_size: int, seed: int
) -> None:
    pairs = prompt_pairs(n, seed)
    batches = make_batches(gpt2, pairs, batch_size=batch_size)
    assert sorted(i for batch in batches for i in batch.index) == list(range(n))
    lengths = [batch.clean.shape[1] for batch in batches]
    assert lengths == sorted(lengths)
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert batch.clean.shape == batch.corrupt.shape == (len(batch), len(batch.pairs[0].clean))
        for row, i in enumerate(batch.index):
            assert batch.clean[row].tolist() == gpt2.tokenize(pairs[i].clean)[0]
            assert batch.corrupt[row].tolist() == gpt2.tokenize(pairs[i].corrupt)[0]


def test_pairs_of_one_length_are_sorted_by_where_they_begin_to_differ(gpt2: BridgeModel) -> None:
    """Then by their number; a batch starts where its first pair does, so later ones keep what they share."""
    late, early = PAIR, replace(PAIR, corrupt="Tom and John went to the store, John gave a drink to")
    batches = make_batches(gpt2, [late, early, late, early, late], batch_size=2)
    assert [batch.index for batch in batches] == [(1, 3), (0, 2), (4,)]
    firsts = [[pair.first_difference for pair in batch.pairs] for batch in batches]
    assert firsts == [[1, 1], [9, 9], [9]]
    for batch in batches:
        first = first_difference(batch.clean, resample_donor(batch.corrupt))
        assert first == batch.pairs[0].first_difference
        assert batch.until(1).index == batch.index[:1]


def test_a_pair_as_the_model_reads_it(gpt2: BridgeModel) -> None:
    pair = replace(PAIR, positions={"S1": (9, 13), "S2": (33, 37), "END": (52, 53)}, negative="Tom went")
    tokens = tokenize_pair(gpt2, pair, "prompt 1")
    words = [gpt2.token_string(t) for t in tokens.clean]
    assert " ".join(words) == "<bos> Mary and John went to the store , John gave a drink to"
    assert tokens.positions == {"S1": 3, "S2": 9, "END": 13}
    assert [words[i] for i in tokens.positions.values()] == ["John", "John", "to"]
    assert [gpt2.token_string(t) for t in (*tokens.answers, *tokens.distractors)] == ["Mary", "John"]
    assert [gpt2.token_string(t) for t in tokens.negative] == ["<bos>", "Tom", "went"]
    assert tokenize_pair(gpt2, PAIR, "prompt 1").negative == tokens.corrupt


def test_a_span_of_several_tokens_is_placed_at_its_last(gpt2: BridgeModel) -> None:
    assert tokenize_pair(gpt2, replace(PAIR, positions={"X": (0, 13)}), "prompt 1").positions == {"X": 3}


def test_unequal_lengths_name_the_pair_and_both_sides_tokens(gpt2: BridgeModel) -> None:
    message = _refusal(gpt2, corrupt="Mary and John went to the store, Mary gave a to")
    assert "prompt 2: clean is 14 tokens and corrupt 13 for tiny-gpt2" in message
    assert "'gave' 'a' 'drink' 'to'" in message
    assert "'gave' 'a' 'to'" in message


@pytest.mark.parametrize("side", ["answers", "distractors"])
def test_an_answer_of_two_tokens_is_shown_split(gpt2: BridgeModel, side: str) -> None:
    message = _refusal(gpt2, **{side: (" Tom", " Sue Ann")})
    assert (
        f"prompt 2: {side[:-1]} ' Sue Ann' is 2 tokens for tiny-gpt2 ('Sue' 'Ann'); it must be 1." in message
    )


def test_an_answer_that_is_a_distractor_too_is_named(gpt2: BridgeModel) -> None:
    message = _refusal(gpt2, answers=(" Mary", " Tom"), distractors=(" John", " Tom"))
    assert message == "prompt 2: 'Tom' is both an answer and a distractor."


def test_an_answer_that_the_vocabulary_lacks_is_named(gpt2: BridgeModel) -> None:
    assert "answer ' Zoe' is not in the vocabulary of tiny-gpt2" in _refusal(gpt2, answers=(" Zoe",))


def test_a_position_without_a_token_is_named(gpt2: BridgeModel) -> None:
    assert "prompt 2: position GAP (4, 5) holds no token" in _refusal(gpt2, positions={"GAP": (4, 5)})


def test_pairs_that_are_one_to_the_model_are_refused(gpt2: BridgeModel) -> None:
    """Two words that the vocabulary lacks are the same token, so the texts differ and the tokens do not."""
    message = _refusal(gpt2, clean="Zoe went to the", corrupt="Kim went to the")
    assert "prompt 2: clean and corrupt are the same tokens for tiny-gpt2" in message
    assert "'Zoe went to the', 'Kim went to the'" in message
    assert "are the same text" in _refusal(gpt2, corrupt=PAIR.clean)


def test_callers_names_for_pairs_are_used(gpt2: BridgeModel) -> None:
    with pytest.raises(PromptError, match=r"^mine\.jsonl line 7: "):
        make_batches(gpt2, [replace(PAIR, answers=(" Zoe",))], names=["mine.jsonl line 7"])


def test_no_prompts_and_no_batch_size_are_refused(gpt2: BridgeModel) -> None:
    with pytest.raises(PromptError, match="no prompts"):
        make_batches(gpt2, [])
    with pytest.raises(CircuitError, match="--batch-size must be at least 1"):
        make_batches(gpt2, [PAIR], batch_size=0)


def test_unknown_words_are_listed_once_and_sorted(gpt2: BridgeModel) -> None:
    pairs = [replace(PAIR, clean="Zoe and Kim went", corrupt="Zoe and Ida went"), PAIR]
    assert unknown_words(gpt2, pairs) == ("Ida", "Kim", "Zoe")
    assert unknown_words(gpt2, [PAIR]) == ()


def test_a_continuation_is_what_the_tokenizer_adds(gpt2: BridgeModel) -> None:
    def words(text: str, word: str) -> list[str]:
        return [gpt2.token_string(t) for t in continuation(gpt2, text, word)]

    assert words("Mary went to", " Tom") == ["Tom"]
    assert words("Mary went to", " the store.") == ["the", "store", "."]
    # Together they are the word Tommy, so the seam is gone and the word is asked for alone.
    assert words("Mary and Tom", "my") == ["<unk>"]


def test_tensors_are_where_the_model_is(gpt2: BridgeModel) -> None:
    (batch,) = make_batches(gpt2, [PAIR])
    assert batch.clean.device == gpt2.device
    assert batch.clean.dtype == torch.int64
