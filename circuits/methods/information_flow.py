"""Information-flow routes: how much of what a reader reads came from each source. No corrupt run, no gradient.

The one idea: a source matters to a reader as far as it brings the sum that is read nearer to where it lies: its
proximity is max(0, |sum| - |sum - write|) in the L1 norm, its importance that share of all proximities. Nothing here
knows what the model is asked: an edge scores high where much flows, not where the answer hangs on it. q, k and v of
all heads of a layer read one stream, so they have one score; every position counts alike, as in the code followed.
Source: Ferrando & Voita 2024 (arXiv 2403.00824); as coded for edges in hannamw/EAP-IG (attribute.py).
Cost: one forward pass a prompt; then, of each layer, a pass over what all sources below it wrote.
"""

from __future__ import annotations

from torch import Tensor

from circuits.batches import Batch
from circuits.edge_attribution import prompt_matrices
from circuits.edge_scores import edge_scores
from circuits.engine.flow import importances
from circuits.engine.weights import Weights
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.patching import require_engine
from circuits.rehearsal import rehearsed
from circuits.scores import Scores
from circuits.work import Workload


class FlowOptions(Options):
    pass


def score(model: Model, problem: Problem, options: FlowOptions) -> Scores:
    """Shares from 0 to 1, those into one reader summing to 1; they have no sign and do not say what supports.

    Raises ModelError where the engine does not cover the model.
    """
    require_engine(model, problem.batches, METHOD.name)

    def shares(weights: Weights, some: Batch, rows_at_once: int, memory: int) -> Tensor:
        return importances(weights, some.clean, memory)

    matrices = prompt_matrices(model, problem, METHOD.name, shares)
    details = {"options": options.model_dump(), "unit": "share of what is read", "signed": False}
    return edge_scores(METHOD.name, model.graph, matrices, details=details)


def work(model: Model, problem: Problem, options: FlowOptions) -> Workload:
    """Told by trying."""
    return rehearsed(score, model, problem, options)


METHOD = Method(
    name="information-flow",
    summary="how much of what each reader reads came from each source, on clean prompts alone",
    paper="Ferrando & Voita 2024, arXiv 2403.00824",
    options=FlowOptions,
    score=score,
    work=work,
    granularity="edge",
)
