"""Sampling: each template as often as any other until it has no more, and in the end all that there are."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.prompts import PromptPair
from tasks import TASKS
from tasks.sampling import stratified

FORMS = [(name, form) for name in TASKS.names() for form in TASKS.load(name).forms]


def _drawing(sizes: dict[str, int], seed: int, favour: bool = False):
    """A generator of `sizes` pairs a template, drawn with replacement; favour: the first template mostly."""
    rng = random.Random(seed)

    def draw() -> PromptPair:
        templates = list(sizes)
        template = templates[0] if favour and rng.random() < 0.9 else rng.choice(templates)
        return PromptPair(f"{template} {rng.randrange(sizes[template])}", "", (), (), template=template)

    return draw


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(1, 12), min_size=1, max_size=6),
    st.integers(0, 5),
)
@settings(max_examples=12)
def test_all_pairs_come_and_templates_are_even_while_they_last(sizes: dict[str, int], seed: int) -> None:
    pairs = list(stratified(_drawing(sizes, seed)))
    assert len({pair.clean for pair in pairs}) == len(pairs) == sum(sizes.values())
    given_so_far = Counter(dict.fromkeys(sizes, 0))
    for pair in pairs:
        lasting = [template for template in sizes if given_so_far[template] < sizes[template]]
        assert given_so_far[pair.template] == min(given_so_far[template] for template in lasting)
        given_so_far[pair.template] += 1


def test_a_favoured_template_gains_nothing() -> None:
    drawn = islice(stratified(_drawing({"a": 500, "b": 500, "c": 500}, 0, favour=True)), 90)
    assert set(Counter(pair.template for pair in drawn).values()) == {30}


def test_words_within_a_template_are_drawn_without_favour() -> None:
    """A third of 30 pairs, drawn 300 times: each is drawn 100 times, give or take four standard errors."""
    counts = Counter[str]()
    for seed in range(300):
        counts.update(pair.clean for pair in islice(stratified(_drawing({"a": 30}, seed)), 10))
    assert len(counts) == 30
    assert all(abs(count - 100) < 4 * (300 * 1 / 3 * 2 / 3) ** 0.5 for count in counts.values())


def test_what_is_refused_is_not_given_and_nothing_left_is_an_end() -> None:
    drawing = _drawing({"a": 20, "b": 20}, 0)
    assert len(list(stratified(drawing, lambda pair: pair.clean.endswith("7")))) == 4
    assert list(stratified(drawing, lambda pair: False)) == []


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_tasks_give_each_template_equally_often_to_within_one(name, form, words):
    pairs = TASKS.load(name).sample(97, seed=9, lexicon=words, form=form)
    counts = Counter(pair.template for pair in pairs)
    assert max(counts.values()) - min(counts.values()) <= 1
