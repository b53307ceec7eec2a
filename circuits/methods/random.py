"""Random scores: the baseline that any other method has to beat.

The one idea: every edge gets normal noise that knows nothing of model and prompts, seeded, one draw a trial; what a
circuit chosen by it reaches is what a circuit of that size reaches by chance.
Source: the random baseline of MIB (Mueller et al. 2025, arXiv 2504.13151).
Cost: none.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from circuits.edge_scores import edge_scores
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.scores import Scores
from circuits.work import Work, Workload


class RandomOptions(Options):
    trials: int = Field(10, ge=1, description="independent draws, of which a score is the mean")


def score(model: Model, problem: Problem, options: RandomOptions) -> Scores:
    """Normal noise for every edge; a component has the sum over its out-edges. By the seed alone; on every model."""
    graph, generator = model.graph, np.random.default_rng(problem.seed)
    noise = generator.standard_normal((options.trials, len(graph.sources), len(graph.readers)))
    details = {"options": options.model_dump(), "unit": "normal noise"}
    return edge_scores(METHOD.name, graph, noise, unit="trial", details=details)


def work(model: Model, problem: Problem, options: RandomOptions) -> Workload:
    """None at all."""
    return Workload(model.graph.components, Work(), unit="trial")


METHOD = Method(
    name="random",
    summary="normal noise for every edge: the baseline for all other methods",
    paper="Mueller et al. 2025, MIB, arXiv 2504.13151",
    options=RandomOptions,
    score=score,
    granularity="edge",
    work=work,
)
