"""The command that a report gives makes the same run again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

NAMES = (("Karen", "Laura"), ("Mark", "Kyle"), ("Helen", "Oscar"), ("Sean", "Thomas"), ("Ryan", "Ashley"))
STORY = "Then {} and {} went home. {} gave a hat to"
PROMPTS = [
    {
        "clean": STORY.format(a, b, b),
        "corrupt": STORY.format(a, b, a),
        "answers": [f" {a}"],
        "distractors": [f" {b}"],
    }
    for a, b in NAMES
]


@pytest.mark.parametrize(
    "words",
    [
        "ioi --pairs 8 --method activation-patching --set activation-patching.ablation=mean --top 5 --seed 3 "
        "--missed 40",
        "factual-recall --form capital --pairs 12 --keep-solved --smallest 0.8 --method logit-attribution --no-bos",
        "--prompts mine.jsonl --method eap --verify 3 --threshold 0.2 --judge-on prompts --batch-size 2",
    ],
)
def test_the_command_of_a_report_makes_the_same_run(
    words: str, circuit: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PROMPTS))
    assert circuit("discover", *shlex.split(words), "--output", "first").exit_code == 0
    if "mine" in words:
        shutil.copy("first/prompts.jsonl", ".")
    found = re.search(r"```text\n(circuit discover .*)\n```", Path("first/report.md").read_text())
    assert found is not None
    again = circuit(*shlex.split(found[1])[1:], "--output", "second")
    assert again.exit_code == 0, again.output
    for name in ("nodes.csv", "edges.csv", "circuit.json", "evaluation.json", "prompts.jsonl"):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes(), name
