"""The answers of a task, found again from the text alone: by a parser, a calendar, a count."""

from __future__ import annotations

import ast
import calendar
import csv
import json
import re
from itertools import pairwise

import pytest

from circuits.errors import CircuitError
from tasks import TASKS
from tasks.facts import FACTS
from tasks.successor import ITEMS
from tasks.words import COLOURS


def _sample(lexicon, name, form=None, corruption=None, n=60):
    return TASKS.load(name).sample(n, seed=21, lexicon=lexicon, form=form, corruption=corruption)


def _words(pair):
    return {name: pair.clean[start:stop] for name, (start, stop) in pair.positions.items()}


def _years(pair):
    century, year = re.search(r"\b(1\d)(\d\d)\b", pair.clean).groups()
    assert _words(pair) | {"CENTURY": century, "YEAR": year} == _words(pair)
    return century, int(year)


@pytest.mark.parametrize("form", TASKS.load("greater-than").forms)
def test_years_in_gpt2_are_all_those_that_it_writes_as_a_century_and_two_digits(gpt2_reader, form):
    for pair in _sample(gpt2_reader.lexicon, "greater-than", form, n=20):
        century, year = _years(pair)
        written = {
            f"{y:02}"
            for y in range(100)
            if gpt2_reader.split(f" {century}{y:02}") == [f"Ġ{century}", f"{y:02}"]
        }
        assert set(pair.answers) == {y for y in written if int(y) > year}
        assert set(pair.distractors) == {y for y in written if int(y) <= year}
        assert pair.clean.endswith(" " + century)
        assert pair.corrupt == pair.clean.replace(f"{century}{year:02}", f"{century}01")


def test_no_published_year_is_rejected(gpt2_reader, shared):
    lexicon = gpt2_reader.lexicon
    _sample(lexicon, "greater-than", n=1)
    with (shared / "data" / "eap_ig" / "greater_than_data.csv").open(newline="") as file:
        years = {re.search(r"\d{4}", row["clean"])[0] for row in csv.DictReader(file)}
    assert len(years) > 300
    assert not years & set(lexicon.rejected["years"])


def test_where_digits_are_tokens_the_answers_are_tens_that_hold_for_all_their_years(digits):
    for pair in _sample(digits.lexicon, "greater-than"):
        _, year = _years(pair)
        ones = {ten: {10 * ten + one > year for one in range(10)} for ten in range(10)}
        assert pair.answers == tuple(str(ten) for ten in ones if ones[ten] == {True})
        assert pair.distractors == tuple(str(ten) for ten in ones if ones[ten] == {False})
        assert len(digits.split(pair.clean)) == len(digits.split(pair.corrupt))


def test_where_years_are_words_the_answers_are_whole_years(words):
    for pair in _sample(words, "greater-than", n=20):
        century, year = _years(pair)
        assert pair.clean.endswith(" year")
        assert [int(a) for a in pair.answers] == list(
            range(int(century) * 100 + year + 1, int(century + "99") + 1)
        )
        assert len(pair.distractors) == year + 1


def test_years_in_groups_of_three_digits_are_refused(threes):
    with pytest.raises(CircuitError, match="Years such as 1342 are neither one token for threes nor"):
        _sample(threes.lexicon, "greater-than")


def _following(form, word):
    if form == "days":
        names = list(calendar.day_name)
        return names[(names.index(word) + 1) % 7]
    if form == "months":
        names = list(calendar.month_name)[1:]
        return names[(names.index(word) + 1) % 12]
    if form == "numbers":
        return str(int(word) + 1)
    if form == "letters":
        return chr(ord(word) + 1)
    return ITEMS[form][ITEMS[form].index(word) + 1]


def _listed(text):
    return re.findall(r"\w+", text.split(":")[1])


@pytest.mark.parametrize("form", ITEMS)
def test_a_sequence_goes_on_as_the_calendar_and_the_numbers_do(words, form):
    for pair in _sample(words, "successor", form):
        shown, shifted = _listed(pair.clean), _listed(pair.corrupt)
        for items in (shown, shifted):
            assert [_following(form, a) for a in items[:-1]] == items[1:]
        assert pair.answers == (" " + _following(form, shown[-1]),)
        assert pair.distractors == (" " + _following(form, shifted[-1]),)
        assert (_words(pair)["FIRST"], _words(pair)["LAST"]) == (shown[0], shown[-1])


@pytest.mark.parametrize("form", ITEMS)
def test_an_order_without_a_pattern_has_no_step_of_one(words, form):
    order = ITEMS[form]
    for pair in _sample(words, "successor", form, "shuffled"):
        for text in (pair.corrupt, pair.negative):
            places = [order.index(item) for item in _listed(text)]
            steps = [b - a for a, b in pairwise(places)]
            assert not {1, -1} & set(steps)
            assert len(set(steps)) > 1
            following = order[places[-1] + 1] if places[-1] + 1 < len(order) else ""
            assert " " + following != pair.answers[0]
        assert pair.distractors == (" " + _listed(pair.clean)[-1],)


def test_numbers_stand_without_spaces_where_the_space_is_a_token(digits):
    for pair in _sample(digits.lexicon, "successor", "numbers", n=40):
        *shown, answer = [int(item) for item in re.findall(r"\d", pair.clean + pair.answers[0])]
        assert shown == list(range(answer - len(shown), answer))
        assert len(digits.split(pair.clean + pair.answers[0])) == len(digits.split(pair.clean)) + 1


def _signature(text):
    """The arguments of the function, and those that its docstring describes, read by Python itself."""
    function = ast.parse(text + ' end:\n    """').body[0]
    described = re.findall(r":param (\w+):", ast.get_docstring(function))
    return [argument.arg for argument in function.args.args[1:]], [d for d in described if d != "end"]


@pytest.mark.parametrize("corruption", TASKS.load("docstring").corruptions)
def test_the_docstring_is_python_and_the_next_argument_is_the_answer(words, corruption):
    for pair in _sample(words, "docstring", corruption=corruption):
        arguments, described = _signature(pair.clean)
        assert [*described, pair.answers[0].strip()] == arguments[2:5]
        assert sorted(pair.answers + pair.distractors) == sorted(" " + a for a in arguments)
        others, elsewhere = _signature(pair.corrupt)
        assert not set(others) & set(elsewhere)
        assert (others == arguments) == (corruption == "random-doc")
        assert (elsewhere == described) == (corruption == "random-def")
        assert not set(_signature(pair.negative)[0]) & {*arguments, *_signature(pair.negative)[1]}


def _many(noun):
    return noun.endswith("s") or noun in {"men", "women", "children"}


@pytest.mark.parametrize("form", TASKS.load("subject-verb-agreement").forms)
def test_verbs_agree_with_the_subject_and_only_the_subject_changes(words, form):
    singular = {" is", " was", " has", " does", " goes"}
    pairs = _sample(words, "subject-verb-agreement", form)
    for pair in pairs:
        subject = _words(pair)["SUBJECT"]
        right, wrong = (
            (pair.distractors, pair.answers) if _many(subject) else (pair.answers, pair.distractors)
        )
        assert singular <= set(right)
        assert not singular & set(wrong)
        assert len(right) == len(wrong)
        [(said, instead)] = [
            (a, b) for a, b in zip(pair.clean.split(), pair.corrupt.split(), strict=True) if a != b
        ]
        assert said == subject
        assert _many(instead) != _many(said)
        if form == "relative":
            verb = pair.clean.split()[-1]
            assert verb.endswith("s") != _many(_words(pair)["ATTRACTOR"])
    if form != "simple":
        numbers = {(_many(_words(pair)["SUBJECT"]), _many(_words(pair)["ATTRACTOR"])) for pair in pairs}
        assert len(numbers) == 4


def _right_letter(text, form):
    """The letter of the one option that answers the question."""
    options = dict(reversed(line.split(". ")) for line in text.split("\n")[1:-1])
    question = text.split("\n")[0]
    if form == "colours":
        [right] = [word for word in re.findall(r"\w+", question) if word in COLOURS]
    else:
        relation = next(r for r in ("capital", "language", "continent") if r in question)
        [right] = [a for s, a in FACTS[relation] if re.search(rf"\b{s}\b", question)]
    return options[right]


@pytest.mark.parametrize("form", TASKS.load("multiple-choice").forms)
@pytest.mark.parametrize("corruption", TASKS.load("multiple-choice").corruptions)
def test_the_answer_is_the_letter_of_the_right_option(words, form, corruption):
    pairs = _sample(words, "multiple-choice", form, corruption)
    for pair in pairs:
        letter, other = _right_letter(pair.clean, form), _right_letter(pair.corrupt, form)
        assert pair.answers == (" " + letter,)
        assert sorted(pair.answers + pair.distractors) == [" A", " B", " C", " D"]
        assert (" " + other in pair.distractors) == (corruption != "random-letters")
        assert other != letter
        assert _words(pair)["LETTER"] == letter
        assert f"\n{letter}. {_words(pair)['OPTION']}\n" in pair.clean
    assert {pair.answers[0] for pair in pairs} == {" A", " B", " C", " D"}


def test_the_greater_than_heads_are_those_of_the_published_list(shared):
    listed = json.loads((shared / "data" / "ground_truth_circuits.json").read_text())
    circuit = listed["gpt2-small"]["greater_than_hanna2023"]
    heads = {f"a{layer}.h{head}" for layer, head in circuit["early_heads"] + circuit["mid_heads"]}
    assert TASKS.load("greater-than").references["gpt2"].heads == heads
    manual = listed["attn-only-4l"]["docstring_acdc_manual"]["heads"]
    assert TASKS.load("docstring").references["attn-only-4l"].heads == {f"a{a}.h{h}" for a, h in manual}
