"""Activation patching on a budget: exact effects on few prompts, corrected by a cheap guess on all of them.

The one idea: what gradients say of every component costs two forward passes and a backward on all prompts; exact
runs on a few prompts say how far that can be trusted, and heads that are certainly small are patched no further
(see circuits.control_variates). The guess is relevance patching where the engine covers the model, because plain
gradients fail behind a saturated softmax; a bad guess widens the intervals and moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import numpy as np
from jaxtyping import Float

from circuits.attribution import Approximation, linear_changes, linear_work
from circuits.control_variates import describe, estimate_on_budget
from circuits.donors import all_but_one
from circuits.engine.rules import Rules
from circuits.methods.method import Problem
from circuits.model import Model
from circuits.patches import PatchingOptions, counted_swap, swap, sweep
from circuits.patching import base_run, engine_weights
from circuits.readout import Readout
from circuits.scores import Scores
from circuits.work import Workload, account

ESTIMATED = "estimate"
"""Scores.unit of pseudo-samples, which are no independent draws."""

Guess = Literal["relevance", "attribution"]


def score_on_budget(
    model: Model, problem: Problem, options: PatchingOptions, method: str, budget: int, guess: Guess | None
) -> Scores:
    """Mean effects as activation patching has them, each from at most `budget` prompts, with an account.

    guess: None takes relevance patching where the engine covers the model, else attribution patching.
    """
    components, swapped = options.scored(model.graph), swap(model, problem, options)
    covered = all(engine_weights(model, batch.clean.shape[1]) is not None for batch in problem.batches)
    guess = guess or ("relevance" if covered else "attribution")
    how = Approximation(rules=Rules()) if guess == "relevance" else Approximation()
    cheap = sweep(
        problem,
        options,
        f"{guess} on all prompts",
        len(components),
        lambda batch: linear_changes(model, batch, problem.metric, swapped, components, how),
    )
    sign = 1.0 if options.direction == "denoising" else -1.0

    def exact(prompts: Sequence[int], columns: Sequence[int]) -> Float[np.ndarray, "prompt component"]:
        asked, names = set(prompts), [components[column] for column in columns]
        found = np.zeros((len(prompts), len(columns)))
        place = {prompt: row for row, prompt in enumerate(prompts)}
        for batch in problem.batches:
            some = batch.where(lambda index: index in asked)
            if not len(some):
                continue
            run, readout = base_run(model, *swapped(some)), Readout(some, problem.metric)
            unpatched = run.unpatched(readout).metric
            rows, weights = [place[index] for index in some.index], np.array(some.weights)[:, None]
            done = 0
            for _, layer in groupby(names, key=lambda name: model.graph.node(name).layer):
                effects = (
                    run.measure(all_but_one(model.graph, of := tuple(layer)), readout).metric - unpatched
                )
                changed = sign * effects.T.double().numpy() * weights
                np.add.at(found[:, done : done + len(of)], np.array(rows), changed)
                done += len(of)
        problem.progress("exact patching on a budget", len(prompts), len(prompts))
        return found

    effects = estimate_on_budget(cheap.samples, exact, budget, refine=True, seed=problem.seed)
    details = {
        "options": options.model_dump(),
        "unit": "change of the metric",
        "guess": guess,
        "verdict": describe(effects, components),
        "budget": effects.details(components),
    }
    return Scores(method, components, effects.samples, unit=ESTIMATED, details=details)


def budget_work(model: Model, problem: Problem, options: PatchingOptions, budget: int) -> Workload:
    """What score_on_budget runs, at most: components that are certainly small are patched on fewer prompts."""
    components, (swapped, total) = options.scored(model.graph), counted_swap(model, problem, options)
    for batch in problem.batches:
        total += linear_work(model, batch, swapped)
        some = batch.where(lambda index: index < budget)
        if len(some):
            runs, readout = account(model, *swapped(some)), Readout(some, problem.metric)
            total += runs.begun + runs.measure(all_but_one(model.graph, components), readout)
    return Workload(components, total, unit=ESTIMATED)
