"""What each task promises beyond the contract: which words stand where, and what flips."""

from __future__ import annotations

import pytest

from circuits.prompts import PromptPair
from tasks import TASKS
from tasks.arithmetic import result
from tasks.facts import COUNTRIES, FACTS, PHRASINGS
from tasks.held_out import key_held_out
from tasks.ioi import FRAMES
from tasks.templates import fill, next_word
from tasks.words import NAMES


def _sample(words, name, form, corruption=None, n=80):
    return TASKS.load(name).sample(n, seed=11, lexicon=words, form=form, corruption=corruption)


def _at(pair: PromptPair, name: str) -> str:
    start, stop = pair.positions[name]
    return pair.clean[start:stop]


@pytest.mark.parametrize("form", ["plain", "distractors", "two-givers"])
def test_ioi_answers_with_the_name_that_is_not_repeated(words, form):
    for pair in _sample(words, "ioi", form):
        io, subject = pair.answers[0], pair.distractors[0]
        assert [" " + _at(pair, name) for name in ("IO", "S1", "S2")] == [io, subject, subject]
        assert pair.clean.count(io) == 1
        assert pair.clean.count(subject) == 2
        assert pair.corrupt.count(io) == 2
        assert pair.corrupt.count(subject) == 1


def test_ioi_abc_has_three_names_once_each_and_so_has_the_negative(words):
    for pair in _sample(words, "ioi", "plain", "abc"):
        clean = [w.strip(".,") for w in pair.clean.split() if w.strip(".,") in NAMES]
        for text in (pair.corrupt, pair.negative):
            names = [w.strip(".,") for w in text.split() if w.strip(".,") in NAMES]
            assert len(names) == len(set(names)) == 3
        assert not set(clean) & {w.strip(".,") for w in pair.corrupt.split()}


def test_ioi_negative_keeps_the_giver_and_puts_the_receiver_first_said(words):
    pair = _sample(words, "ioi", "plain", n=1)[0]
    start, stop = pair.positions["S1"]
    before = pair.negative.find(pair.answers[0].strip())
    assert before >= 0
    assert pair.negative.count(pair.distractors[0]) == 1
    assert start < stop


def test_ioi_has_both_orders_and_thirty_sentences_and_never_begins_with_a_name(words):
    pairs = _sample(words, "ioi", "plain", n=600)
    assert len({p.template for p in pairs}) == 2 * len(FRAMES) == 30
    assert not any(p.clean.split()[0].strip(",") in NAMES for p in pairs)
    assert len(NAMES) == len(set(NAMES)) == 100


def test_two_givers_puts_another_name_behind_the_repeated_one_about_half_the_time(words):
    pairs = _sample(words, "ioi", "two-givers", n=200)
    last = [[w.strip(",") for w in p.clean.split() if w.strip(",") in NAMES][-1] for p in pairs]
    assert 60 < sum(" " + name != p.distractors[0] for name, p in zip(last, pairs, strict=True)) < 140


@pytest.mark.parametrize("form", ["zero-shot", "one-shot"])
def test_colored_objects_spans_name_the_right_and_the_wrong_colours(words, form):
    for pair in _sample(words, "colored-objects", form):
        assert _at(pair, "OBJECT") == _at(pair, "ASKED")
        assert " " + _at(pair, "RIGHT").capitalize() == pair.answers[0]
        wrong = {" " + _at(pair, name).capitalize() for name in ("WRONG1", "WRONG2")}
        assert pair.distractors[0] in wrong
        assert pair.answers[0] not in wrong
        asked_instead = pair.corrupt.rsplit("the ", 1)[1].split("?")[0]
        assert f"{pair.distractors[0].strip().lower()} {asked_instead}" in pair.corrupt
        not_there = pair.negative.rsplit("the ", 1)[1].split("?")[0]
        assert pair.clean.count(not_there) == 0


def test_colored_objects_have_one_token_layout(reader):
    pairs = TASKS.load("colored-objects").sample(50, seed=2, lexicon=reader.lexicon, form="one-shot")
    assert len({len(reader.split(p.clean)) for p in pairs}) == 1
    if reader.lexicon.name == "gpt2":
        texts = [reader.split(p.clean) for p in pairs]
        colours = [{t[i].strip("Ġ") for i in (41, 45, 50)} for t in texts]
        assert all(p.answers[0].strip().lower() in c for p, c in zip(pairs, colours, strict=True))


@pytest.mark.parametrize("form", ["mixed", "addition", "subtraction"])
def test_arithmetic_answers_are_right_for_clean_and_for_corrupt(words, form):
    def value(text):
        operator = "+" if "+" in text else "-"
        a, b = text.rstrip("=").split(operator)
        return str(result(int(a), operator, int(b)))

    for pair in _sample(words, "arithmetic", form):
        assert (value(pair.clean),) == pair.answers
        assert (value(pair.corrupt),) == pair.distractors
        assert int(pair.answers[0]) >= 0
        assert (_at(pair, "A"), _at(pair, "B")) == tuple(pair.clean.rstrip("=").replace("-", "+").split("+"))


@pytest.mark.parametrize("relation", FACTS)
def test_facts_are_those_of_the_table_and_the_corrupt_subject_has_another(words, relation):
    facts = dict(FACTS[relation])
    for pair in _sample(words, "factual-recall", relation):
        assert pair.answers == (" " + facts[_at(pair, "SUBJECT")],)
        rest = pair.corrupt[pair.positions["SUBJECT"][0] :]
        assert pair.distractors[0].strip() in {facts[s] for s in facts if rest.startswith(s)}


def test_in_the_counterfactual_form_the_prompt_says_the_distractor_and_the_answer_is_the_fact(words):
    capitals = dict(FACTS["capital"])
    for pair in _sample(words, "factual-recall", "counterfactual-context"):
        assert pair.answers == (" " + capitals[_at(pair, "SUBJECT")],)
        assert pair.distractors == (" " + _at(pair, "DISTRACTOR"),)
        assert pair.distractors[0] in pair.corrupt


def test_the_table_of_facts_is_consistent():
    cities = [city for city, _ in FACTS["country"]]
    assert len(COUNTRIES) > 90
    assert len(cities) == len(set(cities))
    assert len({c.name for c in COUNTRIES}) == len(COUNTRIES)


def test_no_fact_is_held_out_in_every_phrasing():
    for relation, facts in FACTS.items():
        for subject, _ in facts:
            assert not all(key_held_out(f"{phrasing}|{subject}") for phrasing in PHRASINGS[relation])


def test_fill_says_where_each_slot_landed():
    text, spans = fill("Hi {A}, it is {B}.", {"A": "Tom", "B": "late"})
    assert text == "Hi Tom, it is late."
    assert [text[a:b] for a, b in (spans["A"], spans["B"])] == ["Tom", "late"]
    assert text[slice(*next_word(text, spans["A"]))] == ","
