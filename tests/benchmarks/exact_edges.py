"""What exact edges cost on a trained model: every edge patched, and ACDC by many hypotheses a forward and by one.

    python tests/benchmarks/exact_edges.py [--model plain-4l] [--pairs 16] [--threshold 0.01] [--rounds 3]

CPU seconds on one thread, medians; base runs included. Beside edge patching stands one whole forward pass of all
prompts, times the edges; ACDC's circuits must be the same, or the command fails.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from circuits.batches import make_batches
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel, load_model
from circuits.scores import Scores
from cli.prompt_source import sample_task
from tasks import TASKS


def median_cpu(work: Callable[[], object], rounds: int) -> float:
    """CPU seconds; one turn ahead warms up."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def scored(model: BridgeModel, problem: Problem, method: str, **options: object) -> Scores:
    entry = METHODS.load(method)
    scores = entry.score(model, problem, entry.configure(options))
    assert isinstance(scores, Scores)
    return scores


def whole_forward(model: BridgeModel, problem: Problem) -> None:
    for batch in problem.batches:
        model.run(batch.clean)


def all_edges(model: BridgeModel, problem: Problem, rounds: int) -> None:
    n = len(model.graph.places)
    ours = median_cpu(lambda: scored(model, problem, "edge-patching"), rounds)
    each = median_cpu(lambda: whole_forward(model, problem), rounds)
    print(
        f"edge-patching, {n} edges: {ours:.2f} s; as many whole forwards: {n * each:.1f} s; {n * each / ours:.0f}x"
    )


def acdc(model: BridgeModel, problem: Problem, threshold: float, rounds: int) -> None:
    kept = set()
    for order in ("graph", "weakest-first"):
        kept.clear()
        for at_once in (1, 16, 32, 64):
            options = {"threshold": threshold, "order": order, "at_once": at_once}
            found = scored(model, problem, "acdc", **options).details
            seconds = median_cpu(
                lambda options=options: scored(model, problem, "acdc", **options),
                1 if at_once == 1 else rounds,
            )
            kept.add(tuple(found["kept_edges"]))
            print(
                f"acdc, {order}, {at_once} at once: {found['forwards']} forwards, {found['rows']} rows, "
                f"{seconds:.2f} s; keeps {len(found['kept_edges'])} edges, {found['n_untested']} cut untested"
            )
        if len(kept) != 1:
            sys.exit(f"{order}: the circuits differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="plain-4l")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--threshold", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    torch.set_num_threads(1)
    drawn = sample_task(model, TASKS.load("ioi"), form=None, corruption=None, n=arguments.pairs, seed=3)
    problem = Problem(make_batches(model, drawn.pairs), logit_difference)
    all_edges(model, problem, arguments.rounds)
    acdc(model, problem, arguments.threshold, arguments.rounds)


if __name__ == "__main__":
    main()
