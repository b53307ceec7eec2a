"""What a faithfulness curve of ten sizes costs in one call, beside ten evaluations one after another.

    python tests/benchmarks/ten_sizes.py [--model plain-4l] [--task ioi] [--pairs 100] [--rounds 3]

Circuits of edges, grown from the logits by random scores. Passes are runs of one prompt: clean, corrupt, and one for
each circuit. CPU seconds on one thread, the median of the rounds; both give the same numbers, which is checked.
An evaluation by itself needs its own clean and corrupt run, and both ends of the scale.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

from circuits.batches import make_batches
from circuits.edge_selection import greedy_order
from circuits.evaluation.curves import measured, sizes
from circuits.evaluation.faithfulness import Bench, donor_maker, edge_bench
from circuits.metrics import logit_difference
from circuits.models.bridge import load_model
from circuits.scores import Scores
from cli.prompt_source import sample_task
from tasks import TASKS

SHARED_RUNS, ENDS = 2, 2
"""Passes a prompt that every evaluation begins with (clean, corrupt), and those of the ends of its scale."""


def main() -> None:
    """Prints passes and CPU seconds of both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="plain-4l")
    parser.add_argument("--task", default="ioi")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    at, circuits = _bench(arguments.model, arguments.task, arguments.pairs)

    def together() -> np.ndarray:
        found = measured(at, [circuits])
        scale = found.everything.mean() - found.nothing.mean()
        return np.asarray((found.inside[0].mean(1) - found.nothing.mean()) / scale)

    def apart() -> np.ndarray:
        # A new bench each time, for it keeps the ends of its scale.
        return np.array([replace(at).faithfulness([circuit])[0] for circuit in circuits])

    once, one_by_one = (
        statistics.median(_cpu(work) for _ in range(arguments.rounds)) for work in (together, apart)
    )
    n = len({frozenset(circuit) for circuit in (*circuits, (), at.played)})
    passes = SHARED_RUNS + n, len(circuits) * (2 * SHARED_RUNS + ENDS + 1)
    gap = float(np.abs(together() - apart()).max())
    print(
        f"{arguments.model}, {arguments.task}, {arguments.pairs} prompts, {len(at.played)} edges, ten sizes"
    )
    print(f"in one call    {passes[0]:4} passes a prompt {once:8.2f} CPU s")
    print(f"one by one     {passes[1]:4} passes a prompt {one_by_one:8.2f} CPU s")
    print(
        f"ratio {passes[1] / passes[0]:.1f}x of passes, {one_by_one / once:.1f}x of CPU; largest difference {gap:.0e}"
    )


def _bench(model_name: str, task: str, pairs: int) -> tuple[Bench, list[tuple[str, ...]]]:
    model = load_model(model_name)
    torch.set_num_threads(1)
    drawn = sample_task(model, TASKS.load(task), form=None, corruption=None, n=pairs, seed=0)
    batches = make_batches(model, drawn.pairs)
    donors = donor_maker(model, "resample", batches)
    at = edge_bench(Bench(model, batches, logit_difference, "resample", (), donors))
    values = np.random.default_rng(0).normal(size=(1, len(at.played)))
    order = greedy_order(model.graph, Scores("random", at.played, values))
    return at, [order[:n] for n in sizes(len(order))]


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
