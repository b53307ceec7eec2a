"""`circuit import` and `circuit export` as a user runs them: nothing is lost, and what cannot be used is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from circuits.circuit import Circuit, edge_circuit
from circuits.exchange import FORMATS
from circuits.exchange.files import Imported, read_circuit
from circuits.exchange.run_folder import circuit_of_run
from circuits.graph import Graph
from circuits.runs import FILES, read_run, write_records, writing_run
from circuits.scored_circuit import ScoredCircuit, reversed_sign
from cli.import_records import DRAWN, drawn_links, drawn_scores, records
from cli.main import app

Invoke = Callable[..., Result]


@pytest.fixture
def circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(app, [str(a) for a in args])


def an_edge_circuit(n_kv_heads: int = 1) -> ScoredCircuit:
    """Scores with all their digits, on all edges but one; one of the kept edges is not scored."""
    graph = Graph(2, 2, n_kv_heads)
    draw = np.random.default_rng(0)
    edges = {edge: (float(draw.normal()), None) for edge in graph.places}
    del edges["m0->a1.h0<k>"]
    edges["m1->logits"] = (1 / 3, 1 / 7)
    kept = ["m0->a1.h0<k>", "m1->logits", "a0.h1->m1", "input->a0.h1<q>"]
    scores = {"input": (0.1, None), "m0": (-0.2, 0.3)}
    extras = {"eap-ig": {"cfg": {"d_model": 8}}}
    return ScoredCircuit(graph, edge_circuit(graph, kept, "eap", "top 4"), scores, {}, edges, "mine", extras)


def a_node_circuit() -> ScoredCircuit:
    graph = Graph(2, 2, 2, parallel=True)
    kept = Circuit(("a0.h1", "m1"), "sae", "top 2")
    links = {link: i / 3 if i % 2 else None for i, link in enumerate(graph.links(kept.nodes))}
    return ScoredCircuit(graph, kept, {"a0.h1": (1 / 3, 0.1), "m0": (0.7, None)}, links)


CIRCUITS = [an_edge_circuit(1), an_edge_circuit(2), a_node_circuit()]


@pytest.mark.parametrize("scored", CIRCUITS)
def test_a_run_folder_loses_nothing(scored: ScoredCircuit, tmp_path: Path) -> None:
    with writing_run(tmp_path / "run") as folder:
        write_records(folder, **records(Imported(scored, "a.json", "0", "eap-ig")))
    assert circuit_of_run(read_run(tmp_path / "run")) == scored


@pytest.mark.parametrize("scored", CIRCUITS)
@pytest.mark.parametrize("name", FORMATS.names())
def test_import_and_export_lose_nothing(
    circuit: Invoke, tmp_path: Path, name: str, scored: ScoredCircuit
) -> None:
    form = FORMATS.load(name)
    file, again = tmp_path / f"a{form.extension}", tmp_path / f"b{form.extension}"
    file.write_bytes(form.write(scored))
    result = circuit("import", file, "--output", "run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["format"] == ("eap-ig" if name == "mib" else name)
    result = circuit("export", "run", "--format", name, "--output", again)
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == file.read_bytes()
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_an_import_is_a_whole_run_that_says_where_it_is_from(circuit: Invoke, tmp_path: Path) -> None:
    data = FORMATS.load("eap-ig").write(an_edge_circuit())
    (tmp_path / "theirs.json").write_bytes(data)
    result = circuit("import", "theirs.json", "--output", "runs/theirs")
    assert result.exit_code == 0, result.output
    assert "keeps 4 nodes and 4 edges" in result.stdout.replace("\n", " ")
    run = read_run("runs/theirs")
    pictures = {"circuit.graphml", "circuit.svg", "circuit.png", "report.md", "report.html"}
    assert {f.name for f in run.path.iterdir()} == {*FILES, *pictures}
    assert run.run["imported"] == {
        "file": "theirs.json",
        "sha256": sha256(data).hexdigest(),
        "format": "eap-ig",
        "sign_reversed": False,
    }
    assert run.prompts == ()
    assert run.evaluation["methods"] == {}
    report = (run.path / "report.md").read_text()
    assert "Nothing was run or evaluated here" in report
    assert sha256(data).hexdigest() in report


def test_the_tables_of_an_edge_circuit(circuit: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(FORMATS.load("eap-ig").write(an_edge_circuit()))
    assert circuit("import", "a.json", "--output", "run").exit_code == 0
    run = read_run("run")
    assert list(run.edges) == ["method", "source", "target", "input", "score", "stderr", "in_circuit"]
    assert len(run.edges) == len(an_edge_circuit().graph.places)
    kept = run.edges[run.edges["in_circuit"]]
    assert kept["input"].fillna("").tolist() == ["q", "k", "", ""]
    (entry,) = run.circuit["circuits"]
    assert entry["granularity"] == "edge"
    assert entry["edges"][1] == {
        "source": "m0", "target": "a1.h0", "input": "k", "score": None, "stderr": None
    }  # fmt: skip
    assert entry["edges"][3] == {
        "source": "m1", "target": "logits", "input": None, "score": 1 / 3, "stderr": 1 / 7
    }  # fmt: skip


@pytest.mark.slow
def test_the_graph_of_the_mib_benchmark(circuit: Invoke, shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "mib" / "ioi-eap-ig.json"
    assert circuit("import", path, "--output", "run").exit_code == 0
    run = read_run("run")
    assert (len(run.edges), len(run.circuit["circuits"][0]["edges"])) == (32_491, 756)
    assert "756 edges kept, drawn as 667 links" in (run.path / "report.md").read_text()
    assert circuit("export", "run", "--format", "mib", "--output", "out.json").exit_code == 0
    assert (tmp_path / "out.json").read_bytes() == path.read_bytes()
    # In this file a negative score helps: 9.9 is the name mover of GPT-2 small, and 10.7 the negative one.
    scores = circuit_of_run(run).edges
    assert scores["a9.h9->logits"][0] < 0 < scores["a10.h7->logits"][0]


def test_what_discover_found_can_be_exported_and_imported(circuit: Invoke, tmp_path: Path) -> None:
    quick = ("--model", "planted-ioi", "--pairs", "16", "--method", "activation-patching")
    assert (
        circuit("discover", "ioi", *quick, "--method", "logit-attribution", "--output", "run").exit_code == 0
    )
    found = circuit_of_run(read_run("run"), "logit-attribution")
    assert found.granularity == "node"
    assert found.model == "planted-ioi"
    for name in FORMATS.names():
        options = ("--format", name, "--method", "logit-attribution", "--output", f"out-{name}")
        result = circuit("export", "run", *options)
        assert result.exit_code == 0, result.output
        assert read_circuit(f"out-{name}", name).scored == found
    table = read_run("run").nodes.set_index(["method", "component"])["score"]["logit-attribution"]
    assert {name: score for name, (score, _) in found.scores.items()} == pytest.approx(
        table.to_dict(), rel=1e-8
    )


def test_runs_of_before_there_were_edge_circuits_read(tmp_path: Path) -> None:
    scored = a_node_circuit()
    kept = records(Imported(scored, "a.json", "0", "eap-ig"))
    kept["edges"] = kept["edges"].drop(columns=["input", "stderr"])
    (entry,) = kept["circuit"]["circuits"]
    del entry["granularity"]
    entry["edges"] = [{k: edge[k] for k in ("source", "target", "score")} for edge in entry["edges"]]
    with writing_run(tmp_path / "run") as folder:
        write_records(folder, **kept)
    assert circuit_of_run(read_run(tmp_path / "run")) == scored


def test_top_and_sign(circuit: Invoke, tmp_path: Path) -> None:
    scored = an_edge_circuit()
    (tmp_path / "a.json").write_bytes(FORMATS.load("eap-ig").write(scored))
    assert circuit("import", "a.json", "--output", "run", "--top", "2", "--reverse-sign").exit_code == 0
    again = circuit_of_run(read_run("run"))
    largest = sorted(scored.edges, key=lambda edge: -abs(scored.edges[edge][0]))[:2]
    assert again.circuit.edges is not None
    assert set(again.circuit.edges) == set(largest)
    assert again.edges == reversed_sign(scored).edges
    assert again.edges["m1->logits"] == (-1 / 3, 1 / 7)
    assert again.scores["m0"] == (0.2, 0.3)
    assert read_run("run").run["imported"]["sign_reversed"] is True
    assert reversed_sign(reversed_sign(scored)) == scored


def test_neuron_scores_turn_with_the_others() -> None:
    more = {"nodes": {"m0": {"neurons": [True], "neurons_scores": [0.5, None]}}}
    scored = ScoredCircuit(Graph(1, 1, 1), Circuit((), "x", "y"), extras={"eap-ig": more})
    turned = reversed_sign(scored).extras["eap-ig"]["nodes"]["m0"]
    assert turned == {"neurons": [True], "neurons_scores": [-0.5, None]}


def test_scores_without_a_circuit_say_so(circuit: Invoke, tmp_path: Path) -> None:
    scored = an_edge_circuit()
    graph = scored.graph
    empty = ScoredCircuit(graph, edge_circuit(graph, [], "eap", "none"), edges=scored.edges)
    (tmp_path / "a.json").write_bytes(FORMATS.load("eap-ig").write(empty))
    result = circuit("import", "a.json", "--output", "run")
    assert result.exit_code == 0, result.output
    assert "--top N" in result.stderr
    assert circuit_of_run(read_run("run")) == empty


def test_a_picture_of_many_edges_shows_the_largest_and_says_how_many() -> None:
    graph = Graph(6, 6, 6)
    edges = {edge: (float(i), None) for i, edge in enumerate(graph.places)}
    scored = ScoredCircuit(graph, edge_circuit(graph, edges, "eap", "all"), edges=edges)
    links, words = drawn_links(scored)
    assert len(links) == DRAWN
    assert (
        words
        == "2,188 edges kept, drawn as 856 links (q, k and v together), of which the 400 largest are shown"
    )
    assert min(v or 0.0 for v in links.values()) >= 400
    scores, unit = drawn_scores(scored)
    total = sum(score for edge, (score, _) in edges.items() if edge.startswith("m5->"))
    assert scores.of("m5") == pytest.approx(total)
    assert unit == "sum of scores of edges out of it"


def test_the_caveats_of_a_format_are_said(circuit: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.graphml").write_bytes(FORMATS.load("graphml").write(an_edge_circuit(1)))
    assert circuit("import", "a.graphml", "--output", "run").exit_code == 0
    result = circuit("export", "run", "--format", "mib", "--output", "out.json")
    assert "Groups of 2 heads share k and v" in result.stderr
    assert "1 of 36 edges have no score" in result.stderr


FOREIGN = {
    "metadata": {"slug": "x", "scan": "gemma-2-2b", "schema_version": 1},
    "qParams": {},
    "nodes": [
        {"node_id": "E_2_0", "feature_type": "embedding"},
        {"node_id": "3_17_5", "feature_type": "cross layer transcoder"},
    ],
    "links": [{"source": "E_2_0", "target": "3_17_5", "weight": 0.1}],
}


def eap_ig_file(**changes: Any) -> str:
    return json.dumps(json.loads(FORMATS.load("eap-ig").write(an_edge_circuit(2))) | changes)


@pytest.mark.parametrize(
    ("name", "text", "options", "said"),
    [
        ("a.json", "{", (), "a.json: This is no JSON"),
        ("a.json", "{}", (), "a.json: This looks like none of the formats"),
        ("a.txt", "once upon a time", (), "Name it with --format"),
        ("a.json", "{}", ("--format", "mibb"), "There is no format 'mibb'. Did you mean 'mib'?"),
        ("a.json", eap_ig_file(nodes={}), (), "a.json: cfg has 2 layers x 2 heads, so there must be a node input"),
        ("a.json", eap_ig_file(edges={"m1->m0": {}}), (), "does not fit its cfg: m1->m0 is no edge"),
        ("a.json", eap_ig_file().replace('"in_graph": true', '"marked": true', 1), (), "has no field 'in_graph'"),
        ("a.json", eap_ig_file().replace("0.333", "NaN, \"was\": 0.333"), (), "score of edge m1->logits is nan"),
        ("a.json", json.dumps(FOREIGN), (), "1 transcoder features of gemma-2-2b, not heads and MLPs"),
        ("a.json", eap_ig_file(), ("--format", "graphml"), "a.json: This is no GraphML"),
        ("a.dot", "digraph { a -> b }", (), "a.dot: This is no DOT that circuit wrote"),
        ("a.pt", "no tensors", (), "a.pt: This is no file of plain tensors"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_message_and_leaves_nothing(
    circuit: Invoke, tmp_path: Path, name: str, text: str, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / name).write_text(text)
    result = circuit("import", name, "--output", "runs/new", *options)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_pickle_runs_nothing(circuit: Invoke, tmp_path: Path) -> None:
    torch.save({"cfg": torch.nn.Linear(1, 1)}, tmp_path / "a.pt")
    result = circuit("import", "a.pt", "--output", "run")
    assert result.exit_code == 2
    assert "it could run any code" in result.stderr
    assert not (tmp_path / "run").exists()


def test_what_stands_at_output_stays(circuit: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(eap_ig_file())
    assert circuit("import", "a.json", "--output", "run").exit_code == 0
    result = circuit("import", "a.json", "--output", "run")
    assert (result.exit_code, "run exists" in result.stderr) == (2, True)
    assert circuit("import", "a.json", "--output", "run", "--force").exit_code == 0
    (tmp_path / "b.dot").write_text("mine")
    result = circuit("export", "run", "--format", "dot", "--output", "b.dot")
    assert (result.exit_code, "b.dot exists" in result.stderr) == (2, True)
    assert (tmp_path / "b.dot").read_text() == "mine"
    assert circuit("export", "run", "--format", "dot", "--output", "b.dot", "--force").exit_code == 0
    assert (tmp_path / "b.dot").read_text() != "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("run", "--format", "dott", "--output", "o.dot"), "There is no format 'dott'. Did you mean 'dot'?"),
        (("run", "--format", "dot", "--output", "o.pt"), "Choose another --output, or --format eap-ig-pt"),
        (("run", "--format", "dot", "--output", "no/o.dot"), "there is no folder no"),
        (("run", "--format", "dot", "--output", "run", "--force"), "run is no plain file"),
        (("run", "--format", "dot", "--output", "o.dot", "--method", "eab"), "Did you mean 'eap'?"),
        (("gone", "--format", "dot", "--output", "o.dot"), "There is no run folder gone"),
        (("bad", "--format", "dot", "--output", "o.dot"), "is damaged (KeyError 'circuits')"),
    ],
)
def test_an_export_that_cannot_be_is_one_message_and_leaves_nothing(
    circuit: Invoke, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / "a.json").write_text(eap_ig_file())
    for name in ("run", "bad"):
        assert circuit("import", "a.json", "--output", name).exit_code == 0
    (tmp_path / "bad" / "circuit.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    result = circuit("export", *options)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


# Head lists


@pytest.fixture
def patched(circuit: Invoke) -> str:
    quick = ("--model", "planted-ioi", "--pairs", "16", "--method", "activation-patching", "--top", "4")
    assert circuit("discover", "ioi", *quick, "--output", "run").exit_code == 0
    return "run"


def test_a_run_is_head_lists_of_its_scores_and_circuit(circuit: Invoke, patched: str) -> None:
    for name in ("razor-attention", "compress-kv", "head-list"):
        result = circuit("export", patched, "--format", name, "--output", f"{name}.json")
        assert result.exit_code == 0, result.output
        assert ("no induction" in result.stderr) == (name == "razor-attention")
    found = circuit_of_run(read_run(patched))
    razor, compress, ours = (
        json.loads(Path(f"{name}.json").read_text())
        for name in ("razor-attention", "compress-kv", "head-list")
    )
    kept = [f"a{layer}.h{head}" for layer, heads in razor["prefix_matching"].items() for head in heads]
    assert sorted(kept) == sorted(found.circuit.heads)
    assert razor["copying"] == {}
    for layer, heads in compress.items():
        scores = [found.scores[f"a{layer}.h{head}"][0] for head in heads]
        assert scores == sorted(scores, reverse=True)
    (role,) = ours["roles"].values()
    assert [value for row in role["scores"] for value in row] == pytest.approx(
        [found.scores[head][0] for head in found.graph.heads]
    )
    assert ours["weights_sha256"] == read_run(patched).run["model"]["weights_sha256"]


def test_gates_are_a_folder_with_what_they_were_trained_with(circuit: Invoke) -> None:
    options = ("steps=6", "trials=1", "recent=3", "prompts=4")
    words = [word for option in options for word in ("--set", f"duo-attention.{option}")]
    quick = ("--model", "planted-ioi", "--pairs", "16", "--method", "duo-attention", "--top", "3")
    assert circuit("discover", "ioi", *quick, *words, "--output", "run").exit_code == 0
    export = ("export", "run", "--format", "duo-attention", "--output", "gates")
    result = circuit(*export)
    assert result.exit_code == 0, result.output
    table = [line.split("\t") for line in Path("gates/full_attention_heads.tsv").read_text().splitlines()]
    found = circuit_of_run(read_run("run"))
    assert [float(x) for row in table for x in row] == pytest.approx(
        [found.scores[head][0] for head in found.graph.heads]
    )
    config = json.loads(Path("gates/config.json").read_text())
    assert (config["sink_size"], config["recent_size"]) == (1, 3)
    again = circuit(*export)
    assert (again.exit_code, "gates exists" in again.stderr) == (2, True)
    assert circuit(*export, "--force", "--json").exit_code == 0


def test_gates_are_not_made_of_other_scores(circuit: Invoke, patched: str) -> None:
    result = circuit("export", patched, "--format", "duo-attention", "--output", "gates")
    assert result.exit_code == 2
    assert "activation-patching learns none" in " ".join(result.stderr.split())
    assert not Path("gates").exists()
    result = circuit("export", patched, "--format", "razor", "--output", "r.json")
    assert "There is no format 'razor'. Did you mean 'razor-attention'?" in result.stderr
