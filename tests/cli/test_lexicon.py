"""What a model's tokenizer makes of words, as tasks ask it."""

from __future__ import annotations

from cli.prompt_source import lexicon_of


def test_a_word_that_runs_on_breaks_nowhere(gpt2):
    lexicon = lexicon_of(gpt2)
    assert not lexicon.breaks("my", "When Tom")
    assert lexicon.breaks(" and", "When Tom")
    assert lexicon.breaks("Tom", "When\n")


def test_a_word_that_is_not_known_is_not_one_token(gpt2):
    lexicon = lexicon_of(gpt2)
    assert (lexicon.length(" Tom", "When"), lexicon.length(" Zoe", "When")) == (1, 2)
