"""`circuit weights` as a user runs it: tables, folders, JSON, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

Invoke = Callable[..., Result]


def _twice(circuit: Invoke, *words: str) -> dict[str, bytes]:
    """The folder that the command writes, which has to be the same the second time."""
    for name in ("one", "two"):
        result = circuit("weights", *words, "--output", name)
        assert result.exit_code == 0, result.output
    one, two = ({p.name: p.read_bytes() for p in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    return one


def test_composition_shows_the_planted_links(circuit: Invoke) -> None:
    files = _twice(circuit, "composition", "planted-ioi", "--top", "5")
    assert set(files) == {"composition.json", "pairs.csv", "components.csv", "report.md"}
    kept = json.loads(files["composition.json"])
    assert [(link["source"], link["target"], link["mode"]) for link in kept["links"][:2]] == [
        ("a1.h4", "a2.h1", "q"),
        ("a1.h4", "a2.h3", "q"),
    ]
    pairs = pd.read_csv("one/pairs.csv")
    assert len(pairs) == 3 * 3 * 36  # inputs, pairs of layers, pairs of heads
    assert (pairs["score"].diff().dropna() <= 0).all()
    assert pd.read_csv("one/components.csv")["score"].min() > kept["chance"]["best_max"]
    assert "Of 324 links 4 are above that most" in files["report.md"].decode()


def test_composition_of_one_head_and_input(circuit: Invoke) -> None:
    words = (
        "weights",
        "composition",
        "planted-ioi",
        "--head",
        "a1.h4",
        "--input",
        "v",
        "--top",
        "99",
        "--json",
    )
    links = json.loads(circuit(*words).stdout)["links"]
    assert links[0]["source"] == "a0.h2"
    assert {link["mode"] for link in links} == {"v"}
    assert all("a1.h4" in (link["source"], link["target"]) for link in links)
    assert len(links) == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["composition", "planted-io"], "Did you mean 'planted-ioi'?"),
        (["composition", "planted-ioi", "--input", "w"], "There is no input of a head 'w'"),
        (["composition", "planted-ioi", "--head", "a7.h0"], "a7.h0 is not in this model"),
        (["composition", "planted-ioi", "--head", "m0"], "m0 is no head"),
    ],
)
def test_a_mistake_is_one_message(words: list[str], message: str, circuit: Invoke, tmp_path: Path) -> None:
    result = circuit("weights", *words, "--output", "out")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
