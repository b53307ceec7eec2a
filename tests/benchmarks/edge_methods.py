"""How good the methods of edges are: against edges that are known, and against exact effects of cutting each.

    python tests/benchmarks/edge_methods.py

On planted-ioi, AUROC of the size of every edge's score, the six known edges of corruption swap against the other
490. On the trained models, correlations of the mean scores with those of edge-patching over all edges, and the
processor time of each beside it.
"""

from __future__ import annotations

import os
import time

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import spearmanr

from circuits.batches import make_batches
from circuits.circuit import Circuit
from circuits.discovery import match_edges
from circuits.methods import METHODS
from circuits.methods.method import Method, Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel, load_model
from circuits.models.builtin_models import card
from circuits.models.source import find_model
from circuits.scores import Scores
from cli.prompt_source import sample_task
from tasks import TASKS

PAIRS = 60
TRAINED = (("plain-4l", "ioi"), ("plain-4l", "arithmetic"), ("strict-4l", "ioi"))


def edge_methods() -> Iterator[Method]:
    for name in METHODS.names():
        method: Method = METHODS.load(name)
        if method.granularity == "edge":
            yield method


def problem(model: BridgeModel, task: str) -> Problem:
    chosen = dict.fromkeys(("form", "corruption"))
    drawn = sample_task(model, TASKS.load(task), n=PAIRS, seed=0, **chosen)
    return Problem(make_batches(model, drawn.pairs), logit_difference)


def scored(model: BridgeModel, task: str) -> dict[str, tuple[Scores, float]]:
    """Method -> scores of its edges, and the processor seconds that they took."""
    at, found = problem(model, task), {}
    for method in edge_methods():
        start = time.process_time()
        edges = method.score(model, at, method.configure({})).edges
        assert edges is not None
        found[method.name] = (edges, time.process_time() - start)
    return found


def planted() -> None:
    model = load_model(find_model("planted-ioi"))
    known = card("planted-ioi").circuits["ioi"].edges["swap"]
    print(
        f"planted-ioi, {len(known)} of {len(model.graph.places)} edges known; AUROC of edge scores, CPU seconds"
    )
    for name, (edges, seconds) in scored(model, "ioi").items():
        auroc = match_edges(edges, Circuit((), "", "", ()), "", known).auroc
        print(f"  {name:20} {auroc:.3f} {seconds:7.2f}")


def trained(name: str, task: str) -> None:
    model = load_model(find_model(name))
    found = scored(model, task)
    exact, slow = found["edge-patching"]
    print(
        f"{task} in {name}: Pearson and Spearman with exact cuts of all {len(model.graph.places)} edges, CPU seconds"
    )
    for method, (edges, seconds) in found.items():
        pearson = np.corrcoef(edges.values, exact.values)[0, 1]
        spearman = spearmanr(edges.values, exact.values).statistic
        print(
            f"  {method:20} {pearson:6.3f} {spearman:6.3f} {seconds:7.2f}   1/{slow / seconds:.1f} of the time"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    planted()
    for case in TRAINED:
        trained(*case)
