"""Edge attribution patching (EAP): every edge to first order, from one gradient.

The one idea: an edge carries what its source writes to one reader; to first order, replacing it changes the metric by
what the source changes by, times the gradient at that reader's input alone. One pass there and back gives both for
all edges; a node's score, the sum over its out-edges, is its attribution patching. Where the metric has its extreme
at the clean run (KL divergence to it), the gradient there is zero and so is every score: use a task's metric.
Source: Syed et al. 2023 (arXiv 2310.10348).
Cost: two forward passes and a backward for each batch, and products of sources and readers worth half a forward.
"""

from __future__ import annotations

from circuits.edge_attribution import gradient_work, scores_by_gradient
from circuits.methods.method import Method, Problem
from circuits.model import Model
from circuits.patches import ReplacementOptions
from circuits.scores import Scores
from circuits.work import Workload


def score(model: Model, problem: Problem, options: ReplacementOptions) -> Scores:
    """Estimated effects of cutting each edge alone, in units of the metric; directions as in attribution patching.

    Raises ModelError where the engine does not cover the model.
    """
    return scores_by_gradient(METHOD.name, model, problem, options, replacement=options)


def work(model: Model, problem: Problem, options: ReplacementOptions) -> Workload:
    """The passes there and back, and the products in which sources and readers meet."""
    return gradient_work(METHOD.name, model, problem, options)


METHOD = Method(
    name="eap",
    summary="every edge to first order: what its source changes by, times the gradient where it is read",
    paper="Syed et al. 2023, arXiv 2310.10348",
    options=ReplacementOptions,
    score=score,
    granularity="edge",
    work=work,
)
