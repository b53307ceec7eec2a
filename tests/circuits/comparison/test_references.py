"""Reference circuits out of JSON files, and runs held against them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from circuits.circuit import Circuit
from circuits.comparison.references import match_reference, read_reference
from circuits.comparison.sides import Side
from circuits.errors import CircuitError, UnknownNameError
from circuits.graph import Graph
from circuits.scored_circuit import ScoredCircuit

GRAPH = Graph(3, 4, 4)
FILE = {
    "_note": "Heads are [layer, head]",
    "one": {
        "first": {"source": "a paper", "movers": [[2, 1], [1, 3]], "early_mlps": [0], "positions": {"movers": "end"}},
        "second": {"heads": ["a0.h1", "a2.h1"], "edges": [["2.1.q", "input"]], "replace": {"add": "x"}},
    },
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "known.json"
    path.write_text(json.dumps(FILE))
    return path


def _side(kept: tuple[str, ...], scores: dict[str, float]) -> Side:
    circuit = Circuit(tuple(c for c in GRAPH.components if c in kept), "made", "by hand")
    return Side("run", ScoredCircuit(GRAPH, circuit, {n: (s, None) for n, s in scores.items()}), "", 1, {})


def test_roles_are_lists_of_heads_and_mlps(file: Path) -> None:
    assert read_reference(f"{file}:first").members == ("a2.h1", "a1.h3", "m0")
    assert read_reference(f"{file}:first").source == "a paper"
    assert read_reference(f"{file}:second").members == ("a0.h1", "a2.h1")
    with pytest.raises(CircuitError, match="holds 2 circuits"):
        read_reference(str(file))
    with pytest.raises(UnknownNameError, match="Did you mean 'first'"):
        read_reference(f"{file}:frist")
    with pytest.raises(CircuitError, match="no reference file"):
        read_reference("nowhere.json:first")
    file.write_text(json.dumps({"heads": [[0, 1]]}))
    assert read_reference(str(file)).name == "known"


def test_precision_recall_and_auroc_by_hand(file: Path) -> None:
    scores = {name: 0.1 * i for i, name in enumerate(GRAPH.components)} | {"a2.h1": -9.0, "a1.h3": 0.05}
    found = match_reference(_side(("a2.h1", "a0.h0", "m0", "m2"), scores), read_reference(f"{file}:first"))
    assert (found.precision, found.recall, found.f1) == (2 / 4, 2 / 3, 4 / 7)
    assert (found.found, found.missed, found.extra) == (("m0", "a2.h1"), ("a1.h3",), ("a0.h0", "m2"))
    sizes = {n: abs(s) for n, s in scores.items()}
    known = {"a2.h1", "a1.h3", "m0"}
    wins = [(sizes[a] > sizes[b]) + 0.5 * (sizes[a] == sizes[b]) for a in known for b in set(sizes) - known]
    assert found.auroc == pytest.approx(np.mean(wins))


def test_mlps_count_only_where_the_reference_lists_any(file: Path) -> None:
    scores = {name: 0.1 * i for i, name in enumerate(GRAPH.heads)}
    found = match_reference(_side(("a2.h1", "m1"), scores | {"m1": 9.0}), read_reference(f"{file}:second"))
    assert (found.of, found.precision, found.recall, found.extra) == ("heads", 1.0, 0.5, ())
    found = match_reference(_side(("a2.h1",), scores), read_reference(f"{file}:first"))
    assert found.unscored == ("m0",)
    assert found.recall == 1 / 2


def test_a_head_that_the_model_lacks_is_named(file: Path) -> None:
    file.write_text(json.dumps({"heads": [[9, 9]]}))
    with pytest.raises(CircuitError, match=r"a9\.h9 is not in this model: it has 3 layers"):
        match_reference(_side(("a2.h1",), {"a2.h1": 1.0}), read_reference(str(file)))


def test_published_circuits_load(shared: Path) -> None:
    path = shared / "data" / "ground_truth_circuits.json"
    sizes = {
        "ioi_wang2022": 26,
        "greater_than_hanna2023": 17,
        "docstring_oneill2024": 6,
        "docstring_acdc_manual": 6,
        "oneill2024_ioi_found_40": 40,
    }
    for name, size in sizes.items():
        assert len(read_reference(f"{path}:{name}").members) == size, name
