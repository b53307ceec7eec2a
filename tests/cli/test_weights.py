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
    """The folder that the command writes, whose record has to be the same the second time."""
    result = circuit("weights", *words, "--output", "one")
    assert result.exit_code == 0, result.output
    files = {path.name: path.read_bytes() for path in Path("one").iterdir()}
    assert circuit("weights", *words, "--json").stdout.encode() == files[f"{words[0]}.json"]
    return files


def test_composition_shows_the_planted_links(circuit: Invoke) -> None:
    files = _twice(circuit, "composition", "planted-ioi", "--top", "5")
    assert set(files) == {
        "composition.json",
        "pairs.csv",
        "components.csv",
        "report.md",
        "report.html",
        "composition.png",
    }
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


def test_observables_of_a_task_rank_the_planted_movers_first(circuit: Invoke) -> None:
    files = _twice(circuit, "observables", "planted-ioi", "--task", "ioi", "--pairs", "12", "--top", "3")
    assert set(files) == {
        "observables.json",
        "paths.csv",
        "mlps.csv",
        "report.md",
        "report.html",
        "observables.png",
    }
    kept = json.loads(files["observables.json"])
    assert kept["n_observables"] == 12
    assert {path["heads"][0] for path in kept["paths"][:2]} == {"a2.h1", "a2.h3"}
    assert len(pd.read_csv("one/paths.csv")) == 18
    assert len(kept["mlps"]) == 3
    answer, distractor = kept["observable"].split("/")
    (mover,) = (row for row in kept["tokens"] if row["heads"] == ["a2.h1"])
    assert (mover["raised"][0], mover["lowered"][0]) == (answer, distractor)


def test_two_observables_are_coupled(circuit: Invoke) -> None:
    words = (
        "weights",
        "observables",
        "planted-ioi",
        "--observable",
        "Mary/John",
        "--observable",
        "John/Mary",
    )
    kept = json.loads(circuit(*words, "--length", "2", "--top", "2", "--json").stdout)
    assert (kept["observable"], kept["second"]) == ("Mary/John", "John/Mary")
    assert kept["couplings"]["a2.h1"]["weights"]["coefficient"] == pytest.approx(-1)
    assert kept["couplings"]["a2.h1"]["prompts"] is None
    assert [len(path["heads"]) for path in kept["paths"]] == [1, 1, 2, 2]


@pytest.mark.slow
def test_low_rank_of_the_heads_that_matter(circuit: Invoke) -> None:
    files = _twice(circuit, "low-rank", "planted-ioi", "--task", "ioi", "--pairs", "8", "--top", "1")
    assert set(files) == {"low-rank.json", "ranks.csv", "report.md", "report.html", "low-rank.png"}
    kept = json.loads(files["low-rank.json"])
    assert {ranks["head"] for ranks in kept["ranks"]} <= {"a1.h4", "a2.h1", "a2.h3"}
    assert [ranks["part"] for ranks in kept["ranks"]] == ["q", "k", "v", "all"]
    table = pd.read_csv("one/ranks.csv")
    assert len(table) == 4 * 49
    assert (
        table.groupby(["head", "part"])["loss"].last().std() < 1e-4
    )  # full rank is the model, whatever the part


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["composition", "planted-io"], "Did you mean 'planted-ioi'?"),
        (["composition", "planted-ioi", "--input", "w"], "There is no input of a head 'w'"),
        (["composition", "planted-ioi", "--head", "a7.h0"], "a7.h0 is not in this model"),
        (["composition", "planted-ioi", "--head", "m0"], "m0 is no head"),
        (["low-rank", "planted-ioi", "--task", "ioi", "--head", "a7.h0"], "a7.h0 is not in this model"),
        (["low-rank", "planted-ioi", "--task", "arithmetic"], "planted-ioi"),
        (["observables", "planted-ioi"], "Say what to observe"),
        (
            ["observables", "planted-ioi", "--observable", "Mary/Kevinly"],
            "'Kevinly' of 'Mary/Kevinly' is not one",
        ),
        (["observables", "planted-ioi", "--task", "iio"], "Did you mean 'ioi'?"),
        (
            ["observables", "planted-ioi", "--observable", "Mary/John", "--form", "plain"],
            "say which with --task",
        ),
        (["observables", "planted-ioi", *["--observable", "Mary/John"] * 3], "3 observables are too many"),
    ],
)
def test_a_mistake_is_one_message(words: list[str], message: str, circuit: Invoke, tmp_path: Path) -> None:
    result = circuit("weights", *words, "--output", "out")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
