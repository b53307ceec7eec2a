"""`circuit answers` as a user runs it: the tables, the folder, JSON, mutations, and mistakes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

Invoke = Callable[..., Result]
QUICK = ("answers", "planted-ioi", "--task", "ioi", "--pairs", "32")
FILES = {"answers.json", "report.md", "report.html", "effects.png", "nodes.csv", "judged.csv"}


def _choices(path: Path, n: int = 64) -> None:
    """Questions of two options, whose labels plain-4l knows as numbers."""
    rng, lines = random.Random(0), []
    for _ in range(n):
        thing, (right, wrong) = (
            rng.choice(("pen", "cup", "bag", "ring")),
            rng.sample(("red", "blue", "green"), 2),
        )
        place = rng.randrange(2)
        options = [right, wrong] if place == 0 else [wrong, right]
        clean, corrupt = (
            f"The {thing} is {right}. What color is the {thing}?\n5. {a}\n6. {b}\nA:"
            for a, b in (options, options[::-1])
        )
        answers = (" 5", " 6") if place == 0 else (" 6", " 5")
        pair = {"clean": clean, "corrupt": corrupt, "answers": answers[:1], "distractors": answers[1:]}
        lines.append(json.dumps(pair))
    path.write_text("\n".join(lines) + "\n")


def test_the_folder_is_the_same_byte_for_byte_and_says_what_the_terminal_says(circuit: Invoke) -> None:
    runs = [circuit(*QUICK, "--output", name) for name in ("one", "two")]
    assert [run.exit_code for run in runs] == [0, 0], runs[0].output
    one, two = ({p.name: p.read_bytes() for p in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) >= FILES
    report, shown = one["report.md"].decode(), " ".join(runs[0].stdout.split())
    for words in ("discovery prompts are answered rightly", "write 80% of all that is written", "lucky"):
        assert (words in report) == (words in shown) == (words != "lucky")


def test_the_planted_movers_are_the_set_and_what_feeds_them_is_indirect(circuit: Invoke) -> None:
    result = circuit(*QUICK, "--output", "out")
    kept = json.loads(Path("out/answers.json").read_text())
    assert result.exit_code == 0, result.output
    nodes = kept["nodes"]
    assert list(nodes) == list(pd.read_csv("out/nodes.csv").node)
    assert kept["set"]["nodes"] == ["a2.h1", "a2.h3"]
    # Of 80 columns nothing is cut off.
    assert "a2.h1* 2.74 5.48 [5.48, 5.48] 5.48 [5.48, 5.48]" in " ".join(result.stdout.split())
    for name in kept["set"]["nodes"]:
        assert nodes[name]["direct"] > 0
    feeding = {name for name, node in nodes.items() if node["class"] in ("indirect", "content-gatherer")}
    assert feeding - {"input"}
    assert not feeding & set(kept["set"]["nodes"])
    whole = sum(node["net"] for node in nodes.values()) + kept["discovery"]["biases"]
    assert whole == pytest.approx(kept["discovery"]["net"]["value"])
    judged = kept["set"]["judged"]
    assert judged["recovered"]["value"] > judged["random"][1]


def test_mutations_of_own_prompts_are_judged_and_what_cannot_be_is_left_out(circuit: Invoke) -> None:
    """plain-4l never learned to choose, and is told so; it has no J, and the prompts have no preamble."""
    _choices(Path("mine.jsonl"))
    result = circuit(
        "answers", "plain-4l", "--prompts", "mine.jsonl", "--mutation", "all", "--json", "--output", "out"
    )
    assert result.exit_code == 0, result.output
    kept = json.loads(result.stdout)
    assert list(kept["mutations"]) == ["random-capitals", "digits", "permuted-labels", "separators"]
    said = " ".join(result.stderr.split())
    assert "Mutation other-letters is left out" in said
    assert "no-preamble changes nothing in prompt 1" in said
    assert "not clearly above chance" in Path("out/report.md").read_text()
    assert list(pd.read_csv("out/judged.csv").prompts) == ["as they are", *kept["mutations"]]
    assert kept["set"]["judged"]["chance"] == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--mutation", "digit"), "There is no mutation 'digit'. Did you mean 'digits'?"),
        (("--mutation", "digits"), "prompt 1 has no lines like 'A. gray'"),
        (("--form", "plainer"), "There is no form of ioi 'plainer'"),
        (("--prompts", "none.jsonl"), "not both"),
        (("--corruption", "nothing"), "There is no corruption of ioi 'nothing'"),
    ],
)
def test_mistakes_leave_nothing_behind(
    circuit: Invoke, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = circuit(*QUICK, *words, "--output", "out")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
