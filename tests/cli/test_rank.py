"""`circuit rank` as a user runs it: the table, the folder, JSON, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]
TEXTS = ("Mary went to the store", "John gave Mary a drink", "When Tom and Ann went to the store")


@pytest.fixture
def words(directory: Callable[[str], Path]) -> list[str]:
    lines = [json.dumps({"text": text, "id": n}) + "\n" for n, text in enumerate(TEXTS)]
    Path("texts.jsonl").write_text("".join(lines))
    Path("target.jsonl").write_text(lines[1])
    return ["rank", "texts.jsonl", "--model", str(directory("tiny-gpt2"))]


def test_influence_is_written_best_first_and_the_same_byte_for_byte(
    circuit: Invoke, words: list[str]
) -> None:
    asked = [*words, "--by", "attention-influence", "--head", "a1.h2", "--draws", "2"]
    result = circuit(*asked, "--output", "one")
    assert result.exit_code == 0, result.output
    one = {path.name: path.read_bytes() for path in Path("one").iterdir()}
    assert set(one) == {
        "ranking.json",
        "scores.jsonl",
        "scores.csv",
        "report.md",
        "report.html",
        "ranking.png",
    }
    lines = [json.loads(line) for line in one["scores.jsonl"].decode().splitlines()]
    figures = [line["attention-influence"] for line in lines]
    assert [f["rank"] for f in figures] == [1, 2, 3]
    assert [f["score"] for f in figures] == sorted((f["score"] for f in figures), reverse=True)
    assert all(TEXTS[line["id"]] == line["text"] for line in lines)
    assert all(f["score"] == pytest.approx(f["masked_loss"] / f["loss"] - 1) for f in figures)
    assert all(f["excess"] == pytest.approx(f["score"] - f["chance"]) for f in figures)
    again = circuit(*asked, "--json").stdout
    assert again.encode() == one["ranking.json"]
    kept = json.loads(again)
    assert kept["heads"] == ["a1.h2"]
    assert "Masked: a1.h2" in " ".join(result.stdout.split())


def test_mona_puts_the_target_first(circuit: Invoke, words: list[str]) -> None:
    asked = [
        *words,
        "--by",
        "mona",
        "--target",
        "target.jsonl",
        "--steps",
        "10",
        "--features",
        "32",
        "--active",
        "4",
    ]
    result = circuit(*asked, "--json")
    assert result.exit_code == 0, result.output
    first = min(json.loads(result.stdout)["scores"], key=lambda row: row["rank"])
    assert (first["line"], first["score"]) == (2, pytest.approx(1))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--by", "mona"], "name those with --target FILE"),
        (["--by", "mona", "--target", "no.jsonl"], "no.jsonl cannot be read"),
        (
            ["--by", "mona", "--target", "target.jsonl", "--head", "a0.h0"],
            "--by mona takes no --head, which attention-influence does",
        ),
        (["--by", "attention-influence", "--target", "target.jsonl"], "takes no --target, which mona does"),
        (["--by", "attention-influence", "--features", "8", "--steps", "9"], "no --features and no --steps"),
        (["--by", "mona", "--target", "target.jsonl", "--draws", "2"], "--by mona takes no --draws"),
        (["--by", "attention-influence", "--head", "a9.h9"], "a9.h9"),
        (["--by", "mona", "--target", "target.jsonl", "--active", "900"], "900 active features of 512"),
        (["--by", "influence"], "Invalid value for '--by'"),
    ],
)
def test_a_mistake_is_one_message(more: list[str], message: str, circuit: Invoke, words: list[str]) -> None:
    before = sorted(Path().iterdir())
    result = circuit(*words, *more, "--output", "out")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert sorted(Path().iterdir()) == before


def test_a_model_that_shows_no_retrieval_heads_is_named(circuit: Invoke, words: list[str]) -> None:
    result = circuit(*words[:3], "plain-4l", "--by", "attention-influence")
    assert result.exit_code == 2
    assert "passes no needle test" in " ".join(result.output.split())
