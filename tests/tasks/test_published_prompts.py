"""The published colored-objects prompts: none is lost, and every word stands where the paper's tokens stand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuits.prompt_files import read_prompt_lists
from circuits.prompts import PromptPair
from tasks import TASKS
from tasks.colored_objects import positions_of


@pytest.fixture(scope="module")
def published(shared: Path) -> tuple[PromptPair, ...]:
    folder = shared / "data" / "circuit_reuse"
    return read_prompt_lists(folder / "cobjs_data_42.json", folder / "cobjs_mindiff_data_42.json")


def test_all_thousand_pairs_are_there_and_placed(published: tuple[PromptPair, ...]) -> None:
    assert len(published) == len({pair.clean for pair in published}) == 1000
    for pair in published:
        assert pair.clean.rpartition("What")[0] == pair.corrupt.rpartition("What")[0]
        where = positions_of(pair.clean)
        said = {name: pair.clean[start:stop] for name, (start, stop) in where.items()}
        assert set(said) == {"OBJECT", "RIGHT", "WRONG1", "WRONG2", "ASKED", "END"}
        assert f" {said['RIGHT'].capitalize()}" == pair.answers[0]
        assert pair.distractors[0].strip().lower() in (said["WRONG1"], said["WRONG2"])
        assert said["OBJECT"] == said["ASKED"]
        assert f"{said['RIGHT']} {said['OBJECT']}" in pair.clean


def test_their_tokens_stand_where_the_paper_says(published: tuple[PromptPair, ...], shared: Path) -> None:
    """Positions without BOS."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        shared / "tokenizers" / "gpt2", local_files_only=True
    )
    for pair in published:
        encoded: Any = tokenizer(pair.clean, return_offsets_mapping=True)
        spans, where = encoded["offset_mapping"], positions_of(pair.clean)
        ends = {stop: i for i, (_, stop) in enumerate(spans)}
        at = {name: ends[stop] for name, (_, stop) in where.items()}
        assert sorted((at["RIGHT"], at["WRONG1"], at["WRONG2"])) == [41, 45, 50]
        assert at["END"] == len(spans) - 1
        assert f"A:{pair.clean[slice(*spans[30])]}\nQ:" in pair.clean
        assert len(tokenizer(pair.answers[0])["input_ids"]) == 1


def test_positions_are_read_as_the_task_writes_them(words: Any) -> None:
    for form in ("one-shot", "zero-shot"):
        for pair in TASKS.load("colored-objects").sample(60, seed=1, lexicon=words, form=form):
            assert positions_of(pair.clean) == pair.positions


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "When Mary and John went to the store, John gave a drink to",
        lambda text: text + " Blue",
        lambda text: text.replace("What color is the", "What color is no"),
        lambda text: text[: text.rindex("the ")] + "the unicorn?\nA:",
    ],
)
def test_another_layout_has_an_end_alone(change: Callable[[str], str], words: Any) -> None:
    (pair,) = TASKS.load("colored-objects").sample(1, seed=1, lexicon=words, form="one-shot")
    text = change(pair.clean)
    assert positions_of(text) == {"END": (len(text) - 1, len(text))}
