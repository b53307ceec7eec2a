"""EAP with integrated gradients (EAP-IG, inputs): along the way from the corrupt embedding to the clean one.

The one idea: a gradient at the clean run alone misses what is saturated there; the mean of gradients at points on
the straight way between the input embeddings does not. What sources change by is as in EAP, so gradients are summed
over the points before they meet the sources.

**Which points.** The published rule is `left`: corrupt + k/m (clean - corrupt), k = 0 ... m-1, which takes the
gradient at the corrupt end and never at the clean one; with one step it is EAP at the corrupt run. `right` is its
mirror (with one step: EAP), `midpoint` and `trapezoid` converge faster: what leaves the input then sums to the whole
difference of the prompts. Numbers compare with published ones under `left` with as many steps alone: 5 in the paper.
Source: Hanna et al. 2024 (arXiv 2403.17806); their code (hannamw/EAP-IG).
Cost: two forward passes, and one there and back for each step.
"""

from __future__ import annotations

from pydantic import Field

from circuits.edge_attribution import PathOptions, Rule, gradient_work, scores_by_gradient
from circuits.methods.method import Method, Problem
from circuits.model import Model
from circuits.scores import Scores
from circuits.work import Workload


class InputPathOptions(PathOptions):
    rule: Rule = Field(
        "left",
        description="left, as published: from the corrupt end, without the clean one; or right, midpoint, trapezoid",
    )


def score(model: Model, problem: Problem, options: InputPathOptions) -> Scores:
    """Estimated effects of corrupting each edge, in units of the metric.

    Raises ModelError where the engine does not cover the model.
    """
    return scores_by_gradient(METHOD.name, model, problem, options, points=options.points)


def work(model: Model, problem: Problem, options: InputPathOptions) -> Workload:
    """The passes there and back, and the products in which sources and readers meet."""
    return gradient_work(METHOD.name, model, problem, points=options.points)


METHOD = Method(
    name="eap-ig-inputs",
    summary="EAP with gradients averaged along the way between the input embeddings (EAP-IG)",
    paper="Hanna et al. 2024, arXiv 2403.17806",
    options=InputPathOptions,
    score=score,
    granularity="edge",
    work=work,
)
