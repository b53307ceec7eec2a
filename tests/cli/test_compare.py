"""`circuit compare` and `circuit check` as a user runs them: known overlaps, whole folders, refusals, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from click.testing import Result
from made_runs import made_run
from matplotlib.colors import to_hex

from circuits.circuit import edge_circuit, ends
from circuits.exchange.files import Imported
from circuits.exchange.run_folder import circuit_of_run
from circuits.graph import Graph
from circuits.records import write_json
from circuits.runs import read_run, write_records, writing_run
from circuits.scored_circuit import top
from cli.import_records import records

Invoke = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[2]
GRAPH = Graph(4, 8, 8)
FIRST = ("a0.h1", "a1.h2", "a2.h3", "m3")
SECOND = ("a1.h2", "a2.h3", "a2.h4", "m3", "m0")
EDGES = ("a0.h1->a1.h2<q>", "m0->logits", "input->m0", "a1.h2->m3")


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path) -> None:
    made_run(tmp_path / "a", GRAPH, nodes=FIRST, faithfulness=0.9)
    made_run(tmp_path / "b", GRAPH, nodes=SECOND, faithfulness=0.7, seed=1)
    made_run(tmp_path / "e", GRAPH, edges=EDGES)
    made_run(tmp_path / "f", GRAPH, edges=(*EDGES[1:], "m3->logits"), seed=1)


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_two_runs_of_nodes(circuit: Invoke) -> None:
    result = circuit("compare", "a", "b", "--output", "out")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "3 of 6 nodes shared: Jaccard 0.50" in words
    assert "both: a1.h2, a2.h3, m3" in words
    assert "a alone: a0.h1 b alone: m0, a2.h4" in words
    out = Path("out")
    files = {
        "overlap.json",
        "overlap.csv",
        "members.csv",
        "report.md",
        "report.html",
        "overlay.png",
        "overlay.svg",
    }
    assert {p.name for p in out.iterdir()} == files
    (record,) = json.loads((out / "overlap.json").read_text())["comparisons"]
    assert record["overlap"]["shared"] == 3
    assert record["union"] == 6
    (row,) = pd.read_csv(out / "overlap.csv").to_dict("records")
    assert row["jaccard"] == 0.5
    assert row["p_value"] == pytest.approx(record["within"]["p_value"])
    assert row["rank_biased_overlap"] == pytest.approx(
        record["ranking"]["rank_biased_overlap"]["value"], rel=1e-8
    )
    report = (out / "report.md").read_text()
    assert "| both | 3 | a1.h2, a2.h3, m3 |" in report
    assert "3 of 6 nodes shared" in report
    picture = (out / "overlay.svg").read_text()
    for word in ("a2.h4", "both", "a alone", "b alone"):
        assert f">{word}<" in picture
    assert picture.count("#1b9e77") >= 4  # three shared nodes, and the key


def test_two_runs_of_edges_at_both_granularities(circuit: Invoke) -> None:
    nodes, edges = _json(circuit("compare", "e", "f", "--json"))["comparisons"]
    assert (nodes["granularity"], edges["granularity"]) == ("node", "edge")
    assert edges["overlap"]["jaccard"] == 3 / 5
    assert edges["only_second"] == ["m3->logits"]
    assert nodes["only_first"] == ["a0.h1"]


def test_of_many_links_the_shared_ones_are_drawn_and_as_many_of_either_side() -> None:
    from cli.report.overlay import ONLY_FIRST, ONLY_SECOND, SHARED, overlay

    links = list(GRAPH.links(GRAPH.components))
    edges = [next(e for e in GRAPH.places if ends(e) == link) for link in links]
    first, second = edge_circuit(GRAPH, edges[:350], "", ""), edge_circuit(GRAPH, edges[300:700], "", "")
    picture = overlay(GRAPH, first, second, ("a", "b"))
    drawn = {to_hex(c.get_edgecolor()[0]): len(c.get_paths()) for c in picture.axes[0].collections}
    assert drawn == {SHARED: 50, ONLY_FIRST: 175, ONLY_SECOND: 175}
    words = " ".join(text.get_text() for text in picture.texts)
    assert f"400 of {min(len(links), 700)} links are drawn, shared ones first" in words


def test_many_runs_as_a_matrix(circuit: Invoke, tmp_path: Path) -> None:
    made_run(tmp_path / "c", GRAPH, nodes=("a3.h1", "a3.h2"))
    result = circuit("compare", "a", "b", "c", "a", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "3/6" in result.output
    assert {p.name for p in Path("out").iterdir()} == {
        "overlap.json",
        "overlap.csv",
        "report.md",
        "report.html",
        "matrix.png",
    }
    table = pd.read_csv("out/overlap.csv").set_index(["first", "second"])
    assert len(table) == 6
    assert table.loc[("1:a", "4:a"), "jaccard"] == 1.0
    assert table.loc[("2:b", "3:c"), "jaccard"] == 0.0
    assert circuit("compare", "e", "f", "e", "--output", "edges").exit_code == 0
    assert {"matrix.png", "matrix-edges.png"} < {p.name for p in Path("edges").iterdir()}


def test_the_same_command_writes_the_same_bytes_and_replaces_only_its_own(
    circuit: Invoke, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        assert circuit("compare", "e", "f", "--output", name).exit_code == 0
    for file in Path("one").iterdir():
        assert file.read_bytes() == (Path("two") / file.name).read_bytes(), file.name
    assert circuit("compare", "a", "b", "--output", "one").exit_code == 2
    assert circuit("compare", "a", "b", "--output", "one", "--force").exit_code == 0
    result = circuit("compare", "a", "b", "--output", "a", "--force")
    assert result.exit_code == 2
    assert (tmp_path / "a" / "nodes.csv").is_file()


def test_methods_of_one_run(circuit: Invoke, tmp_path: Path) -> None:
    held = json.loads((tmp_path / "a" / "circuit.json").read_text())
    (entry,) = held["circuits"]
    other = entry | {"method": "other", "nodes": [n for n in entry["nodes"] if n["name"] != "m3"]}
    write_json(tmp_path / "a" / "circuit.json", held | {"circuits": [entry, other]})
    nodes = pd.read_csv(tmp_path / "a" / "nodes.csv")
    pd.concat([nodes, nodes.assign(method="other")]).to_csv(tmp_path / "a" / "nodes.csv", index=False)
    (found,) = _json(circuit("compare", "a:made", "a:other", "--json"))["comparisons"]
    assert (found["first"], found["second"]) == ("a:made", "a:other")
    assert found["only_first"] == ["m3"]
    record = _json(circuit("compare", "a", "a:made", "--method", "other", "--json"))
    assert [run["method"] for run in record["runs"]] == ["other", "made"]


def test_what_cannot_be_compared_is_refused_in_one_message(circuit: Invoke, tmp_path: Path) -> None:
    made_run(tmp_path / "larger", Graph(5, 8, 8), nodes=("m4",))
    made_run(tmp_path / "bare", GRAPH, nodes=("m1",), scored=False)
    made_run(tmp_path / "newer", GRAPH, nodes=("m1",))
    record = json.loads((tmp_path / "newer" / "run.json").read_text())
    write_json(tmp_path / "newer" / "run.json", record | {"format_version": 2})
    (tmp_path / "folder").mkdir()
    cases = {
        ("a",): "one run only",
        ("a", "nowhere"): "no run folder nowhere",
        ("a", "folder"): "not a run folder",
        ("a", "newer"): "format version 2",
        ("a", "e"): "Pass --nodes",
        ("a", "larger"): "Neither a nor larger holds prompts",
        ("a", "larger", "--align", "index"): "5 layers x 8 heads",
        ("a", "b", "larger"): "takes two such runs with --align behaviour",
        ("a", "b", "e", "--align", "behaviour"): "takes two runs, not 3",
        ("a", "b", "--align", "behavior"): "Did you mean 'behaviour'?",
        ("a", "bare"): "holds no scores",
        ("a", "b:sae"): "no method in b 'sae'",
        ("a", "b", "--method", "mad"): "Did you mean 'made'?",
    }
    for words, message in cases.items():
        result = circuit("compare", *words, "--output", "out")
        assert result.exit_code == 2, words
        assert message in " ".join(result.output.split()), words
        assert result.output.count("Error:") == 1
        assert "Traceback" not in result.output
    assert not Path("out").exists()
    (found,) = _json(circuit("compare", "a", "e", "--nodes", "--json"))["comparisons"]
    assert found["shared"] == ["a0.h1", "a1.h2", "m3"]


def test_models_of_one_shape_are_compared_by_index_and_it_says_so(circuit: Invoke, tmp_path: Path) -> None:
    made_run(tmp_path / "c", GRAPH, nodes=FIRST, model="two")
    result = circuit("compare", "a", "c")
    assert result.exit_code == 0
    assert "matched by index" in result.stderr


@pytest.mark.slow
def test_an_imported_run(circuit: Invoke, shared: Path) -> None:
    file = shared / "data" / "mib" / "ioi-eap-ig.json"
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    assert circuit("import", file, "--output", "mib").exit_code == 0
    largest = top(circuit_of_run(read_run("mib")), 200)
    with writing_run("top") as folder:
        write_records(folder, **records(Imported(largest, file.name, "0", "mib")))
    nodes, edges = _json(circuit("compare", "mib", "top", "--json"))["comparisons"]
    held = json.loads(file.read_text())
    kept = {name for name, edge in held["edges"].items() if edge["in_graph"]}
    by_size = sorted(held["edges"], key=lambda name: -abs(held["edges"][name]["score"]))
    assert edges["overlap"]["shared"] == len(kept & set(by_size[:200])) > 0
    assert edges["overlap"]["universe"] == 32_491
    assert edges["ranking"]["rank_correlation"]["value"] == pytest.approx(1.0)
    assert nodes["overlap"]["universe"] == 156


def test_a_run_against_what_others_report(circuit: Invoke) -> None:
    write_json(Path("paper.json"), {"one": {"paper": {"movers": [[0, 1], [1, 2], [3, 3]]}}})
    result = circuit("compare", "a", "--reference", "paper.json:paper", "--output", "out")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "a finds 2 of 3 heads of paper: precision 0.67, recall 0.67, F1 0.67" in words
    assert {p.name for p in Path("out").iterdir()} == {
        "overlap.json",
        "report.md",
        "report.html",
        "overlay.png",
        "overlay.svg",
    }
    assert "| paper alone | 1 | a3.h3 |" in Path("out", "report.md").read_text()
    record = _json(circuit("compare", "a", "b", "--reference", "paper.json", "--json"))
    assert [match["run"] for match in record["references"]] == ["a", "b"]
    assert len(record["comparisons"]) == 1
    result = circuit("compare", "a", "--reference", "paper.json:papre")
    assert result.exit_code == 2
    assert "Did you mean 'paper'?" in " ".join(result.output.split())


SMALL = Graph(12, 12, 12)
PUBLISHED = {
    "ioi_wang2022": (SMALL, ("a9.h9", "a10.h0", "a0.h1", "a5.h5"), 26, "heads"),
    "greater_than_hanna2023": (SMALL, ("a9.h1", "a5.h5", "m8", "m9"), 17, "heads and MLPs"),
    "docstring_acdc_manual": (GRAPH, ("a1.h4", "a3.h0"), 6, "heads"),
    "docstring_oneill2024": (GRAPH, ("a1.h4", "a3.h0"), 6, "heads"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_run_against_a_published_circuit(name: str, circuit: Invoke, tmp_path: Path, shared: Path) -> None:
    """All that is right and two strangers are kept, and score above the rest: figures are known beforehand."""
    graph, right, size, of = PUBLISHED[name]
    wrong = ("a0.h0", "a3.h3")
    made_run(tmp_path / "run", graph, nodes=(*right, *wrong))
    file = f"{shared / 'data' / 'ground_truth_circuits.json'}:{name}"
    (found,) = _json(circuit("compare", "run", "--reference", file, "--json"))["references"]
    assert found["of"] == of
    assert set(found["found"]) == set(right)
    assert set(found["extra"]) == set(wrong)
    assert found["precision"] == len(right) / (len(right) + len(wrong))
    assert found["recall"] == len(right) / size
    scores = {n: abs(s) for n, s in _scores_of(tmp_path / "run").items() if of != "heads" or n[0] == "a"}
    known = {*found["found"], *found["missed"]}
    above = [
        (scores[a] > scores[b]) + (scores[a] == scores[b]) / 2
        for a in known
        for b in scores
        if b not in known
    ]
    assert found["auroc"] == pytest.approx(sum(above) / len(above))


def _scores_of(run: Path) -> dict[str, float]:
    return dict(pd.read_csv(run / "nodes.csv")[["component", "score"]].itertuples(index=False))


def test_a_run_of_edges_against_published_edges(circuit: Invoke, tmp_path: Path, shared: Path) -> None:
    right = ("a0.h5->a1.h4<v>", "a1.h4->a3.h0<q>", "a3.h6->logits", "input->a0.h5<v>")
    wrong = ("a0.h0->a1.h4<v>", "m0->logits", "input->a0.h5<k>")
    made_run(tmp_path / "run", GRAPH, edges=(*right, *wrong))
    file = f"{shared / 'data' / 'ground_truth_circuits.json'}:docstring_acdc_manual"
    nodes, edges = _json(circuit("compare", "run", "--reference", file, "--json"))["references"]
    assert (nodes["of"], edges["of"]) == ("heads", "edges")
    assert set(edges["found"]) == set(right)
    assert (edges["precision"], edges["recall"]) == (4 / 7, 4 / 24)
    assert edges["unscored"] == []
    assert 0.5 < edges["auroc"] < 1
    result = circuit("compare", "run", "--reference", file, "--output", "out")
    assert "4 of 24 edges of docstring_acdc_manual: precision 0.57, recall 0.17" in " ".join(
        result.output.split()
    )
    assert "against docstring_acdc_manual, edges" in Path("out", "report.md").read_text()


def test_a_reference_names_edges_that_the_model_has(circuit: Invoke) -> None:
    for edges, said in (
        ([["1.2.q", "0.1", "x"]], "is no edge: write"),
        (["a1.h2->a0.h1<q>"], "a1.h2 does not write before a0.h1 reads"),
        ([["9.9.v", "0.5"]], "a9.h9 is not in this model"),
    ):
        write_json(Path("paper.json"), {"paper": {"heads": [[0, 1]], "edges": edges}})
        result = circuit("compare", "e", "--reference", "paper.json")
        assert result.exit_code == 2
        assert said in " ".join(result.output.split()), result.output


@pytest.mark.parametrize("shared_heads", [0, 3, 8])
def test_a_planted_overlap_is_the_one_that_is_found(
    shared_heads: int, circuit: Invoke, tmp_path: Path
) -> None:
    """Two circuits of eight heads, two a layer: what they share is chosen, and so are chance and floor."""
    mine = [f"a{layer}.h{head}" for layer in range(4) for head in (0, 1)]
    theirs = [*mine[:shared_heads], *(f"a{n // 2}.h{4 + n % 2}" for n in range(shared_heads, 8))]
    made_run(tmp_path / "one", GRAPH, nodes=tuple(mine))
    made_run(tmp_path / "two", GRAPH, nodes=tuple(theirs), seed=3)
    (found,) = _json(circuit("compare", "one", "two", "--json"))["comparisons"]
    assert found["overlap"]["shared"] == len(found["shared"]) == shared_heads
    assert found["overlap"]["jaccard"] == shared_heads / (16 - shared_heads)
    assert found["overlap"]["overlap_coefficient"] == shared_heads / 8
    floor = comb(8, 2) ** -4  # both heads of all four layers
    assert found["within"]["floor"] == pytest.approx(floor)
    if shared_heads == 8:
        assert found["within"]["p_value"] == pytest.approx(floor)
    if shared_heads == 0:
        assert found["within"]["p_value"] == pytest.approx(1)


def test_a_run_is_itself(circuit: Invoke) -> None:
    (found,) = _json(circuit("compare", "a", "a", "--json"))["comparisons"]
    assert found["overlap"]["jaccard"] == found["ranking"]["rank_correlation"]["value"] == 1.0
    assert found["within"]["p_value"] == found["within"]["floor"] < 0.01
    assert found["ranking"]["rank_correlation"]["p_value"] == 1 / 200


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom cli.main import app\n"
        "try: app(['compare', 'e', 'f', '--output', 'out'])\nexcept SystemExit as end: assert not end.code\n"
        "try: app(['check', 'a', 'b', '--min-overlap', '0.1'])\nexcept SystemExit as end: assert not end.code\n"
        "sys.exit(', '.join({'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_fifty_runs_within_seconds(circuit: Invoke, tmp_path: Path) -> None:
    heads = Graph(12, 12, 12).heads
    for i in range(50):
        made_run(tmp_path / f"many{i}", Graph(12, 12, 12), nodes=heads[i : i + 20], seed=i)
    circuit("compare", "many0", "many1")  # imports are no work
    began = time.process_time()
    result = circuit("compare", *(f"many{i}" for i in range(50)), "--json")
    assert len(_json(result)["comparisons"]) == 1225
    assert (
        time.process_time() - began < 15
    )  # 2 s here; shapes are checked while tests run, and machines differ


# check


def test_a_gate_passes_or_fails_with_its_exit_code(circuit: Invoke) -> None:
    result = circuit("check", "a", "b", "--min-overlap", "0.5", "--min-faithfulness", "0.7")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("passed: overlap 0.5 (at least 0.5; Jaccard of nodes)")
    result = circuit("check", "a", "b", "--min-overlap", "0.9", "--min-faithfulness", "0.7")
    assert result.exit_code == 1
    assert result.stdout.startswith("FAILED: overlap FAILED, 0.5 (at least 0.9")
    assert circuit("check", "a", "b", "--max-drift", "0.1").exit_code == 1
    assert circuit("check", "a", "b", "--max-drift", "0.21").exit_code == 0
    assert circuit("check", "e", "e", "--min-overlap", "1").exit_code == 0


def test_what_a_gate_says_to_programs(circuit: Invoke) -> None:
    result = circuit(
        "check", "a", "b", "--min-overlap", "0.9", "--max-drift", "0.5", "--json", "--junit", "out.xml"
    )
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert record["passed"] is False
    assert [(g["name"], g["passed"]) for g in record["gates"]] == [("overlap", False), ("drift", True)]
    (suite,) = ElementTree.parse("out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == ["overlap"]


def test_a_check_without_a_gate_or_a_number_is_refused(circuit: Invoke) -> None:
    cases = {
        ("a", "b"): "No gate is given",
        ("a", "e", "--min-overlap", "0.5"): "Pass --nodes",
        ("a", "e", "--min-faithfulness", "0.5"): "e holds no faithfulness",
        ("a", "nowhere", "--min-overlap", "0.5"): "no run folder",
        ("a", "b", "--min-overlap", "0.5", "--junit", "no/where.xml"): "cannot be written",
    }
    for words, message in cases.items():
        result = circuit("check", *words)
        assert result.exit_code == 2, words
        assert message in " ".join(result.output.split()), words
    assert circuit("check", "a", "e", "--min-overlap", "0.1", "--nodes").exit_code == 0
