"""Halves: they cover all prompts and share none; templates are halved, or kept whole where that is asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from circuits.errors import PromptError
from circuits.halves import JudgeOn, _sharing_nothing, sentence, split
from circuits.prompts import PromptPair


def _pair(text: str, template: str = "") -> PromptPair:
    return PromptPair(text, f"{text}?", (" a",), (" b",), template=template)


def _prompts(n: int) -> list[PromptPair]:
    return [_pair(str(i)) for i in range(n)]


made = st.lists(
    st.builds(
        _pair, st.sampled_from("abcdefghijklmnopqr"), st.sampled_from(["", "1 | A", "1 | B", "2", "3"])
    ),
    min_size=2,
    max_size=30,
).filter(lambda pairs: len({pair.clean for pair in pairs}) > 1)
"""Prompts of a few templates, among them copies, also of one text in two templates."""


@settings(max_examples=50)
@given(made, st.integers(0, 3), st.sampled_from(["prompts", "templates"]))
def test_halves_cover_all_prompts_and_share_no_text(
    pairs: list[PromptPair], seed: int, judge_on: JudgeOn
) -> None:
    if judge_on == "templates":
        assume(_sharing_nothing(pairs)[1:])
    halves = split(pairs, seed, judge_on)
    assert sorted(halves.discovery + halves.judged) == list(range(len(pairs)))
    assert list(halves.discovery) == sorted(halves.discovery)
    assert halves.discovery
    assert halves.judged
    sides = [{pairs[i].clean for i in half} for half in (halves.discovery, halves.judged)]
    assert not sides[0] & sides[1]
    assert halves == split(pairs, seed, judge_on)
    if judge_on == "templates":
        found, judged = ({sentence(pairs[i].template) for i in h} for h in (halves.discovery, halves.judged))
        assert not found & judged


@given(st.lists(st.sampled_from("xyz"), min_size=2, max_size=60), st.integers(0, 3))
def test_every_template_is_halved_to_within_one(templates: list[str], seed: int) -> None:
    pairs = [_pair(str(i), template) for i, template in enumerate(templates)]
    halves = split(pairs, seed)
    assert len(halves.judged) - len(halves.discovery) == len(pairs) % 2
    there, here = (Counter(templates[i] for i in half) for half in (halves.discovery, halves.judged))
    assert all(abs(there[template] - here[template]) <= 1 for template in "xyz")


@settings(max_examples=25)
@given(st.integers(2, 200), st.integers(0, 5))
def test_without_templates_halves_are_a_seeded_random_half(n: int, seed: int) -> None:
    order = random.Random(f"halves/{seed}").sample(range(n), n)
    assert split(_prompts(n), seed).discovery == tuple(sorted(order[: n // 2]))
    each_its_own = [_pair(str(i), str(i)) for i in range(n)]
    assert split(each_its_own, seed).discovery == tuple(sorted(order[: n // 2]))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=12), st.integers(0, 3))
def test_halves_of_whole_templates_differ_by_no_more_than_the_largest(sizes: list[int], seed: int) -> None:
    pairs = [_pair(f"{t} {i}", str(t)) for t, size in enumerate(sizes) for i in range(size)]
    halves = split(pairs, seed, "templates")
    assert abs(len(halves.judged) - len(halves.discovery)) <= max(sizes)


def test_another_seed_is_another_split() -> None:
    assert len({split(_prompts(20), seed) for seed in range(10)}) == 10
    templates = [_pair(str(i), str(i % 10)) for i in range(20)]
    assert len({split(templates, seed, "templates") for seed in range(10)}) > 5


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_prompts_to_split_are_refused(n: int) -> None:
    with pytest.raises(PromptError, match=f"{n} prompts cannot be split"):
        split(_prompts(n), 0)


def test_copies_of_one_text_cannot_be_split() -> None:
    with pytest.raises(PromptError, match="3 prompts, all of one text, cannot be split"):
        split([_pair("x")] * 3, 0)


def test_one_sentence_in_two_orders_is_one_template() -> None:
    with pytest.raises(PromptError, match=r"have one template \('4'\).*--judge-on prompts"):
        split([_pair("x", "4 | ABBA"), _pair("y", "4 | BABA")], 0, "templates")
