"""`circuit evaluate` as a user runs it: on runs of nodes and of edges, repeatable, and clear about what fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from circuits.graph import Graph
from circuits.models.builtin_models import card
from circuits.records import write_json
from circuits.runs import read_run
from cli.main import app

Invoke = Callable[..., Result]
METHODS = ("--method", "activation-patching", "--method", "logit-attribution")
FILES = {"evaluation.json", "evaluation.md", "report.html", "curve.png", "stability.png"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the planted model. Read-only."""
    path = tmp_path_factory.mktemp("runs") / "run"
    options = ("--model", "planted-ioi", "--pairs", "16", "--top", "4", *METHODS, "--output", str(path))
    result = CliRunner().invoke(app, ["discover", "ioi", *options])
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(app, [str(a) for a in args])


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def _record(path: Path) -> dict[str, Any]:
    found = json.loads((path / "evaluation.json").read_text())
    assert isinstance(found, dict)
    return found


def _change(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def _of_edges(run: Path, extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Makes the run one of edges, as `discover` lays it out: the planted edges are kept, all are scored."""
    held = json.loads((run / "circuit.json").read_text())
    shape = {k: held["model"][k] for k in ("n_layers", "n_heads", "n_kv_heads", "parallel")}
    graph, known = Graph(**shape), tuple(sorted(card("planted-ioi").circuits["ioi"].edges["swap"]))
    kept = (*known, *extra)

    def parts(edge: str) -> dict[str, str]:
        source, reader = edge.split("->")
        target, _, entry = reader.partition("<")
        return {"source": source, "target": target, "input": entry.rstrip(">")}

    rng = np.random.default_rng(0)
    rows = [
        {
            "method": "eap",
            **parts(e),
            "score": 1.0 + i / 9 if e in kept else 0.01 * rng.normal(),
            "stderr": 0.1,
        }
        | {"in_circuit": e in kept}
        for i, e in enumerate(dict.fromkeys((*graph.places, *extra)))
    ]
    pd.DataFrame(rows).to_csv(run / "edges.csv", index=False)
    entry = {"method": "eap", "selection": "greedy", "granularity": "edge", "nodes": []}
    entry["edges"] = [{**parts(e), "score": 1.0, "stderr": 0.1} for e in kept]  # type: ignore[assignment]
    _change(run / "circuit.json", lambda record: record.update(circuits=[entry]))
    return known


def test_a_run_is_judged_whole_and_the_figures_are_those_of_discover(
    circuit: Invoke, made: Path, tmp_path: Path
) -> None:
    result = circuit("evaluate", made, "--output", "out", "--ablation", "mean", "--ablation", "resample")
    assert result.exit_code == 0, result.output
    assert {f.name for f in (tmp_path / "out").iterdir()} == FILES
    record, before = _record(tmp_path / "out"), read_run(made)
    assert [c["method"] for c in record["circuits"]] == ["activation-patching", "logit-attribution"]
    for found, then in zip(record["circuits"], before.circuit["circuits"], strict=True):
        assert found["kept"] == [node["name"] for node in then["nodes"]]
        assert [e["ablation"] for e in found["evaluations"]] == ["resample", "mean"]
        for evaluation, verdict in zip(found["evaluations"], then["evaluation"], strict=True):
            for key in ("value", "low", "high"):
                assert evaluation["verdict"]["faithfulness"][key] == pytest.approx(
                    verdict["faithfulness"][key], abs=1e-5
                )
            figures = ("verdict", "curves", "completeness", "minimality")
            stated = [evaluation[name]["stated"] for name in figures]
            stated += [test["stated"] for test in evaluation["tests"]]
            assert all(len(six) == 6 and all(six.values()) for six in stated)
            assert "8 judged prompts of ioi" in stated[0]["prompt set"]
        # Scored again, the scores are those of the run, up to what a table keeps of their digits.
        assert found["largest_gap_to_the_scores_of_the_run"] < 1e-5
    planted = record["circuits"][0]
    assert planted["stability"]["jaccard"] == 1
    assert planted["stability"]["chance"] < 0.3
    first = planted["evaluations"][0]
    assert {m["verdict"] for m in first["minimality"]["members"]} == {"needed"}
    assert {t["name"]: t["favourable"] for t in first["tests"]}["sufficiency"]
    assert first["curves"]["signed"]["cpr"]["value"] > first["curves"]["random"]["cpr"]["mean"]


def test_the_report_reads_like_a_methods_section(circuit: Invoke, made: Path, tmp_path: Path) -> None:
    result = circuit("evaluate", made, "--method", "activation-patching", "--task", "ioi", "--output", "out")
    assert result.exit_code == 0, result.output
    report = (tmp_path / "out" / "evaluation.md").read_text()
    for words in (
        "bootstrap",
        "Bonferroni",
        "CPR",
        "CMD",
        "random rankings",
        "granularity: node",
        "prompt set: 8 judged prompts of ioi, none of them discovered on",
        "not to be compared",
        "87%",
        "the bar of 0.8",
        "On ioi (",
    ):
        assert words in report, words
    assert "nan" not in report.lower().replace("nanda", "")
    # Another --task that is the run's own holds no prompt that the run was discovered on.
    held = read_run(made)
    assert (
        f"On ioi ({len(held.run['prompts']['judged'])} prompts)" not in report or "Written" in result.output
    )


def test_the_same_seed_gives_the_same_bytes(circuit: Invoke, made: Path, tmp_path: Path) -> None:
    fast = ("-m", "logit-attribution", "--skip", "minimality", "--skip", "completeness", "--pairs", "4")
    for name in "ab":
        assert circuit("evaluate", made, *fast, "--output", name).exit_code == 0
    for name in FILES:
        one, two = ((tmp_path / side / name).read_bytes() for side in "ab")
        if name == "evaluation.json":
            one, two = ({k: v for k, v in json.loads(x).items() if k != "cost"} for x in (one, two))
        assert one == two, name


def test_a_circuit_of_edges_is_judged_and_a_needless_edge_found(
    circuit: Invoke, run: Path, tmp_path: Path
) -> None:
    needless = "input->a2.h5<k>"
    known = _of_edges(run, (needless,))
    result = circuit("evaluate", run, "--json", "--pairs", "4", "--skip", "completeness", "--skip", "tests")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["circuits"]
    assert (tmp_path / "run-evaluation" / "evaluation.md").is_file()
    assert found["granularity"] == "edge"
    assert set(found["kept"]) == {*known, needless}
    (evaluation,) = found["evaluations"]
    assert evaluation["verdict"]["stated"]["granularity"].startswith("edge")
    verdicts = {m["name"]: m["verdict"] for m in evaluation["minimality"]["members"]}
    assert verdicts[needless] == "needless"
    assert evaluation["curves"]["signed"]["cpr"]["value"] > 0.5
    assert "imported" in found["stability_note"]


def test_another_draw_of_the_same_task_holds_no_prompt_that_was_discovered_on(made: Path) -> None:
    """With the run's own seed, half of what is drawn was discovered on."""
    from circuits.evaluation.run_evaluation import prompts_of
    from circuits.models.bridge import load_model
    from cli.run_source import drawn_prompts

    held = read_run(made)
    drawn = drawn_prompts(held, load_model("planted-ioi"), "ioi", 16, seed=0)
    clean = {pair.clean for pair in drawn.pairs}
    assert clean <= {pair.clean for pair in prompts_of(held, "judged")}
    assert not clean & {pair.clean for pair in prompts_of(held, "discovery")}


def test_parts_can_be_left_out(circuit: Invoke, made: Path, tmp_path: Path) -> None:
    skipped = [w for part in ("completeness", "minimality", "tests", "stability") for w in ("--skip", part)]
    result = circuit("evaluate", made, *skipped, "--pairs", "4", "--output", "out")
    assert result.exit_code == 0, result.output
    assert {f.name for f in (tmp_path / "out").iterdir()} == FILES - {"stability.png"}
    (evaluation,) = _record(tmp_path / "out")["circuits"][0]["evaluations"]
    assert evaluation["minimality"] is evaluation["completeness"] is None
    assert evaluation["verdict"]["n_prompts"] == 4


def _fails(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.count("Error:") == 1
    text = " ".join(result.stderr.split())
    for word in words:
        assert word in text, text


def test_what_cannot_be_judged_is_named_and_nothing_is_written(
    circuit: Invoke, made: Path, tmp_path: Path
) -> None:
    _fails(circuit("evaluate", tmp_path / "none"), "There is no run folder")
    _fails(circuit("evaluate", made, "-m", "eapp", "-o", "out"), "eapp", "activation-patching")
    _fails(circuit("evaluate", made, "-t", "ioy", "-o", "out"), "ioy", "'ioi'")
    _fails(circuit("evaluate", made, "--ablation", "men", "-o", "out"), "men", "'mean'")
    _fails(circuit("evaluate", made, "--skip", "curves", "-o", "out"), "--skip curves", "completeness")
    _fails(circuit("evaluate", made, "--model", "./nowhere", "-o", "out"), "./nowhere")
    _fails(circuit("evaluate", made, "-o", made, "--force"), "evaluation.md")
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_gone_or_changed_is_named(circuit: Invoke, run: Path, tmp_path: Path) -> None:
    def rename(record: dict[str, Any]) -> None:
        record["config"]["model"] = "./gone"

    _change(run / "run.json", rename)
    _fails(circuit("evaluate", run), "cannot be found", "--model", "./gone")
    _change(run / "run.json", lambda r: r["config"].update(model="planted-ioi"))
    _change(run / "run.json", lambda r: r["model"].update(weights_sha256="0" * 64))
    _fails(circuit("evaluate", run), "weights differ", "--model planted-ioi")
    assert [f.name for f in tmp_path.iterdir()] == ["run"]


def test_a_circuit_that_does_not_fit_the_model_names_the_first(circuit: Invoke, run: Path) -> None:
    _of_edges(run, ("m2->a9.h9<q>", "m9->logits"))
    _fails(circuit("evaluate", run), "a9.h9")


def test_a_run_of_another_shape_is_refused_by_name(circuit: Invoke, run: Path) -> None:
    def outgrow(record: dict[str, Any]) -> None:
        record["circuits"][0]["nodes"].append({"name": "a7.h1", "score": 1.0, "stderr": 0.1})

    _change(run / "circuit.json", outgrow)
    _fails(circuit("evaluate", run), "a7.h1")


def test_prompts_of_which_clean_is_corrupt_in_effect_leave_faithfulness_undefined(
    circuit: Invoke, run: Path
) -> None:
    """Corrupt prompts that differ from the clean ones in a word that the model does not look at."""
    lines = [json.loads(line) for line in (run / "prompts.jsonl").read_text().splitlines()]
    word = lines[0]["clean"].split()[0]
    other = next(p["clean"].split()[0] for p in lines if p["clean"].split()[0] != word)
    for pair in lines:
        first = pair["clean"].split()[0]
        pair["corrupt"] = pair["clean"].replace(first, other if first != other else word, 1)
    (run / "prompts.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in lines))
    _fails(circuit("evaluate", run), "faithfulness is undefined")


def test_a_run_without_prompts_needs_a_task(circuit: Invoke, run: Path, tmp_path: Path) -> None:
    (run / "prompts.jsonl").write_text("")
    _change(run / "run.json", lambda r: r.pop("prompts"))
    _fails(circuit("evaluate", run), "no prompts", "--task")
    result = circuit(
        "evaluate", run, "--task", "ioi", "--pairs", "4", "-m", "activation-patching", "--skip", "tests"
    )
    assert result.exit_code == 0, result.output
    (found,) = _record(tmp_path / "run-evaluation")["circuits"]
    assert found["evaluations"][0]["verdict"]["faithfulness"]["value"] > 0.9
    assert found["stability"] is None
