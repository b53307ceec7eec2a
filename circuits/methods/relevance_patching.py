"""Relevance patching (RelP): attribution patching with gradients that do not see bends.

The one idea: the same two forward passes and a backward, but norms, activations and gates are taken for linear at
the values that they have (rules of layer-wise relevance propagation, circuits/engine/rules.py); what such a
gradient carries back is nearer to what a whole patch does. Where attention itself moves, it is as blind as
attribution patching.
Source: Farnoush Rezaei Jafari et al. 2025, RelP (arXiv 2508.21258).
Cost: that of attribution patching. Through the engine alone.
"""

from __future__ import annotations

from pydantic import Field

from circuits.attribution import Approximation, linear_changes, linear_work
from circuits.batches import Batch
from circuits.engine.rules import Rules
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.patches import Changes, PatchingOptions, counted_swap, labels, swap, sweep
from circuits.patching import require_engine
from circuits.scores import Scores
from circuits.work import Workload, total


class RuleOptions(Options):
    norms: bool = Field(True, description="LN rule: norms divide by the scale that they have")
    activations: bool = Field(
        True, description="Identity rule: activations keep the ratio of output to input"
    )
    gates: bool = Field(True, description="Half rule: a gate and what it gates get half the gradient each")
    attention: bool = Field(False, description="AH rule: attention patterns stay as they are")

    @property
    def rules(self) -> Rules:
        return Rules(self.norms, self.activations, self.gates, self.attention)


class RelevancePatchingOptions(RuleOptions, PatchingOptions):
    pass


def score(model: Model, problem: Problem, options: RelevancePatchingOptions) -> Scores:
    """Estimated effects in units of the metric, signs, positions and runs as in attribution patching.

    Raises ModelError where the engine does not cover the model.
    """
    require_engine(model, problem.batches, METHOD.name)
    components, swapped = options.scored(model.graph), swap(model, problem, options)
    how = Approximation(rules=options.rules)

    def begin(batch: Batch) -> Changes:
        return linear_changes(model, batch, problem.metric, swapped, components, how)

    effects = sweep(problem, options, "relevance patching", len(components), begin)
    details = {"options": options.model_dump(), "unit": "change of the metric, by relevance rules"}
    return effects.scores(METHOD.name, components, (), details)


def work(model: Model, problem: Problem, options: RelevancePatchingOptions) -> Workload:
    """The passes there and back, as in attribution patching."""
    require_engine(model, problem.batches, METHOD.name)
    swapped, means = counted_swap(model, problem, options)
    passes = [linear_work(model, batch, swapped) for batch in problem.batches]
    places = labels(problem.batches, options.positions)
    return Workload(options.scored(model.graph), total([means, *passes]), positions=places)


METHOD = Method(
    name="relevance-patching",
    summary="attribution patching by gradients that take norms, activations and gates for linear",
    paper="Rezaei Jafari et al. 2025, RelP, arXiv 2508.21258",
    options=RelevancePatchingOptions,
    score=score,
    work=work,
)
