"""What every task owes: seeded, distinct, aligned pairs with named positions. Runs over the registry."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import pytest

from circuits.errors import CircuitError, UnknownNameError
from tasks import TASKS
from tasks.held_out import held_out, key_held_out
from tasks.task import Lexicon, Task

N = 60
FORMS = [
    (name, form, corruption)
    for name in TASKS.names()
    for form, corruption in product(TASKS.load(name).forms, TASKS.load(name).corruptions)
]


def _task(name: str) -> Task:
    return TASKS.load(name)


def test_tasks_are_found_without_their_data_modules():
    assert {"arithmetic", "colored-objects", "factual-recall", "ioi", "name-copying"} <= set(TASKS.names())
    assert not {"task", "words", "facts", "templates", "held-out"} & set(TASKS.names())


@pytest.mark.parametrize("name", TASKS.names())
def test_a_task_carries_the_name_of_its_file(name):
    assert _task(name).name == name


@pytest.mark.parametrize(("name", "form", "corruption"), FORMS)
def test_pairs_are_seeded_distinct_and_fewer_are_a_prefix_of_more(name, form, corruption, words):
    def sample(n, seed):
        return _task(name).sample(n, seed=seed, lexicon=words, form=form, corruption=corruption)

    pairs = sample(N, 3)
    assert pairs == sample(N, 3)
    assert pairs[: N // 2] == sample(N // 2, 3)
    assert pairs != sample(N, 4)
    assert len({p.clean for p in pairs}) == N


@pytest.mark.parametrize(("name", "form", "corruption"), FORMS)
def test_clean_and_corrupt_differ_and_align_token_by_token(name, form, corruption, reader):
    for pair in _task(name).sample(N, seed=5, lexicon=reader.lexicon, form=form, corruption=corruption):
        clean, corrupt = reader.split(pair.clean), reader.split(pair.corrupt)
        assert len(clean) == len(corrupt), pair
        assert clean != corrupt
        assert pair.negative not in {pair.clean, pair.corrupt, ""}


@pytest.mark.parametrize(("name", "form", "corruption"), FORMS)
def test_answers_are_one_token_and_never_a_distractor(name, form, corruption, reader):
    for pair in _task(name).sample(N, seed=6, lexicon=reader.lexicon, form=form, corruption=corruption):
        before = len(reader.split(pair.clean))
        for word in {side[end] for side in (pair.answers, pair.distractors) for end in (0, -1)}:
            assert len(reader.split(pair.clean + word)) == before + 1, (pair, word)
        assert not set(pair.answers) & set(pair.distractors)


@pytest.mark.parametrize(("name", "form", "corruption"), FORMS)
def test_positions_lie_inside_the_clean_text_and_end_is_its_last_character(name, form, corruption, words):
    for pair in _task(name).sample(N, seed=7, lexicon=words, form=form, corruption=corruption):
        assert all(0 <= start < stop <= len(pair.clean) for start, stop in pair.positions.values())
        assert pair.positions["END"] == (len(pair.clean) - 1, len(pair.clean))


@pytest.mark.parametrize(("name", "form", "corruption"), FORMS)
def test_about_a_tenth_is_held_out_by_key(name, form, corruption, words):
    pairs = _task(name).sample(400, seed=8, lexicon=words, form=form, corruption=corruption)
    assert all(pair.key for pair in pairs)
    assert 0.02 < sum(map(held_out, pairs)) / len(pairs) < 0.25
    kept = _task(name).sample(
        50, seed=8, lexicon=words, form=form, corruption=corruption, accept=lambda p: not held_out(p)
    )
    assert not any(map(held_out, kept))


def test_nothing_without_a_key_is_held_out():
    assert not key_held_out("")


@pytest.mark.parametrize("name", TASKS.names())
def test_a_wrong_form_or_corruption_is_named(name, words):
    with pytest.raises(UnknownNameError, match="form of"):
        _task(name).sample(1, seed=0, lexicon=words, form="no-such-form")
    with pytest.raises(UnknownNameError, match="corruption of"):
        _task(name).sample(1, seed=0, lexicon=words, corruption="no-such-corruption")


@pytest.mark.parametrize("name", TASKS.names())
def test_a_tokenizer_that_splits_every_word_is_refused(name):
    letters = Lexicon(lambda text, after: len(text) + 1, "letters")
    with pytest.raises(CircuitError, match="one token"):
        _task(name).sample(1, seed=0, lexicon=letters)


@pytest.mark.parametrize("name", TASKS.names())
def test_references_name_heads(name):
    for reference in _task(name).references.values():
        assert reference.heads
        assert all(head.startswith("a") and ".h" in head for head in reference.heads)


def test_no_task_imports_torch():
    code = (
        "import sys; from tasks import TASKS; [TASKS.load(n) for n in TASKS.names()]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
