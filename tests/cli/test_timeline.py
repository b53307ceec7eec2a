"""`circuit timeline` and the checkpoints of `circuit train`, as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from made_checkpoints import AGAINST, MOVERS, WHOLE, write_checkpoints

Invoke = Callable[..., Result]
STORY = {0: AGAINST, 100: WHOLE, 200: WHOLE}


@pytest.fixture
def asked(circuit: Invoke) -> list[str]:
    write_checkpoints(Path("steps"), STORY)
    (Path("steps") / "checkpoints.json").write_text(json.dumps({"stages": {"planting": 120, "waiting": 80}}))
    return ["timeline", "steps", "--task", "ioi", "--pairs", "16", "--role", "name-mover"]


def test_a_timeline_is_written_and_the_same_byte_for_byte(circuit: Invoke, asked: list[str]) -> None:
    for name in ("one", "two"):
        result = circuit(*asked, "--output", name)
        assert result.exit_code == 0, result.output
    one, two = ({p.name: p.read_bytes() for p in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    files = ("timeline.json", "timeline.csv", "circuits.csv", "report.md", "report.html", "timeline.png")
    assert set(one) == set(files)
    kept = json.loads(one["timeline.json"])
    assert (kept["steps"], kept["stages"]) == ([0, 100, 200], {"planting": 120, "waiting": 80})
    assert {a["name"]: a["above"] for a in kept["appearances"]}["name-mover"] == 100
    assert set(MOVERS) < set(kept["final_circuit"])
    table = pd.read_csv("one/timeline.csv")
    movers = table[table.figure == "name-mover"]
    assert movers.step.tolist() == [0, 100, 200]
    assert movers.above.tolist() == [False, True, True]
    assert table[table.figure == "faithfulness"].step.tolist() == [100, 200]
    circuits = pd.read_csv("one/circuits.csv")
    assert set(circuits[(circuits.step == 200) & circuits.kept].component) == set(kept["final_circuit"])
    assert b"data:image/png" in one["report.html"]
    said = " ".join(result.stdout.split())
    assert "3 checkpoints of steps, steps 0 to 200 (stages: planting 120, waiting 80)" in said
    assert "no meaning" in one["report.md"].decode()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--task", "ioi"], "no folder nowhere"),
        (["steps", "--task", "iou"], "ioi"),
        (["steps", "--task", "ioi", "--method", "patching"], "activation-patching"),
        (["steps", "--task", "ioi", "--role", "name-movers"], "name-mover"),
        (["steps", "--task", "ioi", "--form", "sonnet"], "sonnet"),
    ],
)
def test_mistakes_end_in_one_message(
    circuit: Invoke, asked: list[str], words: list[str], message: str
) -> None:
    result = circuit("timeline", *words, "--output", "out")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plain-4l", "--every", "10"], "say where they go with --checkpoints"),
        (["plain-4l", "--checkpoints", "s", "--every", "10", "--at", "1"], "two ways to choose"),
        (["plain-4l", "--checkpoints", "s", "--at", "0,ten"], "'ten' is no step"),
        (["plain-4l", "--checkpoints", "s", "--at", "99999"], "Step 99999 of --at is never reached"),
        (["plain-4l", "--checkpoints", "m/s"], "lie in each other"),
        (["planted-ioi", "--checkpoints", "s"], "planted-ioi is built by hand"),
        (["strict-4l", "--checkpoints", "s"], "trained on from plain-4l"),
    ],
)
def test_checkpoints_that_cannot_be_written_are_told_before_any_work(
    circuit: Invoke, words: list[str], message: str
) -> None:
    result = circuit("train", *words, "--output", "m")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert not list(Path.cwd().iterdir())
