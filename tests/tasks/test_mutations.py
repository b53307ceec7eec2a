"""Mutations of multiple-choice prompts: one thing changes, the question and its answer stay."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from circuits.errors import CircuitError, PromptError, UnknownNameError
from circuits.prompts import PromptPair
from tasks import TASKS
from tasks.mutations import MUTATIONS, edited, mutated
from tasks.task import Lexicon

WORDS = Lexicon(lambda text, after: len(re.findall(r"\w+|[^\w\s]", text)), "words")
LINE = re.compile(r"^(\w+)[.)] (\w+)$", re.MULTILINE)


def _pairs(corruption: str = "position") -> tuple[PromptPair, ...]:
    found: tuple[PromptPair, ...] = TASKS.load("multiple-choice").sample(
        24, seed=0, lexicon=WORDS, corruption=corruption
    )
    return found


@pytest.mark.parametrize("corruption", ["position", "letters", "random-letters"])
@pytest.mark.parametrize("name", MUTATIONS)
def test_options_stay_where_they_are_and_the_answer_is_the_label_of_the_same_one(
    name: str, corruption: str
) -> None:
    for own, new in zip(
        _pairs(corruption), mutated(_pairs(corruption), name, seed=0, lexicon=WORDS), strict=True
    ):
        for side in ("clean", "corrupt", "negative"):
            before, after = (LINE.findall(getattr(pair, side)) for pair in (own, new))
            assert [option for _, option in before] == [option for _, option in after]
            assert len({label for label, _ in after}) == 4
        right = {option: label for label, option in LINE.findall(new.clean)}
        old = dict(LINE.findall(own.clean))
        assert new.answers == (" " + right[old[own.answers[0].strip()]],)
        assert {*new.answers, *new.distractors} == {" " + label for label in right.values()}
        spans = {place: new.clean[a:b] for place, (a, b) in new.positions.items()}
        assert spans["LETTER"] == new.answers[0].strip()
        assert spans["END"] == ":"
        assert {k: spans[k] for k in ("ASKED", "OPTION")} == {
            k: own.clean[slice(*own.positions[k])] for k in ("ASKED", "OPTION")
        }
        # Clean and corrupted prompts share their labels as they did before.
        shared = [
            len(
                {label for label, _ in LINE.findall(pair.clean)}
                & {label for label, _ in LINE.findall(pair.corrupt)}
            )
            for pair in (own, new)
        ]
        assert shared[0] == shared[1]


def test_each_changes_what_it_says_and_nothing_else() -> None:
    own = _pairs()[0]
    new = {name: mutated([own], name, seed=0, lexicon=WORDS)[0] for name in MUTATIONS}
    labels = {name: [label for label, _ in LINE.findall(pair.clean)] for name, pair in new.items()}
    assert labels["digits"] == list("1234")
    assert labels["other-letters"] == list("JKLM")
    assert not set(labels["random-capitals"]) & set("ABCD")
    assert sorted(labels["permuted-labels"]) == list("ABCD")
    assert all(a != b for a, b in zip(labels["permuted-labels"], "ABCD", strict=True))
    assert new["separators"].clean == re.sub(r"^([A-D])\. ", r"\1) ", own.clean, flags=re.MULTILINE)
    assert new["no-preamble"].clean == own.clean.removeprefix("Question: ")
    assert mutated([own], "digits", seed=5, lexicon=WORDS) == (new["digits"],)


def test_spans_move_with_the_text() -> None:
    text, spans = edited("ab cd ef", [((0, 2), "x"), ((3, 5), "long")], {"first": (0, 2), "last": (6, 8)})
    assert text == "x long ef"
    assert {name: text[a:b] for name, (a, b) in spans.items()} == {"first": "x", "last": "ef"}


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownNameError, match=r"no mutation 'digit'\. Did you mean 'digits'"):
        mutated(_pairs(), "digit", seed=0, lexicon=WORDS)
    other = replace(_pairs()[0], clean="Mary gave a book to")
    with pytest.raises(PromptError, match=r"prompt 1 has no lines like 'A\. gray'"):
        mutated([other], "digits", seed=0, lexicon=WORDS)
    no_digits = Lexicon(lambda text, after: 1 + any(c.isdigit() for c in text), "letters alone")
    with pytest.raises(CircuitError, match="is not one token of letters alone, so mutation digits"):
        mutated(_pairs(), "digits", seed=0, lexicon=no_digits)
