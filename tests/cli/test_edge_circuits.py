"""Circuits of edges through the command line, on the model whose edges are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from circuits.circuit import ends
from circuits.models.builtin_models import card
from circuits.runs import read_run

Invoke = Callable[..., Result]
QUICK = ("ioi", "--model", "planted-ioi", "--pairs", "24", "--method", "eap")
KNOWN = card("planted-ioi").circuits["ioi"].edges["swap"]


def _names(table: list[dict[str, str | None]]) -> set[str]:
    return {f"{e['source']}->{e['target']}" + (f"<{e['input']}>" if e["input"] else "") for e in table}


def test_the_planted_edges_are_found_judged_and_recorded(circuit: Invoke, tmp_path: Path) -> None:
    result = circuit("discover", *QUICK, "--output", "out")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "eap keeps 6 of 496 edges between 4 of 21 components" in words
    assert "planted-ioi card: AUROC 1.00 over edges; precision 1.00, recall 1.00" in words
    run = read_run(tmp_path / "out")
    (found,) = run.circuit["circuits"]
    assert found["granularity"] == "edge"
    assert _names(found["edges"]) == KNOWN
    assert all(edge["stderr"] is not None for edge in found["edges"])
    assert found["evaluation"][0]["faithfulness"]["value"] == pytest.approx(1.0, abs=0.01)
    assert list(run.edges) == ["method", "source", "target", "input", "score", "stderr", "in_circuit"]
    assert len(run.edges) == 496
    inside = run.edges[run.edges["in_circuit"]].fillna("").to_dict("records")
    assert _names(inside) == KNOWN
    stated = run.evaluation["methods"]["eap"]["verdicts"][0]["stated"]
    assert stated["granularity"].startswith("edge")
    assert "as many edges grown from the logits" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    "rule", ["--threshold 0.004 --pairs 12", "--significance 0.01 --pairs 60", "--smallest 0.9 --pairs 12"]
)
def test_every_rule_keeps_connected_edges(rule: str, circuit: Invoke) -> None:
    result = circuit("discover", *QUICK, *rule.split(), "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["circuits"]
    assert set(found["edges"]) >= KNOWN
    assert {node for edge in found["edges"] for node in ends(edge)} == {"input", "logits", *found["nodes"]}


def test_too_many_edges_are_refused_by_plan_and_discover(circuit: Invoke) -> None:
    for command in ("discover", "plan"):
        result = circuit(command, *QUICK, "--top", "497")
        assert result.exit_code == 2
        assert "--top 497 asks for more edges than eap scores (496)" in " ".join(result.stderr.split())


def test_a_plan_prices_the_judging_of_edges(circuit: Invoke) -> None:
    result = circuit("plan", *QUICK, "--json")
    assert result.exit_code == 0, result.output
    stages = {stage["stage"]: stage for stage in json.loads(result.stdout)["stages"]}
    for stage in ("eap: selection", "eap: judging", "eap: random circuits", "eap: sizes"):
        assert stages[stage]["cpu_seconds"] > 0
        assert stages[stage]["rows"] > 0


def test_the_largest_edges_are_measured_again(circuit: Invoke, tmp_path: Path) -> None:
    result = circuit("discover", *QUICK, "--verify", "8", "--top", "12", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "The 8 edges that eap ranks first, cut exactly on 12 prompts" in " ".join(result.stdout.split())
    audit = read_run(tmp_path / "out").evaluation["methods"]["eap"]["audit"]
    exact = {edge["edge"]: edge["exact"] for edge in audit["edges"]}
    assert len(exact) == 8
    # Attention is nearly saturated there, so gradients understate what comes before the movers.
    assert exact["a0.h2->a1.h4<v>"] > 10
    assert not audit["sign_errors"]
    assert set(audit["false_positives"]) == set(exact) - KNOWN
    assert "| a0.h2->a1.h4<v> |" in (tmp_path / "out" / "report.md").read_text()


def test_nothing_can_be_verified_without_edges(circuit: Invoke) -> None:
    result = circuit("discover", "ioi", "--method", "logit-attribution", "--verify", "5")
    assert result.exit_code == 2
    assert "--verify 5 is for methods that score edges, such as eap" in " ".join(result.stderr.split())


def test_discover_goes_on_to_evaluate_where_it_is_asked_to(circuit: Invoke, tmp_path: Path) -> None:
    result = circuit("discover", *QUICK, "--pairs", "12", "--top", "6", "--evaluate", "--output", "out")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    for said in (
        "eap keeps 6 of 496 edges",
        "Over ten sizes: CPR",
        "Minimality: of 6 members",
        "Stability: circuits of 6",
    ):
        assert said in words
    inside = json.loads((tmp_path / "out-evaluation" / "evaluation.json").read_text())
    assert [circuit["method"] for circuit in inside["circuits"]] == ["eap"]


def test_an_evaluation_that_stands_is_found_before_any_work(circuit: Invoke, tmp_path: Path) -> None:
    (tmp_path / "out-evaluation").mkdir()
    result = circuit("discover", *QUICK, "--evaluate", "--output", "out")
    assert result.exit_code == 2
    assert "out-evaluation exists" in " ".join(result.stderr.split())
    assert [p.name for p in tmp_path.iterdir()] == ["out-evaluation"]
