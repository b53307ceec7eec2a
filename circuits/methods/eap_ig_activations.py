"""EAP with integrated gradients of outputs (EAP-IG, activations): each source's own output moves, not the input.

The one idea: in the clean run the outputs of one group of sources (the embedding, all heads of a layer, an MLP) go
from corrupt to clean while all else is computed anew, and an edge that leaves the group gets the mean gradient that
its reader sees on that way. What lies below the group is not run again.

**Which points, which gradients.** The published points are `right`: corrupt + k/m (clean - corrupt), k = 1 ... m;
with one step that is EAP. The library gives every edge the gradients that its reader has while any group moves,
its own and those above it too, and divides by the number of groups; here an edge gets those of its own source's way
alone, as the integral asks for: over the out-edges of an MLP they sum to its exact effect. So numbers are not the
library's.
Source: Hanna et al. 2024 (arXiv 2403.17806), after Marks et al. 2024 (arXiv 2403.19647); hannamw/EAP-IG.
Cost: two forward passes, and for each step and layer two there and back through the layers above: about
steps x (layers + 1) of whole ones.
"""

from __future__ import annotations

from pydantic import Field

from circuits.edge_attribution import PathOptions, Rule, scores_by_gradient
from circuits.engine.linear_edges import output_path_edges
from circuits.methods.method import Method, Problem
from circuits.model import Model
from circuits.rehearsal import rehearsed
from circuits.scores import Scores
from circuits.work import Workload


class OutputPathOptions(PathOptions):
    rule: Rule = Field(
        "right",
        description="right, as published: to the clean end, without the corrupt one; or left, midpoint, trapezoid",
    )


def score(model: Model, problem: Problem, options: OutputPathOptions) -> Scores:
    """Estimated effects of corrupting each edge, in units of the metric.

    Raises ModelError where the engine does not cover the model.
    """
    return scores_by_gradient(
        METHOD.name, model, problem, options, points=options.points, path=output_path_edges
    )


def work(model: Model, problem: Problem, options: OutputPathOptions) -> Workload:
    """Told by trying."""
    return rehearsed(score, model, problem, options)


METHOD = Method(
    name="eap-ig-activations",
    summary="EAP with gradients averaged while each source's own output moves (EAP-IG)",
    paper="Hanna et al. 2024, arXiv 2403.17806",
    options=OutputPathOptions,
    score=score,
    work=work,
    granularity="edge",
)
