"""Activation patching: what changes when one component puts out what it puts out on the other prompt.

The one idea: run the clean prompt with one component's output taken from the corrupt run (noising: what is
needed?), or the corrupt prompt with one taken from the clean run (denoising: what suffices?); the change of
the metric is the component's effect. Exact: a forward pass for each component and prompt.
Sources: Meng et al. 2022 (ROME); Zhang & Nanda 2023 (arXiv 2309.16042); Heimersheim & Nanda 2024
(arXiv 2404.15255) for when noising and denoising differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from circuits.batches import Batch
from circuits.budgeted import Guess, budget_work, score_on_budget
from circuits.donors import all_but_one
from circuits.engine.exact import ExactRun
from circuits.engine.inputs import InputPatches, part_names
from circuits.methods.method import Method, Problem
from circuits.model import Model
from circuits.patches import Changes, PartOptions, counted_swap, labels, places, swap, sweep
from circuits.patching import base_run, require_engine
from circuits.readout import Readout, concatenate
from circuits.scores import Scores
from circuits.work import Workload, account


class ActivationPatchingOptions(PartOptions):
    budget: int | None = Field(
        None, ge=2, description="most prompts that any component is patched on; a cheap guess on all fills in"
    )
    guess: Guess | None = Field(
        None, description="budget: relevance or attribution patching; relevance where it can be had"
    )

    @model_validator(mode="after")
    def _a_budget_is_for_means_over_prompts(self) -> ActivationPatchingOptions:
        if self.budget is not None and (self.inputs or self.positions != "all"):
            raise ValueError(
                "a budget is for effects at all positions, without inputs; leave out one of them"
            )
        return self


def score(model: Model, problem: Problem, options: ActivationPatchingOptions) -> Scores:
    """Effects in units of the metric: clean - patched (noising), patched - corrupt (denoising).

    Both are positive where the component supports the behaviour. by_position holds the effect of patching one
    position alone; prompts that lack it are left out of its mean. parts (option inputs): q, k, v and pattern of
    each head (positions are those of queries, for k and v of sources), and the residual stream before each layer,
    whose effect is the whole difference of the prompts but at single positions. With a budget: see
    circuits.budgeted.
    Raises ModelError for inputs where the engine does not cover the model.
    """
    if options.budget is not None:
        return score_on_budget(model, problem, options, METHOD.name, options.budget, options.guess)
    components, swapped = options.scored(model.graph), swap(model, problem, options)
    parts = part_names(model.graph) if options.inputs else ()
    if options.inputs:
        require_engine(model, problem.batches, f"{METHOD.name}.inputs")

    def begin(batch: Batch) -> Changes:
        run, readout = base_run(model, *swapped(batch)), Readout(batch, problem.metric)
        unpatched = run.unpatched(readout).metric
        inputs = InputPatches(run) if options.inputs and isinstance(run, ExactRun) else None

        def changes(where: Bool[Tensor, "prompt pos"] | None) -> Float[Tensor, "name prompt"]:
            masks = (all_but_one(model.graph, layer) for layer in _by_layer(model, components))
            rows = [run.measure(keep, readout, where) for keep in masks]
            finer = [inputs.measure(readout, where)] if inputs else []
            return concatenate([*rows, *finer], dim=0).metric - unpatched

        return changes

    effects = sweep(problem, options, "activation patching", len(components) + len(parts), begin)
    details = {"options": options.model_dump(), "unit": "change of the metric"}
    return effects.scores(METHOD.name, components, parts, details)


def work(model: Model, problem: Problem, options: ActivationPatchingOptions) -> Workload | None:
    """The rows that `score` asks for; nobody counts those of inputs."""
    if options.budget is not None:
        return budget_work(model, problem, options, options.budget)
    if options.inputs:
        require_engine(model, problem.batches, f"{METHOD.name}.inputs")
        return None
    components, (swapped, total) = options.scored(model.graph), counted_swap(model, problem, options)
    for batch in problem.batches:
        runs, readout = account(model, *swapped(batch)), Readout(batch, problem.metric)
        total += runs.begun + runs.unpatched(readout)
        for where in (None, *(mask for _, mask in places(batch, options.positions))):
            for layer in _by_layer(model, components):
                total += runs.measure(all_but_one(model.graph, layer), readout, where)
    return Workload(components, total, positions=labels(problem.batches, options.positions))


def _by_layer(model: Model, components: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Components of one layer at a time, so that a pass edits one layer's sites only."""
    for _, layer in groupby(components, key=lambda name: model.graph.node(name).layer):
        yield tuple(layer)


METHOD = Method(
    name="activation-patching",
    summary="exact effect of replacing one head's or MLP's output by that of the other prompt",
    paper="Zhang & Nanda 2023, arXiv 2309.16042",
    options=ActivationPatchingOptions,
    score=score,
    work=work,
)
