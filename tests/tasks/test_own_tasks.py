"""A user's own tasks: the decorator, the file, the package, and every way in which they can be wrong."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from circuits import registry
from circuits.errors import CircuitError, PromptError, UnknownNameError
from tasks import TASKS
from tasks.own import OwnTask, load_file, pair, split_form, split_reference, task
from tasks.task import Lexicon

HEAD = "from tasks.own import pair, task\n"
CAPITALS = (
    HEAD
    + """
CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid"}

@task
def capitals(rng, lexicon):
    "Capitals: the capital of a country."
    country, other = rng.sample(lexicon.single("countries", list(CAPITALS)), 2)
    return pair("The capital of {COUNTRY} is", clean={"COUNTRY": country}, corrupt={"COUNTRY": other},
                answer=" " + CAPITALS[country], distractor=" " + CAPITALS[other])
"""
)
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def sampled(one: Any, words: Lexicon, n: int = 2, **kind: str) -> Any:
    return one.sample(n, seed=0, lexicon=words, **kind)


def test_a_file_of_ten_lines_is_a_task(write: Write, words: Lexicon) -> None:
    path = write(CAPITALS)
    found = TASKS.load(str(path))
    assert (found.name, found.summary) == ("capitals", "Capitals: the capital of a country.")
    assert (found.file, found.sha256) == ("mine.py", hashlib.sha256(path.read_bytes()).hexdigest())
    pairs = sampled(found, words, 3)
    assert {p.answers[0] for p in pairs} == {" Paris", " Rome", " Madrid"}
    for p in pairs:
        start, stop = p.positions["COUNTRY"]
        assert p.clean == f"The capital of {p.clean[start:stop]} is"
        assert p.corrupt != p.clean
        assert p.positions["END"] == (len(p.clean) - 1, len(p.clean))
    assert pairs == sampled(load_file(path, "capitals"), words, 3)


def test_a_file_that_changed_is_read_again(write: Write) -> None:
    first = load_file(write(CAPITALS))
    second = load_file(write(CAPITALS.replace("Capitals: the", "Cities: the")))
    assert (first.summary, second.summary) == (
        "Capitals: the capital of a country.",
        "Cities: the capital of a country.",
    )
    assert first.sha256 != second.sha256


def test_a_function_may_list_all_its_pairs_and_take_forms_and_corruptions(words: Lexicon) -> None:
    @task(
        forms={"up": "counts up", "down": "counts down"},
        corruptions={"far": "by ten", "near": "by one"},
        name="count",
    )
    def counting(form: str, corruption: str) -> Any:
        step, shift = (1 if form == "up" else -1), (10 if corruption == "far" else 1)
        for n in range(40, 50):
            yield pair(
                "After {N} comes",
                clean={"N": str(n)},
                corrupt={"N": str(n + shift)},
                answer=f" {n + step}",
                distractor=f" {n + shift + step}",
                negative={"N": "noon"},
            )

    assert isinstance(counting, OwnTask)
    drawn = sampled(counting, words, 10, form="down", corruption="near")
    assert sorted(p.answers[0] for p in drawn) == [f" {n}" for n in range(39, 49)]
    assert drawn[0].distractors == (f" {int(drawn[0].answers[0]) + 1}",)
    assert drawn[0].negative == "After noon comes"
    assert sampled(counting, words, 10)[0].template == "After {N} comes"
    with pytest.raises(PromptError, match="has 10 distinct prompts"):
        sampled(counting, words, 11)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 1\n", r"mine.py has no function under @task. Put `from tasks.own import"),
        (HEAD + "def f(:\n", r"mine.py, line 2: no Python that can be read"),
        (HEAD + "\nimport no_such_module\n", r"mine.py, line 3: ModuleNotFoundError: No module named"),
        (HEAD + "raise SystemExit(3)\n", r"mine.py, line 2: SystemExit: 3"),
        (HEAD + "@task\ndef f(model):\n    ...\n", r"mine.py, line 2: @task f takes 'model'. It may take any of rng"),
        (HEAD + "task(3)\n", r"mine.py, line 2: @task stands above 3, which is no function"),
        (CAPITALS + CAPITALS.partition("\n@task")[2].join(("\n@task", "")).replace("def capitals", "def cities"),
         r"holds the tasks capitals, cities. Say which: .*mine.py:capitals"),
        (CAPITALS + CAPITALS, r""),
    ],
)  # fmt: skip
def test_a_file_that_is_no_task_is_told_by_line(write: Write, text: str, problem: str) -> None:
    if problem:
        with pytest.raises(CircuitError, match=problem):
            load_file(write(text))
    else:  # a name that is defined anew, as in any Python file, is the last one
        assert load_file(write(text)).name == "capitals"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return pair('{A} and {B}', clean={'A': 'x'}, corrupt={'A': 'y'}, answer=' a', distractor=' b')",
         r"mine.py, line 4: the template '\{A\} and \{B\}' has the slot \{B\}, for which there is no word. Words: A"),
        ("return pair('{A}', clean={'A': 'x'}, corrupt={'C': 'y'}, answer=' a', distractor=' b')",
         r"mine.py, line 4: the template '\{A\}' has no slot \{C\}. Slots: A"),
        ("return pair('{A', clean={'A': 'x'}, corrupt={'A': 'y'}, answer=' a', distractor=' b')",
         r"mine.py, line 4: the template '\{A' cannot be read"),
        ("return 1 / 0", r"mine.py, line 4: ZeroDivisionError: division by zero"),
        ("return 'The capital'", r"mine.py, line 2: @task f made 'The capital', a str. It must return"),
        ("return None", r"mine.py, line 2: @task f made 'None', a NoneType"),
        ("return [1, 2]", r"mine.py, line 2: @task f made '1', a int"),
        ("return []", r"mine.py, line 2: @task f yields no pair"),
        ("return lexicon.single('animals', ['a b', 'c d'])", r"mine.py, line 4: Of 2 animals 0 are one token"),
    ],
)  # fmt: skip
def test_a_task_that_goes_wrong_is_told_by_line(
    write: Write, words: Lexicon, body: str, problem: str
) -> None:
    found = load_file(write(HEAD + f"@task\ndef f(rng, lexicon):\n    {body}\n"))
    with pytest.raises(CircuitError, match=problem):
        sampled(found, words)


def test_a_file_that_is_not_there_and_a_task_that_is_not_in_it(write: Write, tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match=r"Task file .*none.py cannot be read: No such file"):
        TASKS.load(str(tmp_path / "none.py"))
    with pytest.raises(UnknownNameError, match=r"no task of .*mine.py 'capital'. Did you mean 'capitals'"):
        TASKS.require(f"{write(CAPITALS)}:capital")
    write("").write_bytes(b"\xff\xfe = 1\n")
    with pytest.raises(CircuitError, match=r"mine.py, line 1: no Python that can be read"):
        TASKS.load(str(tmp_path / "mine.py"))


@pytest.mark.parametrize(
    ("name", "named", "form"),
    [
        ("ioi", "ioi", ""),
        ("ioi/plain", "ioi", "plain"),
        ("a/mine.py", "a/mine.py", ""),
        ("a/mine.py/up", "a/mine.py", "up"),
        ("a/mine.py:count/up", "a/mine.py:count", "up"),
    ],
)
def test_a_form_stands_behind_a_task_or_a_file(name: str, named: str, form: str) -> None:
    assert split_form(name) == (named, form)
    assert (split_reference(named) is not None) == (".py" in named)


def test_a_package_brings_tasks_and_no_built_in_one_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        "copied": EntryPoint("copied", "tasks.ioi:TASK", "circuit.tasks"),
        "ioi": EntryPoint("ioi", "tasks.arithmetic:TASK", "circuit.tasks"),
        "broken": EntryPoint("broken", "no_such_package:x", "circuit.tasks"),
        "other": EntryPoint("other", "tasks.ioi:FRAMES", "circuit.tasks"),
    }
    monkeypatch.setattr(registry, "packaged", lambda group: entries)
    assert {"copied", "ioi", "broken"} <= set(TASKS.names())
    assert (TASKS.load("copied").name, TASKS.load("ioi").summary[:8]) == ("copied", "Indirect")
    with pytest.raises(
        CircuitError, match=r"The task broken .*no_such_package:x.* cannot be loaded: ModuleNotFound"
    ):
        TASKS.load("broken")
    with pytest.raises(CircuitError, match="names a tuple, not a task"):
        TASKS.load("other")


def test_the_words_of_a_draw_are_those_of_its_own_lexicon(write: Write) -> None:
    """Lists are kept for one lexicon alone."""
    found = load_file(
        write(
            HEAD
            + "@task\ndef f(lexicon):\n    for w in ('a', 'b'):\n        words = {'A': w + lexicon.name}\n"
            "        yield pair('{A} at', clean=words, corrupt={'A': 'c'}, answer=' d', distractor=' e')\n"
        )
    )
    for name in ("one", "two"):
        assert (
            found.generate(random.Random(0), Lexicon(lambda a, b: 1, name), "plain", "other").clean[1:4]
            == name
        )
