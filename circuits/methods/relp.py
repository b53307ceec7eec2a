"""RelP for edges: EAP with gradients that take norms, activations and gates for linear at the values that they have.

The one idea: relevance patching (circuits.methods.relevance_patching) with a reader for each input of a head, an MLP
or the logits; the rules also hold for the norm that a reader sees its source through.
Source: Farnoush Rezaei Jafari et al. 2025, RelP (arXiv 2508.21258).
Cost: that of EAP.
"""

from __future__ import annotations

from circuits.edge_attribution import gradient_work, scores_by_gradient
from circuits.methods.method import Method, Problem
from circuits.methods.relevance_patching import RuleOptions
from circuits.model import Model
from circuits.patches import ReplacementOptions
from circuits.scores import Scores
from circuits.work import Workload


class RelevanceEdgeOptions(ReplacementOptions, RuleOptions):
    pass


def score(model: Model, problem: Problem, options: RelevanceEdgeOptions) -> Scores:
    """Estimated effects of cutting each edge alone, in units of the metric; directions as in eap.

    Raises ModelError where the engine does not cover the model.
    """
    unit = "change of the metric, by relevance rules"
    return scores_by_gradient(
        METHOD.name, model, problem, options, replacement=options, rules=options.rules, unit=unit
    )


def work(model: Model, problem: Problem, options: RelevanceEdgeOptions) -> Workload:
    """The passes there and back, and the products in which sources and readers meet."""
    return gradient_work(METHOD.name, model, problem, options)


METHOD = Method(
    name="relp",
    summary="EAP by gradients that take norms, activations and gates for linear (RelP)",
    paper="Rezaei Jafari et al. 2025, RelP, arXiv 2508.21258",
    options=RelevanceEdgeOptions,
    score=score,
    granularity="edge",
    work=work,
)
