"""Formats of prompt files: each is told by what it holds, no row is lost in silence, and bad files are refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.errors import PromptError
from circuits.prompt_files import PromptLine, read
from circuits.prompt_files.formats import FORMATS
from circuits.prompt_files.formats.prompt_lines import written
from circuits.prompt_files.records import PromptFile, PromptRow, counted

IOI = {
    "prompt": "As Ann and Bo talked, Bo gave a cup to",
    "template": "As {A} and {B} talked, {B} gave a cup to",
    "choices": ["Ann", "Bo"],
    "answerKey": 0,
    "metadata": {"subject": "Bo"},
    "abc_counterfactual": {
        "prompt": "As Ann and Bo talked, Cy gave a cup to",
        "choices": ["Ann"],
        "answerKey": 0,
    },
    "s2_io_flip_counterfactual": {
        "prompt": "As Ann and Bo talked, Ann gave a cup to",
        "choices": ["Bo", "Ann"],
        "answerKey": 0,
    },
}
LETTERS = {
    "prompt": "A box is red. Which? A. red B. blue Answer:",
    "choices": {"label": ["A", "B"], "text": ["red", "blue"]},
    "answerKey": 0,
    "symbol_counterfactual": {
        "prompt": "A box is red. Which? X. red Y. blue Answer:",
        "choices": {"label": ["X", "Y"], "text": ["red", "blue"]},
        "answerKey": 0,
    },
}
SUM = {
    "prompt": "Q: 12 plus 34? A: ",
    "label": "46",
    "random_counterfactual": {"prompt": "Q: 11 plus 34? A: ", "label": 45},
}
FACTS = [
    {"prompt": "Oslo is in", "subject": "Oslo", "attribute": "Norway", "relation_id": "P17", "known_id": 1},
    {"prompt": "In Rome, the capital of Rome", "subject": "Rome", "attribute": "Italy", "relation_id": "P17"},
]
RELATION = {
    "name": "capital",
    "prompt_templates": ["The capital of {} is"],
    "prompt_templates_zs": ["The capital of {} is", "{}'s capital is"],
    "samples": [{"subject": "Norway", "object": "Oslo"}, {"subject": "Italy", "object": "Rome"}],
}
YEAR = "The war lasted from the year 1752 to the year 17"


def made(folder: Path, name: str, held: object) -> Path:
    path = folder / name
    path.write_text(held if isinstance(held, str) else json.dumps(held), encoding="utf-8")
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(PromptError) as told:
        read(path, **options)
    return str(told.value)


def test_every_format_says_what_it_is() -> None:
    formats = [FORMATS.load(name) for name in FORMATS.names()]
    assert [form.name for form in formats] == list(FORMATS.names())
    assert all(form.summary and form.holds for form in formats)


def test_years_above_the_prompts_are_right(tmp_path: Path) -> None:
    odd = [f"{YEAR},{YEAR.replace('52', '01')},{label}" for label in ("52", "7", "cat")]
    early = "From 1799 to 17,From 1701 to 17,99"
    file = read(made(tmp_path, "gt.csv", "\n".join(["clean,corrupted,label", *odd, early])))
    (row,) = file.rows
    assert (file.format, file.metric, file.size) == ("eap-ig", "probability-difference", 4)
    assert (row.answers[0], row.answers[-1], len(row.answers)) == ("53", "99", 47)
    assert (row.distractors[0], row.distractors[-1]) == ("00", "52")
    start, stop = row.positions["YY"]
    assert (row.clean[start:stop], row.clean[:start][-2:]) == ("52", "17")
    assert [(d.where, d.kind) for d in file.dropped] == [
        ("line 3", "label of an unknown kind"),
        ("line 4", "label of an unknown kind"),
        ("line 5", "no year is greater"),
    ]


def test_token_ids_are_kept_as_they_are_and_another_twin_can_be_chosen(tmp_path: Path) -> None:
    text = ',clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n470,x,y,z,5,"[6, 7]"\n2,v,w,,1,2\n'
    path = made(tmp_path, "ioi.csv", text)
    first, second = read(path).rows
    assert (first.corrupt, first.answer_ids, first.distractor_ids) == ("y", (5,), (6, 7))
    assert second.corrupt == "w"
    hard = read(path, column="corrupted_hard")
    assert [row.corrupt for row in hard.rows] == ["z"]
    assert [(d.where, d.reason) for d in hard.dropped] == [("line 3", "corrupted_hard is empty")]
    assert "no column 'harder' of corrupted prompts: corrupted, corrupted_hard" in refusal(
        path, column="harder"
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize(
    ("row", "answers", "distractors", "twin"),
    [
        (IOI, (" Ann",), (" Bo",), "s2_io_flip_counterfactual"),
        (LETTERS, (" A",), (" X",), "symbol_counterfactual"),
        (SUM, ("46",), ("45",), "random_counterfactual"),
    ],
)
def test_rows_of_mib(
    tmp_path: Path, name: str, row: dict[str, Any], answers: tuple[str], distractors: tuple[str], twin: str
) -> None:
    lacking = {**row, "prompt": "Another", twin: None}
    held = json.dumps([row, lacking]) if name == "a.json" else f"{json.dumps(row)}\n{json.dumps(lacking)}\n"
    file = read(made(tmp_path, name, held))
    (only,) = file.rows
    assert (file.format, only.answers, only.distractors) == ("mib", answers, distractors)
    assert only.corrupt == row[twin]["prompt"]
    assert [d.kind for d in file.dropped] == ["no counterfactual"]


def test_another_counterfactual_of_mib(tmp_path: Path) -> None:
    path = made(tmp_path, "a.jsonl", json.dumps(IOI))
    assert read(path, column="abc").rows == read(path, column="abc_counterfactual").rows
    assert read(path, column="abc").rows[0].corrupt.endswith("Cy gave a cup to")
    assert "no counterfactual 'cba': abc_counterfactual, s2_io_flip_counterfactual" in refusal(
        path, column="cba"
    )
    wrong = made(tmp_path, "b.jsonl", json.dumps({**IOI, "answerKey": 2}))
    assert "line 1: answerKey 2 is none of 2 choices" in refusal(wrong)


def test_facts_name_their_subject_where_it_stands_once(tmp_path: Path) -> None:
    oslo, rome = read(made(tmp_path, "facts.json", [*FACTS, FACTS[0]])).rows
    assert (oslo.answers, oslo.span, oslo.kind, oslo.corrupt) == ((" Norway",), "Oslo", "subject of P17", "")
    assert (rome.span, set(rome.positions)) == ("", {"END"})


def test_a_relation_is_each_template_with_each_sample(tmp_path: Path) -> None:
    for indent in (None, 2):
        file = read(made(tmp_path, "capital.json", json.dumps(RELATION, indent=indent)))
        assert (file.format, file.size) == ("relation", 4)
        assert [row.clean for row in file.rows][1:3] == ["Norway's capital is", "The capital of Italy is"]
        assert [row.span for row in file.rows] == ["Norway", "Norway", "Italy", "Italy"]
        assert [row.answers for row in file.rows] == [(" Oslo",), (" Oslo",), (" Rome",), (" Rome",)]


def test_our_own_lines_as_a_list_and_as_a_table(tmp_path: Path) -> None:
    lines = [{"clean": f"x {i}", "corrupt": "y", "answer": " a", "distractor": " b"} for i in range(3)]
    table = "clean,corrupt,answer,distractor\n" + "".join(f"x {i},y, a, b\n" for i in range(3))
    ways = [
        made(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines))),
        made(tmp_path, "a.json", lines),
        made(tmp_path, "a.csv", table),
    ]
    pairs = [[row.pair() for row in read(way).rows] for way in ways]
    assert pairs[0] == pairs[1] == pairs[2]
    assert len(pairs[0]) == 3


words = st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=3).map(tuple)


@settings(max_examples=40)
@given(
    clean=st.text(min_size=2),
    answers=words,
    corrupt=st.text(),
    distractors=words,
    kind=st.text(),
    key=st.text(),
)
def test_a_row_that_is_written_is_read_as_it_was(
    clean: str, answers: Any, corrupt: str, distractors: Any, kind: str, key: str
) -> None:
    row = PromptRow(
        "",
        clean,
        answers,
        corrupt,
        distractors,
        {"A1": (0, 1), "B": (1, 2)},
        key=key,
        swap="B",
        kind=kind or "B",
    )
    assert PromptLine.model_validate(json.loads(json.dumps(written(row)))).row("") == row


def test_rows_that_repeat_are_kept_once_and_named(tmp_path: Path) -> None:
    pair = {"clean": "x", "corrupt": "y", "answers": [" a"], "distractors": [" b"]}
    lines = [
        pair,
        pair | {"corrupt": "z"},
        pair,
        {"clean": "w", "answer": "c"},
        {"prompt": "w", "answer": "d"},
    ]
    file = read(made(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert [row.where for row in file.rows] == ["line 1", "line 2", "line 4"]
    assert [(d.where, d.reason) for d in file.dropped] == [
        ("line 3", "the same as line 1: 'x'"),
        ("line 5", "the same as line 4: 'w'"),
    ]
    assert (file.size, counted(file.dropped), len(file.bare)) == (5, {"repeated": 2}, 1)


BAD = [
    ("a.csv", "text,label\nx,1\n", "has the columns text, label. Formats of prompt files:"),
    ("a.csv", "clean,corrupted,wrong\nx,y,1\n", "CSV columns clean, corrupted and label (a year), or correct_idx"),
    ("a.csv", "clean,corrupted,label\nx,y\n", "a.csv has 1 bad line:\n  line 2: 2 cells, where the header has 3"),
    ("a.csv", 'clean,corrupted,label\nx,"y', "a.csv is no table: unexpected end of data (line 2)"),
    ("a.csv", "clean,corrupted,correct_idx,incorrect_idx\nx,y,a b,1\n", "line 2: correct_idx: Value error, 'a b'"),
    ("a.csv", "clean,corrupted,correct_idx,incorrect_idx\nx,y,-1,1\n", "correct_idx: Input should be greater"),
    ("a.csv", "clean,corrupted,correct_idx,incorrect_idx\nx,y,3,\n", "line 2: neither a label, nor both"),
    ("a.json", "{\n", "line 1: no JSON"),
    ("a.json", [[1, 2], ["x", " y"]], "a.json has 1 bad entry:\n  index 0: [1, 2] is not [prompt, label]"),
    ("a.json", {"a": 1, "b": 2}, "line 1: clean: Field required; answers: Field required; a: Extra inputs are not"),
    ("a.json", json.dumps({"a": [1], "b": 2}, indent=1), "a.json is JSON of no known format (keys: a, b)"),
    ("a.json", [{"prompt": "x", "subject": "y", "attribute": 3}], "index 0: attribute: Input should be a"),
    ("a.json", {**RELATION, "prompt_templates": ["In {x} is"]}, "template 'In {x} is' has not exactly one slot"),
    ("a.json", {**RELATION, "samples": [{"subject": "x"}]}, "samples: Field required"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "held", "said"), BAD)
def test_a_bad_file_is_refused_and_says_what_is_there(
    tmp_path: Path, name: str, held: object, said: str
) -> None:
    assert said in refusal(made(tmp_path, name, held))


def test_a_twin_cannot_be_chosen_where_there_is_one(tmp_path: Path) -> None:
    path = made(tmp_path, "a.json", FACTS)
    assert "--corrupt-column hard" in refusal(path, column="hard")


def test_bytes_that_are_no_text_are_named_by_byte_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + b"clean\nab\xff")
        assert f"at byte {8 + len(mark)}, line 2" in refusal(path)


@pytest.mark.parametrize("start", [b"", b"[", b'{"clean": "'])
def test_a_huge_line_is_refused_before_it_is_read(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(200 * 2**20)
    tracemalloc.start()
    message = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    limit = 64 if start == b"[" else 10
    assert f"huge.jsonl, line 1 is longer than {limit} MB" in message
    assert peak < 3 * limit * 2**20


PUBLISHED = {
    "circuit_reuse/cobjs_data_42.json": ("prompt-label", 1000, {}),
    "circuit_reuse/cobjs_mindiff_data_42.json": ("prompt-label", 1000, {}),
    "eap_ig/greater_than_data.csv": ("eap-ig", 975, {"repeated": 25}),
    "eap_ig/ioi_llama.csv": ("eap-ig", 499, {}),
    "known_facts/known_1000.json": ("known-facts", 1208, {"repeated": 1}),
    "relations/city_in_country.json": ("relation", 27 * 4, {}),
    "relations/country_capital_city.json": ("relation", 24 * 4, {}),
    "relations/country_currency.json": ("relation", 30 * 5, {}),
    "relations/country_language.json": ("relation", 24 * 6, {}),
    "relations/country_largest_city.json": ("relation", 24 * 4, {}),
    "relations/landmark_in_country.json": ("relation", 836 * 2 - 2, {"repeated": 2}),
    "relations/landmark_on_continent.json": ("relation", 947 * 2 - 4, {"repeated": 4}),
}


def test_nothing_published_is_lost(shared: Path) -> None:
    """What is dropped says the same twice."""
    files = {name: read(shared / "data" / name) for name in PUBLISHED}
    found = {name: (file.format, len(file.rows), counted(file.dropped)) for name, file in files.items()}
    assert found == PUBLISHED
    assert all(_speaks(file) for file in files.values())


def _speaks(file: PromptFile) -> bool:
    """Spans hold what they name, and what is right is not wrong."""
    return all(
        bool(row.answers or row.answer_ids)
        and not set(row.answers) & set(row.distractors)
        and not set(row.answer_ids) & set(row.distractor_ids)
        and (row.span == row.key or file.format in ("eap-ig", "prompt-label"))
        for row in file.rows
    )
