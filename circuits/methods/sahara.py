"""Sahara: how far the directions that prompts span turn when heads are taken out, and the set that turns them most.

The one idea: over a set of prompts the last states of a model are a matrix, one row a prompt; its leading left
singular vectors say how the prompts lie to each other. Taking heads out turns that subspace by its principal angles,
and their sum, in degrees, is the shift. The head with the largest shift joins a set, and the search goes on with that
set taken out.
Source: Zhou et al. 2024 (arXiv 2410.13708, ICLR 2025), section 4: rank 1, and one step in their code.

**Which states.** Ours: the residual stream of the last token behind the last layer, before the last norm.
Angles are taken in double precision: in single precision the arc cosine near 1 is off by 0.02 degrees.
Cost: one forward pass a prompt, and for each step and head one of the layers from the set's lowest on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from circuits.batches import n_prompts
from circuits.engine.head_runs import Change
from circuits.errors import CircuitError
from circuits.graph import Node
from circuits.greedy import greedy
from circuits.interventions.effect import DRAWS, random_heads
from circuits.methods.method import Method, Problem
from circuits.model import Model
from circuits.rehearsal import rehearsed
from circuits.removal import RemovalOptions, head_runs, removal, require
from circuits.scores import Scores
from circuits.work import Workload


class SaharaOptions(RemovalOptions):
    rank: int = Field(1, ge=1, description="dimensions of the subspace whose turn is measured")
    steps: int = Field(3, ge=1, description="heads of the greedy set; the paper's code takes one")


Shift = Callable[[Sequence[Node]], float]
"""Heads that are taken out together -> degrees."""


def score(model: Model, problem: Problem, options: SaharaOptions) -> Scores:
    """Shift of each head alone, in degrees, without a sign; one sample, for a subspace belongs to all prompts.

    details: the greedy set with its shift after each step, and what random sets of as many heads give.
    Raises ModelError where the engine does not cover the model, CircuitError for a rank or a set that is too large.
    """
    require(model, problem.batches, METHOD.name)
    graph = model.graph
    _require_room(model, n_prompts(problem.batches), options)
    shift = shift_of(model, problem, removal(model, problem.batches, options.ablation), options.rank)
    rounds = greedy(
        graph.heads,
        lambda names: shift([graph.node(name) for name in names]),
        options.steps,
        partial(problem.progress, METHOD.name),
    )
    found = [name for turn in rounds for name in turn.added]
    after = [turn.worth for turn in rounds]
    random = [
        shift([graph.node(name) for name in other.values()])
        for other in random_heads(graph, found, (), DRAWS, problem.seed)
    ]
    details = {
        "options": options.model_dump(),
        "unit": "degrees",
        "signed": False,
        "greedy_set": dict(zip(found, after, strict=True)),
        "random_sets": random,
        "verdict": _verdict(found, after, random),
    }
    return Scores(
        METHOD.name,
        graph.heads,
        np.array([[rounds[0].each[head] for head in graph.heads]]),
        unit="prompt set",
        details=details,
    )


def _require_room(model: Model, n: int, options: SaharaOptions) -> None:
    if options.rank > min(n, model.d_model):
        raise CircuitError(
            f"sahara.rank {options.rank} is more than the {min(n, model.d_model)} dimensions that {n} prompts of "
            f"{model.d_model} numbers span. Choose a smaller rank, or give more prompts."
        )
    if options.steps > (n_heads := len(model.graph.heads)):
        raise CircuitError(f"sahara.steps {options.steps} is more than the {n_heads} heads of {model.name}.")


def shift_of(model: Model, problem: Problem, change: Change, rank: int) -> Shift:
    """Prompts run once, then again for every set of heads."""
    runs = [head_runs(model, batch) for batch in problem.batches]

    def basis(heads: Sequence[Node]) -> Float[Tensor, "prompt rank"]:
        return leading(torch.cat([run.final(heads, change) for run in runs]), rank)

    own = basis([])
    return lambda heads: float(torch.rad2deg(principal_angles(own, basis(heads)).sum()))


def leading(states: Float[Tensor, "prompt d_model"], rank: int) -> Float[Tensor, "prompt rank"]:
    """The first left singular vectors."""
    left: Tensor = torch.linalg.svd(states.double(), full_matrices=False)[0]
    return left[:, :rank]


def principal_angles(
    one: Float[Tensor, "prompt rank"], other: Float[Tensor, "prompt rank"]
) -> Float[Tensor, "rank"]:
    """Between the spaces that orthonormal columns span, in radians, smallest first."""
    cosines: Tensor = torch.linalg.svdvals(one.T @ other)
    return cosines.clamp(-1, 1).acos()


def _verdict(found: Sequence[str], after: Sequence[float], random: Sequence[float]) -> list[str]:
    grown = ", then ".join(
        f"{head} ({degrees:.3g} degrees)" for head, degrees in zip(found, after, strict=True)
    )
    chance = "There are too few other heads to draw sets from."
    if random:
        reached = sum(value >= after[-1] for value in random)
        chance = (
            f"{len(random)} random sets of as many heads, in the same layers where those have enough, shift it by "
            f"{min(random):.3g} to {max(random):.3g}; {reached} of them as far."
        )
    return [f"Greedy set: {grown}. {chance}"]


def work(model: Model, problem: Problem, options: SaharaOptions) -> Workload:
    """Told by trying, at rank 1, for the rank costs nothing and few prompts span little."""
    _require_room(model, n_prompts(problem.batches), options)
    first = options.model_copy(update={"rank": 1})
    return rehearsed(score, model, problem, first, model.graph.heads)


METHOD = Method(
    name="sahara",
    summary="how far the space that the prompts' last states span turns without a head; and a greedy set",
    paper="Zhou et al. 2024, arXiv 2410.13708",
    options=SaharaOptions,
    score=score,
    work=work,
)
