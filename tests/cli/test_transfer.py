"""`circuit compare --transfer` as a user runs it: at home each circuit does what its run says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from made_runs import made_run

from circuits.graph import Graph

Invoke = Callable[..., Result]


@pytest.fixture
def runs(circuit: Invoke) -> tuple[str, ...]:
    for task in ("ioi", "arithmetic"):
        words = ("--method", "activation-patching", "--method", "logit-attribution", "--top", "9")
        found = circuit("discover", task, *words, "--pairs", "24", "--output", task)
        assert found.exit_code == 0, found.output
    return ("ioi", "arithmetic")


def test_circuits_on_each_others_tasks(circuit: Invoke, runs: tuple[str, ...]) -> None:
    result = circuit("compare", *runs, "ioi:logit-attribution", "--transfer", "--output", "out")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "Faithfulness of each circuit on the prompts of each run" in words
    record = json.loads(Path("out/overlap.json").read_text())
    journeys = {(j["circuit"], j["prompts"]): j for j in record["transfer"]}
    places = {prompts for _, prompts in journeys}
    assert places == {"ioi/plain", "arithmetic/mixed"}, "one place for two circuits of the same prompts"
    assert len(journeys) == 3 * 2
    for run, home in (("ioi", "ioi/plain"), ("arithmetic", "arithmetic/mixed")):
        mine = journeys[run, home]
        assert mine["at_home"]
        assert (mine["size"], mine["n_prompts"]) == (9, 12)
        (verdict,) = (
            v
            for v in json.loads(Path(run, "circuit.json").read_text())["circuits"][0]["evaluation"]
            if v["ablation"] == "resample"
        )
        assert mine["faithfulness"] == pytest.approx(verdict["faithfulness"]["value"], abs=1e-5)
        assert mine["random_median"] == pytest.approx(verdict["random"]["median"], abs=1e-5)
    assert journeys["ioi:logit-attribution", "ioi/plain"]["at_home"]
    assert not journeys["ioi", "arithmetic/mixed"]["at_home"]
    assert {"transfer.png", "transfer.csv", "matrix.png"} <= {p.name for p in Path("out").iterdir()}
    assert len(pd.read_csv("out/transfer.csv")) == 6
    report = Path("out/report.md").read_text()
    assert "## Transfer" in report
    assert "faithful at home than elsewhere on average" in report


def test_what_cannot_be_tried_elsewhere_is_refused(circuit: Invoke, runs: tuple[str, ...]) -> None:
    made_run(Path("made"), Graph(4, 8, 8), nodes=("a0.h1",), model="plain-4l")
    made_run(Path("lost"), Graph(4, 8, 8), nodes=("a0.h1",), model="./none")
    run = json.loads(Path("arithmetic/run.json").read_text())
    run["prompts"]["judged"] = []
    Path("arithmetic/run.json").write_text(json.dumps(run))
    for other, message in {
        "made": "made has no prompts to judge on",
        "lost": "The model of lost cannot be found; say where it is with --model",
        "arithmetic": "arithmetic has no prompts to judge on that no other run discovered on",
    }.items():
        result = circuit("compare", "ioi", other, "--transfer", "--output", "out")
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.output.split())
    assert not Path("out").exists()
