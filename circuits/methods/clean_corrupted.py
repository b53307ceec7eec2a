"""EAP with the mean of the gradients at both ends: the clean run's and the corrupt one's.

The one idea: the coarsest integral that sees both ends; where a clean run is saturated and has no slope, the corrupt
one may have, and the other way round. The trapezoid rule of eap-ig-inputs with a single step.
Source: Hanna et al. 2024 (arXiv 2403.17806) and their code (hannamw/EAP-IG, "clean-corrupted").
Cost: one forward pass, and two there and back, for each batch.
"""

from __future__ import annotations

from circuits.edge_attribution import gradient_work, points_of, scores_by_gradient
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.scores import Scores
from circuits.work import Workload


class CleanCorruptedOptions(Options):
    pass


def score(model: Model, problem: Problem, options: CleanCorruptedOptions) -> Scores:
    """Estimated effects of corrupting each edge, in units of the metric; noising and denoising are the same here.

    Raises ModelError where the engine does not cover the model.
    """
    return scores_by_gradient(METHOD.name, model, problem, options, points=points_of("trapezoid", 1))


def work(model: Model, problem: Problem, options: CleanCorruptedOptions) -> Workload:
    """The passes there and back, and the products in which sources and readers meet."""
    return gradient_work(METHOD.name, model, problem, points=points_of("trapezoid", 1))


METHOD = Method(
    name="clean-corrupted",
    summary="EAP with the mean of the gradients at the clean and at the corrupt run",
    paper="Hanna et al. 2024, arXiv 2403.17806",
    options=CleanCorruptedOptions,
    score=score,
    granularity="edge",
    work=work,
)
