"""Prompt files: what is good is read, what is bad is named, all of it at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.errors import PromptError
from circuits.prompt_files import PromptLine, read_prompt_lists, read_prompts
from circuits.prompts import PromptPair

GOOD = {
    "clean": "Tom saw Mary. Tom",
    "corrupt": "Tom saw Mary. Sue",
    "answers": [" a"],
    "distractors": [" b"],
}
OTHER = GOOD | {"clean": "Sue saw Mary. Sue"}


def write(folder: Path, *lines: object) -> Path:
    path = folder / "mine.jsonl"
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(PromptError) as refused:
        read_prompts(path)
    return str(refused.value)


def test_lines_become_pairs(tmp_path: Path) -> None:
    full = GOOD | {"positions": {"O": [8, 12]}, "negative": "no", "template": "t", "key": "k"}
    first, second = read_prompts(write(tmp_path, full, "", OTHER, "  "))
    assert first == PromptPair(
        GOOD["clean"], GOOD["corrupt"], (" a",), (" b",), {"O": (8, 12)}, "no", "t", "k"
    )  # type: ignore[arg-type]
    assert (second.positions, second.negative, second.template, second.key) == ({}, "", "", "")


def test_single_strings_and_the_singular_are_taken(tmp_path: Path) -> None:
    singular = {"clean": "x", "corrupt": "y", "answer": " a", "distractor": " b"}
    plural = {"prompt": "z", "corrupt": "y", "answers": " a", "distractors": " b"}
    first, second = read_prompts(write(tmp_path, singular, plural))
    assert first == PromptPair("x", "y", (" a",), (" b",))
    assert second == replace(first, clean="z")


def test_positions_by_text_are_spans(tmp_path: Path) -> None:
    first, _ = read_prompts(write(tmp_path, GOOD | {"positions": {"O": "Mary", "DOT": "."}}, OTHER))
    assert first.positions == {"O": (8, 12), "DOT": (12, 13)}
    assert [first.clean[a:b] for a, b in first.positions.values()] == ["Mary", "."]


@given(st.text(min_size=1), st.text(min_size=1).filter(lambda text: text.strip()), st.data())
def test_a_piece_that_occurs_once_is_found_where_it_is(before: str, piece: str, data: st.DataObject) -> None:
    text = before + piece + data.draw(st.text())
    line = {"clean": text, "corrupt": "x", "answers": "a", "distractors": "b", "positions": {"P": piece}}
    if text.count(piece) == 1:
        start, stop = PromptLine.model_validate(line).pair().positions["P"]
        assert text[start:stop] == piece
    else:
        with pytest.raises(ValueError, match="occurs"):
            PromptLine.model_validate(line)


BAD = [
    ("{", "no JSON"),
    ("[1, 2]", "Input should be a valid dictionary"),
    ("null", "Input should be a valid dictionary"),
    ({"clean": "x"}, "answers: Field required"),
    ({"answer": " x"}, "clean: Field required"),
    ({"clean": "x", "answer": " x", "corrupt": "y"}, "distractors: Field required beside corrupt"),
    ({"clean": "x", "answer": " x", "corrupt": None}, "corrupt: Input should be a valid string"),
    ({"clean": "x", "answer": " x", "swap": "S"}, "swap: 'S' is none of the positions"),
    (GOOD | {"clean": ""}, "clean: String should have at least 1 character"),
    (GOOD | {"answers": []}, "answers: Value should have at least 1 item"),
    (GOOD | {"answers": [""]}, "answers: String should have at least 1 character"),
    (GOOD | {"answers": 3}, "answers: Input should be a valid list"),
    (GOOD | {"distractors": [1]}, "distractors: Input should be a valid string"),
    (GOOD | {"corupt": "x"}, "corupt: Extra inputs are not permitted"),
    (GOOD | {"positions": {"S": "Tom"}}, "position S: 'Tom' occurs 2 times in clean"),
    (GOOD | {"positions": {"S": "Zoe"}}, "position S: 'Zoe' occurs 0 times in clean"),
    (GOOD | {"positions": {"S": [3, 3]}}, "position S: [3, 3] is no span of clean (17 characters)"),
    (GOOD | {"positions": {"S": [0, 18]}}, "position S: [0, 18] is no span of clean (17 characters)"),
    (GOOD | {"positions": {"S": [-2, 1]}}, "position S: [-2, 1] is no span of clean (17 characters)"),
    (GOOD | {"positions": {"S": 3}}, "positions: "),
    (json.dumps(GOOD).replace(" a", "\\ud800"), "answers: Input should be a valid string"),
    ('{"clean": ' + "9" * 5000 + "}", "no JSON that can be read"),
    ("[" * 100_000, "no JSON that can be read"),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason[:30] for _, reason in BAD])
def test_a_bad_line_is_named_with_its_number_and_its_reason(
    tmp_path: Path, line: object, reason: str
) -> None:
    message = refusal(write(tmp_path, GOOD, "", line, GOOD))
    assert "mine.jsonl has 1 bad line:" in message
    assert "\n  line 3: " in message
    assert reason in message


def test_all_bad_lines_are_reported_at_once_up_to_ten(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, GOOD, *(["{"] * 14), GOOD))
    assert "has 14 bad lines" in message
    assert [f"line {n}:" in message for n in range(1, 17)] == [2 <= n <= 11 for n in range(1, 17)]
    assert "... and 4 more" in message


@pytest.mark.parametrize("lines", [(), ("", " "), (GOOD,)])
def test_fewer_than_two_pairs_are_refused_with_an_example(tmp_path: Path, lines: tuple[object, ...]) -> None:
    message = refusal(write(tmp_path, *lines))
    assert f"holds {len([x for x in lines if x == GOOD])} prompt pair" in message
    assert '{"clean": "..."' in message


def test_bytes_that_are_no_utf8_are_located(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"clean": "caf\xe9"}')
    assert "not UTF-8 text" in refusal(path)
    assert "at byte 14" in refusal(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "none.jsonl")
    assert "cannot be read: Is a directory" in refusal(tmp_path)


def test_files_as_windows_writes_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(x).encode() for x in (GOOD, OTHER)) + b"\r\n")
    assert len(read_prompts(path)) == 2


def test_line_breaks_of_unicode_inside_a_text_break_no_line(tmp_path: Path) -> None:
    odd = [GOOD | {"clean": f"Tom\u2028saw\x85{it}"} for it in ("it", "her")]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in odd)
    path = tmp_path / "odd.jsonl"
    path.write_text(text, encoding="utf-8")
    assert [pair.clean for pair in read_prompts(path)] == [line["clean"] for line in odd]


CLEAN, CORRUPT = [["a b?", " x"], ["c d?", " y"]], [["a e?", " z"], ["c f?", " w"]]


def lists(folder: Path, clean: object, corrupt: object) -> tuple[Path, Path]:
    paths = folder / "clean.json", folder / "corrupt.json"
    for path, held in zip(paths, (clean, corrupt), strict=True):
        path.write_text(held if isinstance(held, str) else json.dumps(held), encoding="utf-8")
    return paths


def test_two_lists_become_pairs(tmp_path: Path) -> None:
    assert read_prompt_lists(*lists(tmp_path, CLEAN, CORRUPT)) == (
        PromptPair("a b?", "a e?", (" x",), (" z",)),
        PromptPair("c d?", "c f?", (" y",), (" w",)),
    )


@pytest.mark.parametrize(
    ("clean", "corrupt", "said"),
    [
        ("[[", CORRUPT, "clean.json is no JSON"),
        (CLEAN, {"prompts": CORRUPT}, "corrupt.json is no JSON list of [prompt, label]"),
        (CLEAN, [CORRUPT[0], ["c f?"]], 'corrupt.json has 1 bad entry:\n  index 1: ["c f?"] is not [prompt, label]'),
        ([CLEAN[0], ["c d?", 3]], CORRUPT, 'index 1: ["c d?", 3] is not'),
        ([["", " x"], "c"], CORRUPT, '2 bad entries:\n  index 0: ["", " x"] is not'),
        (CLEAN, CORRUPT[:1], "clean.json holds 2 prompts and "),
        (CLEAN, [CORRUPT[0], ["c f?", " y"]], "index 1: label ' y' is that of the corrupted twin as well"),
        (CLEAN, [["a b?", " z"], CORRUPT[1]], "index 0: prompt 'a b?' is that of"),
        (CLEAN[:1], CORRUPT[:1], "holds 1 prompts; at least 2"),
    ],
)  # fmt: skip
def test_bad_lists_are_refused_by_index(tmp_path: Path, clean: object, corrupt: object, said: str) -> None:
    with pytest.raises(PromptError) as refused:
        read_prompt_lists(*lists(tmp_path, clean, corrupt))
    assert said in str(refused.value)


def test_a_list_alone_is_told_of_its_other_half(tmp_path: Path) -> None:
    clean, _ = lists(tmp_path, CLEAN, CORRUPT)
    assert "by --corrupt-prompts FILE" in refusal(clean)
