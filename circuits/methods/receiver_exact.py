"""Receiver-exact edges: the reader run anew on the changed input, the gradient from its output on.

The one idea: EAP takes the norm, the softmax and the activation that an edge runs into for linear; here these are
worked out with the edge cut, and only what follows the receiver is to first order. Edges to the logits are exact.
Between heads it comes nearest to exact cuts; where one edge carries nearly all that differs, as input->m0 often does,
what follows bends as well, and the integrals of eap-ig-inputs and eap-ig-activations are better.
Source: ours, after the QK fix of AtP* (Kramár et al. 2024, arXiv 2403.00745).
Cost: two forward passes and a backward; and for every source, in all layers above it, queries, keys and what goes
into the MLP: with n sources some n / 4 forward passes of the columns that differ (about 40 for GPT-2 small, where
exact cuts take 16,000).
"""

from __future__ import annotations

from torch import Tensor

from circuits.batches import Batch
from circuits.edge_attribution import prompt_matrices
from circuits.edge_scores import edge_scores
from circuits.engine.linear_edges import Ends
from circuits.engine.receiver_edges import receiver_edges
from circuits.engine.weights import Weights
from circuits.methods.method import Method, Problem
from circuits.model import Model
from circuits.patches import ReplacementOptions, swap
from circuits.patching import require_engine
from circuits.readout import Readout
from circuits.rehearsal import rehearsed
from circuits.scores import Scores
from circuits.work import Workload


def score(model: Model, problem: Problem, options: ReplacementOptions) -> Scores:
    """Estimated effects of cutting each edge alone, in units of the metric; directions as in eap.

    Raises ModelError where the engine does not cover the model.
    """
    require_engine(model, problem.batches, METHOD.name)
    swapped = swap(model, problem, options)

    def effects(weights: Weights, some: Batch, rows_at_once: int, memory: int) -> Tensor:
        return receiver_edges(Ends(weights, *swapped(some), Readout(some, problem.metric)), memory)

    matrices = prompt_matrices(model, problem, "receivers", effects, n_runs=2)
    details = {
        "options": options.model_dump(),
        "unit": "change of the metric, to first order behind the receiver",
    }
    return edge_scores(METHOD.name, model.graph, options.sign * matrices, details=details)


def work(model: Model, problem: Problem, options: ReplacementOptions) -> Workload:
    """Told by trying."""
    return rehearsed(score, model, problem, options)


METHOD = Method(
    name="receiver-exact",
    summary="every edge with its receiver worked out anew, and the gradient from there on",
    paper="after Kramár et al. 2024, AtP*, arXiv 2403.00745",
    options=ReplacementOptions,
    score=score,
    work=work,
    granularity="edge",
)
