"""Pronouns, names, keys and classes: the answer that a task states is the one that its text gives when read anew."""

from __future__ import annotations

import re

import pytest

from circuits.errors import CircuitError, UnknownNameError
from circuits.prompts import PromptPair
from tasks import TASKS
from tasks.gendered_pronouns import PRONOUNS, WOMEN_MEN
from tasks.in_context_classification import CLASSES
from tasks.task import Lexicon

WORD = re.compile(r"\w+")


def _sample(reader, name, form, corruption=None, n=60):
    return TASKS.load(name).sample(n, seed=12, lexicon=reader.lexicon, form=form, corruption=corruption)


def _at(pair: PromptPair, name: str) -> str:
    return pair.clean[slice(*pair.positions[name])]


def _said(pair: PromptPair) -> tuple[tuple[str, str], tuple[str, str]]:
    (answer,), (distractor,) = pair.answers, pair.distractors
    return (pair.clean, answer.strip()), (pair.corrupt, distractor.strip())


@pytest.mark.parametrize("form", TASKS.load("gendered-pronouns").forms)
def test_every_gendered_word_is_of_the_gender_of_the_pronoun(reader, form):
    women, men = ({word for lists in WOMEN_MEN.values() for word in lists[side]} for side in (0, 1))
    for pair in _sample(reader, "gendered-pronouns", form):
        for text, pronoun in _said(pair):
            words, hers = set(WORD.findall(text)), pronoun in PRONOUNS
            assert words & (women if hers else men), text
            assert not words & (men if hers else women), text
        assert {pair.answers[0].strip(), pair.distractors[0].strip()} in [
            set(both) for both in PRONOUNS.items()
        ]
        assert not set(WORD.findall(pair.negative)) & (women | men)


@pytest.mark.parametrize("form", ["story", "start"])
@pytest.mark.parametrize("corruption", ["other-name", "mention"])
def test_the_name_goes_on_as_where_it_was_first_said(reader, form, corruption):
    for pair in _sample(reader, "name-copying", form, corruption):
        assert f" {_at(pair, 'ANSWER')}".endswith(pair.answers[0])
        assert pair.clean.endswith(_at(pair, "PREVIOUS")) or _at(pair, "PREVIOUS") == "named"
        name = re.search(r"named (\w+)", pair.clean)[1]
        assert name not in pair.corrupt
        assert name not in pair.negative
        tail = pair.clean[pair.clean.rfind(pair.clean[-1]) :]
        assert corruption == "other-name" or pair.corrupt.endswith(tail)


@pytest.mark.parametrize("corruption", ["other-name", "mention"])
def test_induction_repeats_its_words_and_the_corruption_does_not_lead_to_the_answer(reader, corruption):
    for pair in _sample(reader, "name-copying", "induction", corruption):
        first, again = (words := WORD.findall(pair.clean)[1:])[:8], words[8:]
        assert again == first[: len(again)]
        assert pair.answers == (f" {first[len(again)]}",)
        assert (_at(pair, "PREVIOUS"), _at(pair, "ANSWER")) == tuple(first[len(again) - 1 : len(again) + 1])
        corrupt = WORD.findall(pair.corrupt)[1:]
        assert corrupt[8:] == again
        assert corrupt[len(again)] == pair.distractors[0].strip()
        assert pair.answers[0].strip() not in corrupt


@pytest.mark.parametrize(
    "form", ["short", "medium", "long", "sentences", "pairs-2", "pairs-37", "sentences-9"]
)
@pytest.mark.parametrize("corruption", ["other-key", "other-value"])
def test_the_value_is_that_of_the_key_that_is_asked_for(reader, form, corruption):
    for pair in _sample(reader, "key-value-retrieval", form, corruption, n=20):
        for text, value in _said(pair):
            owners = dict(re.findall(r"- (\w+ \w+): (\w+)|$", text)) | dict(
                re.findall(r"The (\w+ \w+) belongs to (\w+)\.", text)
            )
            (asked,) = re.findall(r"who owns the (\w+ \w+)\?", text)
            assert owners[asked] == value
            assert list(owners.values()).count(value) == 1
            length = form.rpartition("-")[2]
            owners.pop("", None)
            assert not length.isdigit() or len(owners) == int(length)
        assert re.findall(r"who owns the (\w+ \w+)\?", pair.negative)[0] not in pair.clean
        assert (_at(pair, "VALUE"), _at(pair, "KEY")) == (pair.answers[0].strip(), _at(pair, "ASKED"))


@pytest.mark.parametrize("form", ["short", "medium", "long", "items-2", "items-17"])
@pytest.mark.parametrize("corruption", ["other-item", "fresh-item"])
def test_the_thing_that_was_not_taken_is_the_only_one_that_is_left(reader, form, corruption):
    lengths = {"short": 3, "medium": 5, "long": 10, "items-2": 2, "items-17": 17}
    for pair in _sample(reader, "list-recall", form, corruption, n=20):
        for text, left in _said(pair):
            listed, taken, _ = text.split(". ")
            things = re.findall(r"an? (\w+)", listed.partition("there is")[2])
            assert len(set(things)) == lengths[form]
            assert [thing for thing in things if thing not in re.findall(r"the (\w+)", taken)] == [left]
        assert (_at(pair, "ITEM"), _at(pair, "TAKEN")) == (pair.answers[0].strip(), _at(pair, "OTHER"))
        assert pair.positions["OTHER"][0] < pair.clean.index(".") < pair.positions["TAKEN"][0]
        _, taken, _ = pair.negative.split(". ")
        assert set(re.findall(r"the (\w+)", taken)) - set(re.findall(r"an? (\w+)", pair.negative))


def test_a_list_that_no_tokenizer_has_enough_things_for_says_what_there_is(words):
    with pytest.raises(CircuitError, match=r"40 things of one token; a list of 39 needs 41"):
        TASKS.load("list-recall").sample(1, seed=0, lexicon=words, form="items-39")
    with pytest.raises(UnknownNameError, match="form of list-recall"):
        TASKS.load("list-recall").sample(1, seed=0, lexicon=words, form="items-1")


def test_a_length_that_is_none_is_refused_and_one_that_is_too_long_says_what_there_is(words):
    task = TASKS.load("key-value-retrieval")
    for form in ("pairs-1", "pairs-0", "pairs-x", "lists-5", "pairs-05"):
        with pytest.raises(UnknownNameError, match="form of key-value-retrieval"):
            task.sample(1, seed=0, lexicon=words, form=form)
    with pytest.raises(CircuitError, match=r"640 keys and 100 values .* a list of 640 needs 641 keys"):
        task.sample(1, seed=0, lexicon=words, form="pairs-640")
    assert len(task.sample(1, seed=0, lexicon=words, form="pairs-639")[0].clean.splitlines()) == 1 + 639 + 2


@pytest.mark.parametrize("form", ["real", "flipped", "arbitrary"])
@pytest.mark.parametrize("corruption", ["other-class", "labels"])
def test_the_label_is_that_of_the_examples_of_the_same_class(reader, form, corruption):
    classes = {word: name for name, words in CLASSES.items() for word in words}
    assert len(classes) == sum(map(len, CLASSES.values()))
    for pair in _sample(reader, "in-context-classification", form, corruption):
        for text, label in _said(pair):
            examples = re.findall(r"Word: (\w+)\. Kind: (\w+)\n", text)
            (query,) = re.findall(r"Word: (\w+)\. Kind:$", text)
            assert query not in dict(examples)
            shown = {classes[word]: said for word, said in examples}
            assert len(shown) == len(set(shown.values())) == 2
            assert shown[classes[query]] == label
        shown = dict(re.findall(r"Word: (\w+)\. Kind: (\w+)\n", pair.clean))
        if form != "arbitrary":
            assert all((classes[word] == said) == (form == "real") for word, said in shown.items())
        assert _at(pair, "LABEL") == pair.answers[0].strip()


def test_a_name_in_two_tokens_is_cut_between_them():
    """A tokenizer that cuts each name behind its second letter."""

    def split(text: str) -> list[str]:
        return [
            piece for word in re.findall(r" ?\w+|\W", text) for piece in re.findall(r" \w\w?|\w+|\W", word)
        ]

    def n_tokens(text: str, after: str) -> int:
        before, whole = split(after), split(after + text)
        return len(whole) - len(before) if whole[: len(before)] == before else len(split(text)) + 9

    pairs = TASKS.load("name-copying").sample(40, seed=0, lexicon=Lexicon(n_tokens, "twos"), form="story")
    for pair in pairs:
        assert len(_at(pair, "PREVIOUS")) == 2
        assert len(pair.clean.split()[-1]) == 2
        assert pair.clean.split()[-1] + pair.answers[0] in pair.clean


def test_words_of_one_length_are_the_most_and_the_rest_is_counted():
    lexicon = Lexicon(lambda text, after: len(text) - 1)
    assert lexicon.of_one_length("places", ["sea", "hill", "park", "wood", "town", "lighthouse"]) == (
        "hill", "park", "wood", "town",
    )  # fmt: skip
    assert lexicon.rejected["places"] == ("sea", "lighthouse")
