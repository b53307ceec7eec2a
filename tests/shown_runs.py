"""Run folders with everything that is shown, made up: sizes, attention, verdicts and an attribution that adds up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from made_runs import made_run

from circuits.graph import Graph
from circuits.records import read_json, write_json

ODD = (
    "<bos>",
    " 😀",
    " שלום",
    " مرحبا",
    " <b>&amp;",
    " $\\frac{a}{b",
    " a_b",
    "\n",
    " 中文",
    " supercalifragilistic",
    " ",
)
"""Tokens that are markup, mathematics, written from the right, or in no font."""


def whole_run(path: Path, graph: Graph, n_edges: int = 30, method: str = "eap") -> Path:
    """An edge circuit that touches every node, with all optional parts; half of its scores oppose."""
    rng = np.random.default_rng(0)
    kept = {f"{name}->logits" for name in graph.components}
    kept |= {f"input->{graph.inputs(name)[-1]}" for name in graph.components}
    others = [edge for edge in graph.places if edge not in kept]
    kept |= set(rng.choice(others, max(n_edges - len(kept), 0), replace=False).tolist())
    made_run(path, graph, edges=tuple(edge for edge in graph.places if edge in kept), method=method)
    _signed(path, graph, rng)
    _evaluated(path, method, len(kept))
    _described(path)
    _attended(path, graph, rng)
    return path


def _signed(path: Path, graph: Graph, rng: np.random.Generator) -> None:
    record = read_json(path / "circuit.json")
    edges = pd.read_csv(path / "edges.csv", keep_default_na=False)
    edges["score"] = rng.standard_t(3, len(edges))
    edges.to_csv(path / "edges.csv", index=False)
    score = {(e.source, e.target, e.input or None): e.score for e in edges.itertuples()}
    for edge in record["circuits"][0]["edges"]:
        edge["score"] = score[edge["source"], edge["target"], edge["input"]]
    nodes = pd.read_csv(path / "nodes.csv", keep_default_na=False)
    nodes["score"], nodes["stderr"] = rng.standard_t(3, len(nodes)), 0.1
    nodes.to_csv(path / "nodes.csv", index=False)
    value = dict(zip(nodes["component"], nodes["score"], strict=True))
    for node in record["circuits"][0]["nodes"]:
        node["score"] = value[node["name"]]
    write_json(path / "circuit.json", record)


def _evaluated(path: Path, method: str, kept: int) -> None:
    about = {"unit": "logits", "options": {}}
    found = {"selection": {"prefix": kept}, "verdicts": [verdict(0.87)], "details": about}
    baseline = {"n_prompts": 50, "metric_clean": about_(3.5), "metric_corrupt": about_(-3.5)}
    baseline |= {"preferred": about_(0.97), "correct": about_(0.9)}
    write_json(path / "evaluation.json", {"baseline": baseline, "methods": {method: found}, "overlaps": []})
    sizes = np.unique(np.geomspace(1, 2 * kept, 12).astype(int))
    values = 1 - np.exp(-sizes / kept * 2)
    columns = {"n": sizes, "kept": sizes, "faithfulness": values, "low": values - 0.05, "high": values + 0.05}
    table = pd.DataFrame({"method": method, **columns, "ablation": "resample", "n_prompts": 50})
    table.to_csv(path / "sizes.csv", index=False)


def verdict(value: float) -> dict[str, Any]:
    random = {"n": 25, "n_prompts": 50, "low": -0.1, "median": 0.02, "high": 0.21, "p_value": 0.038}
    whole = {"circuit": 3.0, "everything": 3.5, "nothing": -3.5}
    shares = {"preferred": about_(0.9), "correct": about_(0.8)}
    return {
        "ablation": "resample",
        "n_prompts": 50,
        "faithfulness": about_(value),
        "random": random,
        **whole,
        **shares,
    }


def about_(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def _described(path: Path) -> None:
    record = read_json(path / "run.json")
    record["config"]["task"] = "ioi"
    record["prompts"] = {"discovery": list(range(50)), "judged": list(range(50, 100))}
    write_json(path / "run.json", record)


def _attended(path: Path, graph: Graph, rng: np.random.Generator) -> None:
    plain = (
        "<bos>",
        "When",
        " Mary",
        " and",
        " John",
        " went",
        " to",
        " the",
        " store",
        ",",
        " John",
        " gave",
        " to",
    )
    long = tuple(f" word{i}" for i in range(60))
    prompts, patterns = [], []
    for number, tokens in zip((12, 40, 41), (plain, ODD, long), strict=True):
        queries = range(len(tokens)) if tokens is not long else (2, 4, 59)
        positions = {"IO": 2, "S1": 4, "END": len(tokens) - 1}
        prompts.append({"prompt": number, "clean": tokens, "corrupt": tokens[::-1], "positions": positions})
        patterns.append({side: _pattern(queries, rng) for side in ("clean", "corrupt")})
    record = {"format_version": 1, "prompts": prompts, "queries": "all", "heads": {"a1.h1": patterns}}
    (path / "attention.json").write_text(json.dumps(record), encoding="utf-8")


def _pattern(queries: Sequence[int], rng: np.random.Generator) -> dict[str, Any]:
    rows = [np.round(1000 * rng.dirichlet(np.full(query + 1, 0.3))).astype(int).tolist() for query in queries]
    return {"queries": list(queries), "rows": rows}


def attributed_run(path: Path, graph: Graph) -> tuple[Path, float]:
    """A node circuit of logit-attribution, and the logit difference that its parts sum to."""
    nodes = graph.components[:3]
    made_run(path, graph, nodes=nodes, method="logit-attribution")
    table = pd.read_csv(path / "nodes.csv", keep_default_na=False)
    table["score"] = np.random.default_rng(1).normal(size=len(table))
    table.to_csv(path / "nodes.csv", index=False)
    record = read_json(path / "circuit.json")
    value = dict(zip(table["component"], table["score"], strict=True))
    for node in record["circuits"][0]["nodes"]:
        node["score"] = value[node["name"]]
    write_json(path / "circuit.json", record)
    parts = {"input": 0.25, "biases": -0.5}
    details = {"unit": "logits", "options": {"contrast": False}, "parts": parts}
    found = {"selection": {}, "verdicts": [], "details": details}
    write_json(path / "evaluation.json", {"baseline": None, "methods": {"logit-attribution": found}})
    return path, float(table["score"].sum() + sum(parts.values()))


def heads_folder(path: Path, graph: Graph) -> Path:
    """What `circuit heads --output` writes, as far as it is shown."""
    rng = np.random.default_rng(2)
    names = ("copying", "duplicate-token", "induction", "negative-mover", "previous-token", "s-inhibition")
    roles = {}
    for name in names:
        lines = {
            head: {"score": score, "stderr": 0.01, "low": score - 0.02, "high": score + 0.02, "p_value": p}
            for head, score, p in zip(
                graph.heads,
                rng.beta(0.3, 2, len(graph.heads)).tolist(),
                rng.random(len(graph.heads)).tolist(),
                strict=True,
            )
        }
        roles[name] = {
            "definition": "",
            "paper": "",
            "samples": 9,
            "unit": "prompt",
            "chance": 0.05,
            "heads": lines,
        }
    record = {
        "format_version": 1, "model": {"name": "one"}, "prompts": {"task": "ioi", "form": "plain", "n": 64},
        "seed": 0, "roles": roles, "left_out": {"successor": "needs more words"},
    }  # fmt: skip
    path.mkdir()
    write_json(path / "heads.json", record)
    return path
