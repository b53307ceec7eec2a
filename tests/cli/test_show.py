"""circuit show: what is drawn stands in the folder, fits the window, and needs neither colour nor torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from made_runs import made_run
from shown_runs import heads_folder, verdict, whole_run

from circuits.circuit import ends
from circuits.graph import Graph
from circuits.records import write_json
from cli.text_curve import Row, curve_lines, thinned
from cli.text_graph import edge_tree, node_rows, strongest

ROOT = Path(__file__).parents[2]
SMALL, GPT2 = Graph(2, 3, 3), Graph(12, 12, 12)
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory.mktemp("shown") / "small", SMALL)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """156 nodes, and 500 of 32,491 edges."""
    return whole_run(tmp_path_factory.mktemp("shown") / "large", GPT2, n_edges=500)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


def text(lines: object) -> list[str]:
    return ["".join(piece.text for piece in line) for line in lines]  # type: ignore[attr-defined]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_circuit_of_500_edges_fits_the_window(
    columns: int, large: Path, circuit: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = circuit("show", large)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert [line for line in lines if len(line.rstrip()) > columns] == []
    assert "500 of 32,491 edges between 156 of 156 components" in " ".join(shown.stdout.split())
    if columns >= 80:
        assert len(lines) < 110


def test_all_parts_are_there_and_what_a_run_lacks_is_left_out(
    small: Path, tmp_path: Path, circuit: Run
) -> None:
    whole = " ".join(circuit("show", small).stdout.split())
    parts = (
        "faithfulness 0.87",
        "layers down",
        "95% interval",
        "50 judged prompts, resample",
        "layers upward",
        "logits ├",
    )
    for part in parts:
        assert part in whole
    bare = made_run(tmp_path / "bare", SMALL, nodes=("a0.h1", "m1"), scored=False)
    shown = circuit("show", bare)
    assert shown.exit_code == 0, shown.output
    assert "nothing was evaluated" in " ".join(shown.stdout.split())
    assert "?h1" in shown.stdout
    for part in ("layers down", "95% interval", "Faithfulness of", "├"):
        assert part not in shown.stdout


def test_signs_and_sizes_are_there_in_ascii_alone(small: Path) -> None:
    code = f"import sys; sys.argv = ['circuit', 'show', {str(small)!r}]\nfrom cli.main import run\nrun()"
    plain = {"PYTHONIOENCODING": "ascii", "TERM": "dumb", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, env=plain)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode("ascii")
    assert "\x1b" not in shown
    assert re.search(r"[+][.:=#]h\d", shown)
    assert re.search(r"-[.:=#]h\d", shown)


def test_a_run_is_shown_without_torch(small: Path) -> None:
    code = (
        f"import sys; sys.argv = ['circuit', 'show', {str(small)!r}]\nfrom cli.main import run\n"
        "try: run()\nexcept SystemExit as end: assert not end.code\n"
        "sys.exit(', '.join({'torch', 'scipy', 'matplotlib', 'transformer_lens'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "layers upward" in done.stdout


def test_json_says_what_the_files_say(small: Path, circuit: Run) -> None:
    found = json.loads(circuit("show", small, "--json", "--top", "3").stdout)
    rows = [line.split(",") for line in (small / "edges.csv").read_text().splitlines()[1:]]
    sizes = {f"{s}->{t}" + (f"<{i}>" if i else ""): float(score) for _, s, t, i, score, *_ in rows}
    first = sorted(sizes, key=lambda edge: -abs(sizes[edge]))[:3]
    assert [entry["name"] for entry in found["top"]] == first
    assert [entry["score"] for entry in found["top"]] == [sizes[edge] for edge in first]
    assert found["circuit"]["measured"] == {edge: sizes[edge] for edge in found["circuit"]["edges"]}
    assert len(found["curve"]["sizes"]) == len((small / "sizes.csv").read_text().splitlines()) - 1
    assert found["verdicts"][0]["faithfulness"]["value"] == 0.87


def test_another_method_is_refused_by_name(small: Path, circuit: Run) -> None:
    refused = circuit("show", small, "--method", "eep")
    assert refused.exit_code == 2
    assert "Did you mean 'eap'" in refused.output


def test_a_comparison_is_shown_as_compare_said_it(small: Path, tmp_path: Path, circuit: Run) -> None:
    others = [
        made_run(tmp_path / f"r{seed}", SMALL, nodes=SMALL.components[seed : seed + 3], seed=seed)
        for seed in (0, 1, 2)
    ]
    for n in (2, 3):
        said = circuit("compare", *others[:n], "--output", f"c{n}")
        shown = circuit("show", f"c{n}")
        assert (said.exit_code, shown.exit_code) == (0, 0), shown.output
        assert shown.stdout.strip() == said.stdout.split("\nWritten to")[0].strip()
    assert json.loads(circuit("show", "c2", "--json").stdout) == json.loads(
        Path("c2/overlap.json").read_text()
    )


def test_evaluations_studies_and_heads_are_shown_by_their_records(tmp_path: Path, circuit: Run) -> None:
    evaluation = {
        "model": {"name": "one"}, "baselines": [],
        "circuits": [{
            "method": "eap", "granularity": "edge", "kept": ["a", "b"], "of": 9, "stability": {"jaccard": 0.71},
            "evaluations": [{
                "ablation": "mean", "verdict": verdict(0.55), "curves": None, "completeness": None,
                "tests": [{"name": "sufficiency", "p_value": 0.004, "words": "It suffices."}],
            }],
        }],
    }  # fmt: skip
    cell = {
        "name": "c", "task": "ioi", "model": "one", "method": "eap", "seed": 0, "whole": True, "problem": "",
        "kept": 1234, "granularity": "edge", "faithfulness": {"value": 0.66}, "random_median": 0.1, "p_value": 0.02,
    }  # fmt: skip
    broken = cell | {"name": "d", "task": "arithmetic", "whole": False, "problem": "Traceback\nNo memory."}
    study = {"title": "A study", "cells": [cell, broken], "steps": [], "gates": []}
    for name, files in (
        ("e", {"evaluation.json": evaluation, "evaluation.md": {}}),
        ("s", {"study.json": study}),
    ):
        (tmp_path / name).mkdir()
        for file, record in files.items():
            write_json(tmp_path / name / file, record)
    shown = circuit("show", "e").stdout
    assert re.search(r"eap +mean +2 +0.55 +0.71", shown)
    assert "Sufficiency (p 0.004): It suffices." in shown
    shown = circuit("show", "s")
    assert re.search(r"ioi +1,234 edges +0.66 +0.10 +0.020", shown.stdout)
    assert re.search(r"arithmetic +failed", shown.stdout)
    assert "d failed: No memory." in shown.stderr
    heads_folder(tmp_path / "h", SMALL)
    record = json.loads((tmp_path / "h" / "heads.json").read_text())
    scores = {head: found["score"] for head, found in record["roles"]["induction"]["heads"].items()}
    best = max(scores, key=scores.__getitem__)
    assert re.search(rf"induction +{re.escape(best)} +{scores[best]:.2f} ", circuit("show", "h").stdout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "nowhere"), "There is no folder nowhere"),
        (("show", "."), "is no folder of ours"),
        (("show", ".", "--head", "a0.h1"), "--head is for figures"),
        (("show", ".", "--figure", "curves"), "Did you mean 'curve'"),
        (("show", ".", "--figure", "roles"), "circuit heads MODEL"),
    ],
)
def test_what_cannot_be_shown_is_refused(words: tuple[str, ...], said: str, circuit: Run) -> None:
    refused = circuit(*words)
    assert refused.exit_code == 2
    assert said in " ".join(refused.output.split())


def test_a_damaged_run_is_no_fault_of_ours(small: Path, tmp_path: Path, circuit: Run) -> None:
    for file in small.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name in ("evaluation.json", "sizes.csv"):
        kept = (tmp_path / name).read_text()
        (tmp_path / name).write_text("{}" if name.endswith("json") else "method,n\neap,3\n")
        assert circuit("show", tmp_path).exit_code in (0, 2)
        (tmp_path / name).write_text(kept)


def test_the_tree_takes_the_strongest_edge_into_what_stands(large: Path) -> None:
    rng = np.random.default_rng(4)
    edges = {edge: float(rng.normal()) for edge in Graph(3, 3, 3).places}
    tree = strongest(edges, most=25, deepest=99)
    taken = {branch.edge for branches in tree.values() for branch in branches}
    reached, expected = {"logits"}, set()
    for _ in range(25):  # the same by brute force
        best = max(
            (e for e in edges if ends(e)[1] in reached and e not in expected), key=lambda e: abs(edges[e])
        )
        expected.add(best)
        reached.add(ends(best)[0])
    assert taken == expected
    assert len(text(edge_tree(edges, 25, 200))) == 26
    assert max(map(len, text(edge_tree(edges, 25, 40)))) <= 40


def test_rows_hold_every_node_once_with_its_sign() -> None:
    scores = {name: (-1.0) ** i * (i + 1) for i, name in enumerate(GPT2.components)}
    lines = text(node_rows(GPT2, GPT2.components, scores, 80))
    assert len(lines) == 14
    assert max(map(len, (line.rstrip() for line in lines))) <= 80
    assert lines[1].split()[0] == "11"
    assert lines[-2].split()[:3] == ["0", "+░h0", "-░h1"]
    assert sum(line.count("MLP") for line in lines) == 12


def test_dots_stand_where_values_are() -> None:
    rows = [Row("1", 0.0), Row("2", 0.5, 0.25, 0.75), Row("3", 1.0)]
    header, first, middle, last = curve_lines(rows, 60)
    zero, one = header.index("0"), header.index("1")
    assert (first.index("●"), last.index("●")) == (zero, one)
    assert abs(middle.index("●") - (zero + one) / 2) <= 0.5
    assert middle.count("─") == pytest.approx((one - zero) / 2, abs=1)
    assert [row.label for row in thinned([Row(str(i), 0.0) for i in range(100)], 4)] == [
        "0",
        "33",
        "66",
        "99",
    ]
