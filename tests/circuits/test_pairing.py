"""Pairs from prompt files: twins are made of other prompts of the file, as long and with another answer, or named."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from fake_model import FakeModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import NAMES

from circuits.batches import continuation, make_batches
from circuits.errors import PromptError
from circuits.models.bridge import BridgeModel
from circuits.prompt_files import read
from circuits.prompt_files.pairing import Paired, fitting, pair_up, require_two
from circuits.prompt_files.records import WAYS, PromptFile, PromptRow, Way, counted

FRAMES = (
    "When {A} and {B} went to the store, {B} gave a drink to",
    "{A} and {B} went later, {B} gave a bag to",
)


def row(n: int, frame: str, name: str, other: str) -> PromptRow:
    text = frame.format(A=name, B=other)
    start = text.index(name)
    spans = {"IO": (start, start + len(name)), "END": (len(text) - 1, len(text))}
    return PromptRow(f"line {n}", text, (f" {name}",), positions=spans, swap="IO", kind="name")


ROWS = [row(n, FRAMES[n % 2], *names) for n, names in enumerate(permutations(NAMES, 2))]


def file_of(rows: Sequence[PromptRow]) -> PromptFile:
    return PromptFile(Path("mine.jsonl"), "prompt-lines", tuple(rows))


def kinds(paired: Paired) -> dict[str, int]:
    return counted(paired.dropped)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.permutations(ROWS),
    n=st.integers(2, len(ROWS)),
    way=st.sampled_from(WAYS),
    seed=st.integers(0, 3),
)
def test_twins_are_of_the_file_and_fit(
    gpt2: BridgeModel, rows: list[PromptRow], n: int, way: Way, seed: int
) -> None:
    rows = rows[:n]
    file = file_of(rows)
    paired = pair_up(gpt2, file, way, seed=seed)
    assert paired == pair_up(gpt2, file, way, seed=seed)
    assert sorted([*(r.where for r in paired.rows), *(d.where for d in paired.dropped)]) == sorted(
        r.where for r in rows
    )
    assert fitting(gpt2, paired) == paired  # make_batches takes them as they are
    texts = {r.clean for r in rows}
    for made in paired.rows:
        assert made.answers != made.distractors
        assert made.distractors[0] in {r.answers[0] for r in rows}
        if way == "mean":
            assert made.corrupt in texts - {made.clean}
            continue
        start, stop = made.positions["IO"]
        name = made.distractors[0].strip()
        assert made.corrupt == made.clean[:start] + name + made.clean[stop:]
        assert name not in made.clean
    for dropped in paired.dropped:
        mine = next(r for r in rows if r.where == dropped.where)
        assert not any(_could(gpt2, mine, other, way) for other in rows)


def _could(model: BridgeModel, mine: PromptRow, other: PromptRow, way: Way) -> bool:
    """Whether `other` could have lent its span, or its text."""
    if other.answers == mine.answers:
        return False
    if way == "resample":
        return other.span not in mine.clean
    return len(model.tokenize(other.clean)[0]) == len(model.tokenize(mine.clean)[0])


def test_another_seed_chooses_other_partners(gpt2: BridgeModel) -> None:
    made = [pair_up(gpt2, file_of(ROWS), "resample", seed=seed).pairs for seed in (0, 1)]
    assert len(made[0]) == len(made[1]) == len(ROWS)
    assert made[0] != made[1]
    make_batches(gpt2, made[0])


def test_what_has_no_partner_is_named_with_its_reason(gpt2: BridgeModel) -> None:
    first = ROWS[0]
    strange = [
        PromptRow("line 90", "Tom gave", (" zebra",), positions={"A": (0, 3)}, swap="A", kind="name"),
        PromptRow("line 91", "Tom gave", (" to the",), positions={"A": (0, 3)}, swap="A", kind="name"),
        PromptRow("line 92", "Tom gave a", (" bag",)),
        PromptRow("line 93", "Tom gave the", (" bag",), positions={"A": (0, 3)}, swap="A", kind="thing"),
    ]
    paired = pair_up(gpt2, file_of([first, row(80, FRAMES[0], "Sue", "Bob"), *strange]), seed=1)
    assert [r.where for r in paired.rows] == ["line 0", "line 80"]
    assert [(d.where, d.kind) for d in paired.dropped] == [
        ("line 90", "an answer outside the vocabulary"),
        ("line 91", "an answer of several tokens"),
        ("line 92", "no position to swap"),
        ("line 93", "no partner"),
    ]
    assert "' to the' is 2 tokens for tiny-gpt2" in paired.dropped[1].reason


def test_too_few_are_refused_with_the_counts_and_the_way_out(gpt2: BridgeModel) -> None:
    bare = [PromptRow(f"line {n}", f"{name} gave a", (f" {name}",)) for n, name in enumerate(NAMES)]
    file = file_of(bare)
    with pytest.raises(PromptError) as told:
        require_two(gpt2, file, pair_up(gpt2, file))
    for part in ("Of 6 prompts of mine.jsonl 0 can", "6 no position to swap", "--make-corrupt mean"):
        assert part in str(told.value)
    require_two(gpt2, file, pair_up(gpt2, file, "mean"))


def test_twins_of_the_file_stand_and_none_are_made_for_them(gpt2: BridgeModel) -> None:
    whole = PromptRow("line 99", "Tom gave a", (" bag",), "Tom gave", (" drink",))
    paired = pair_up(gpt2, file_of([whole, *ROWS]))
    assert paired.pairs[0] == whole.pair()
    assert len(paired.pairs) == len(ROWS) + 1
    left = fitting(gpt2, paired)
    assert [d.reason for d in left.dropped] == ["clean is 4 tokens and corrupt 3 for tiny-gpt2"]
    with pytest.raises(PromptError, match=r"--make-corrupt mean: mine\.jsonl has the corrupted twins"):
        pair_up(gpt2, file_of([whole]), "mean")


def test_token_ids_become_words_and_foreign_ones_are_named(gpt2: BridgeModel) -> None:
    tom, sue, bag = (continuation(gpt2, "When", f" {word}")[0] for word in ("Tom", "Sue", "bag"))
    rows = [
        PromptRow("line 1", "Tom and Sue", corrupt="Tom and Tom", answer_ids=(tom,), distractor_ids=(sue,)),
        PromptRow("line 2", "Tom and Sue", corrupt="Tom and Bob", answer_ids=(bag,), distractor_ids=(9999,)),
    ]
    paired = pair_up(gpt2, file_of(rows))
    assert [(r.answers, r.distractors, r.answer_ids) for r in paired.rows] == [((" Tom",), (" Sue",), ())]
    assert [(d.where, d.kind) for d in paired.dropped] == [("line 2", "token ids outside the vocabulary")]
    assert "token id 9999 is no word of tiny-gpt2's vocabulary" in paired.dropped[0].reason
    assert not paired.notes


def test_ids_of_another_tokenizer_are_doubted(gpt2: BridgeModel) -> None:
    ids = [continuation(gpt2, "When", f" {word}")[0] for word in ("bag", "drink")]
    foreign = [
        PromptRow(
            "line 1", "Tom and Sue", corrupt="Tom and Tom", answer_ids=(ids[0],), distractor_ids=(ids[1],)
        )
    ]
    assert "In 1 of 1 prompts neither" in pair_up(gpt2, file_of(foreign)).notes[0]


class Tokenizer(FakeModel):
    """What pairing asks of a model."""

    name = "gpt2"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer: Any = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        return encoded["input_ids"], encoded["offset_mapping"]

    def token_string(self, token: int) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(token)).replace("\u0120", " ")


def test_published_files_are_paired_under_the_tokenizer_of_gpt2(shared: Path) -> None:
    model: Any = Tokenizer(shared / "tokenizers" / "gpt2")
    facts, llama, capital = (
        pair_up(model, read(shared / "data" / name))
        for name in (
            "known_facts/known_1000.json",
            "eap_ig/ioi_llama.csv",
            "relations/country_capital_city.json",
        )
    )
    assert (len(facts.rows), kinds(facts)) == (1067, {"no partner": 141})
    assert (len(llama.rows), kinds(llama)) == (288, {"token ids outside the vocabulary": 211})
    assert "In 287 of 288 prompts neither answers nor distractors" in llama.notes[0]
    assert (len(capital.rows), kinds(capital)) == (64, {"an answer of several tokens": 32})
