"""What the edge methods by gradients share: prompts as memory allows, batch by batch, and where gradients are taken.

The one idea: an integral along the way from the donor's run to the own one is a weighted sum of gradients at points
of it, so plain gradients, both ends, and every rule of integration are lists of points.
Source: Sundararajan et al. 2017 (integrated gradients, arXiv 1703.01365); Hanna et al. 2024 (arXiv 2403.17806).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from circuits.attribution import BACK, prompt_bytes
from circuits.batches import Batch, places
from circuits.donors import first_difference
from circuits.edge_scores import edge_scores
from circuits.engine.footprint import Footprint
from circuits.engine.linear_edges import OWN_RUN, Ends, Point, embedding_path_edges
from circuits.engine.weights import Weights
from circuits.memory import in_chunks
from circuits.methods.method import Options, Problem
from circuits.model import Model
from circuits.patches import ReplacementOptions, counted_swap, swap
from circuits.patching import engine_weights, require_engine
from circuits.readout import Readout
from circuits.scores import Scores
from circuits.work import Work, Workload, total

Rule = Literal["left", "right", "midpoint", "trapezoid"]

CHUNK_BYTES = 104 * 2**20
"""What prompts take at once on a CPU, whatever the budget: more is no faster there."""


def points_of(rule: Rule, steps: int) -> tuple[Point, ...]:
    """Points from the donor's run (share 0) to the own one (share 1), and weights that sum to one."""
    if rule == "trapezoid":
        ends = (Point(0.0, 0.5 / steps), Point(1.0, 0.5 / steps))
        return (*ends, *(Point(k / steps, 1 / steps) for k in range(1, steps)))
    ahead = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return tuple(Point((k + ahead) / steps, 1 / steps) for k in range(steps))


class PathOptions(Options):
    steps: int = Field(
        5, ge=1, description="points of the way at which gradients are taken; trapezoid: one more"
    )
    rule: Rule

    @property
    def points(self) -> tuple[Point, ...]:
        return points_of(self.rule, self.steps)


Path = Callable[[Ends, Sequence[Point], int, int], Float[Tensor, "prompt source reader"]]
"""(some prompts' runs, points, rows of them that memory holds, bytes) -> how the metric changes by each edge."""

NOISING = ReplacementOptions()


def prompt_matrices(
    model: Model,
    problem: Problem,
    what: str,
    effects: Callable[[Weights, Batch, int, int], Float[Tensor, "prompt source reader"]],
    n_runs: int = 1,
) -> Float[np.ndarray, "prompt source reader"]:
    """Of all prompts, in the order of the prompt set.

    effects: (weights, some prompts, rows of them that memory holds, bytes) -> how the metric changes by each edge.
    n_runs: how many runs of a prompt go side by side.
    """
    done, n_rows, room = 0, sum(len(batch) for batch in problem.batches), _room(model)
    # Prompts that are judged elsewhere have left gaps.
    place = places(problem.batches)
    found = np.zeros((len(place), len(model.graph.sources), len(model.graph.readers)), np.float32)

    def of_batch(batch: Batch) -> None:
        length = batch.clean.shape[1]
        weights, each = engine_weights(model, length), prompt_bytes(model, length)
        assert weights is not None, "edge methods ask for the engine first"

        def work(part: slice) -> None:
            nonlocal done
            some = batch.of_rows(range(len(batch))[part])
            effect = effects(weights, some, max(1, room // (each * len(some))), room)
            for index, weight, matrix in zip(some.index, some.weights, effect.cpu().numpy(), strict=True):
                found[place[index]] += weight * matrix
            done += len(some)
            problem.progress(what, done, n_rows)

        in_chunks(len(batch), _prompts_at_once(model, length, n_runs), work)

    for batch in problem.batches:
        of_batch(batch)
    return found


def _room(model: Model) -> int:
    return min(model.memory, CHUNK_BYTES) if model.device.type == "cpu" else model.memory


def _prompts_at_once(model: Model, length: int, n_runs: int) -> int:
    return max(1, _room(model) // (prompt_bytes(model, length) * n_runs))


def scores_by_gradient(
    method: str,
    model: Model,
    problem: Problem,
    options: Options,
    *,
    replacement: ReplacementOptions = NOISING,
    points: Sequence[Point] = OWN_RUN,
    path: Path = embedding_path_edges,
    rules: Callable[[Weights], Weights] = lambda weights: weights,
    unit: str = "change of the metric, to first order",
) -> Scores:
    """Scores of every edge, and of nodes as the sum over what leaves them: what sources change by, times gradients at
    `points` of `path`. rules: what the weights are replaced by before gradients are taken.

    Raises ModelError where the engine does not cover the model.
    """
    require_engine(model, problem.batches, method)
    swapped = swap(model, problem, replacement)

    def effects(weights: Weights, some: Batch, rows_at_once: int, memory: int) -> Tensor:
        ends = Ends(rules(weights), *swapped(some), Readout(some, problem.metric))
        return path(ends, points, rows_at_once, memory)

    matrices = prompt_matrices(model, problem, method.replace("-", " "), effects, len(points))
    matrices *= replacement.sign
    details = {"options": options.model_dump(), "unit": unit}
    return edge_scores(method, model.graph, matrices, details=details)


def gradient_work(
    method: str,
    model: Model,
    problem: Problem,
    replacement: ReplacementOptions = NOISING,
    points: Sequence[Point] = OWN_RUN,
) -> Workload:
    """What scores_by_gradient runs for the same arguments, along the way between embeddings."""
    require_engine(model, problem.batches, method)
    swapped, means = counted_swap(model, problem, replacement)
    own_run = all(point.share < 1 for point in points)

    def of_batch(batch: Batch) -> Work:
        length = batch.clean.shape[1]

        def work(part: slice) -> Work:
            tokens, donor = swapped(batch.of_rows(range(len(batch))[part]))
            first = min(first_difference(tokens, donor), length - 1)
            weights, resamples = engine_weights(model, length), donor.tokens is not None
            assert weights is not None
            passes = len(points) + own_run + resamples
            return Work(
                passes=len(tokens) * passes,
                flops=Footprint(weights, len(tokens), length, first, resamples).linear_edges_flops(
                    len(points), own_run
                ),
                calls=len(weights.layers) * (passes + BACK * len(points)),
                bytes=len(tokens) * prompt_bytes(model, length),
            )

        return total(in_chunks(len(batch), _prompts_at_once(model, length, len(points)), work))

    return Workload(model.graph.components, total([means, *map(of_batch, problem.batches)]))
