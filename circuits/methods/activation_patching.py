"""Activation patching: what changes when one component puts out what it puts out on the other prompt.

The one idea: run the clean prompt with one component's output taken from the corrupt run (noising: what is
needed?), or the corrupt prompt with one taken from the clean run (denoising: what suffices?); the change of
the metric is the component's effect. Exact: a forward pass for each component and prompt.
Sources: Meng et al. 2022 (ROME); Zhang & Nanda 2023 (arXiv 2309.16042); Heimersheim & Nanda 2024
(arXiv 2404.15255) for when noising and denoising differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import Field, model_validator
from torch import Tensor

from circuits.batches import Batch
from circuits.interventions import Donor, all_but_one, mean_donor, resample_donor, zero_donor
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.patching import BaseRun, base_run
from circuits.readout import Outcome, Readout, concatenate, in_prompt_order
from circuits.scores import Scores
from circuits.work import Work, Workload, account, batch_passes


class PatchingOptions(Options):
    direction: Literal["noising", "denoising"] = Field(
        "noising", description="noising: damage the clean run; denoising: restore the corrupt run"
    )
    ablation: Literal["resample", "mean", "zero"] = Field(
        "resample", description="what replaces an output: the other prompt's, the mean over prompts, or zero"
    )
    positions: Literal["all", "named", "every"] = Field(
        "all", description="all at once; or also by the task's named positions; or by every token position"
    )

    components: Literal["all", "heads"] = Field(
        "all", description="heads: score heads alone; the circuit then keeps every MLP, as most papers do"
    )

    @model_validator(mode="after")
    def _denoising_restores_the_clean_run(self) -> PatchingOptions:
        if self.direction == "denoising" and self.ablation != "resample":
            raise ValueError(
                f"denoising restores the clean run's outputs, so ablation {self.ablation} has no meaning"
            )
        return self


def score(model: Model, problem: Problem, options: PatchingOptions) -> Scores:
    """Effects in units of the metric: clean - patched (noising), patched - corrupt (denoising).

    Both are positive where the component supports the behaviour. by_position holds the effect of patching one
    position alone; prompts that lack it are left out of its mean.
    """
    components = _scored(model, options)
    mean = mean_donor(model, problem.batches) if options.ablation == "mean" else None
    effects: list[Outcome] = []
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    total = sum(1 + len(list(_places(b, options.positions))) for b in problem.batches) * len(components)
    done = 0
    for batch in problem.batches:
        run, readout = base_run(model, *_swap(batch, options, mean)), Readout(batch, problem.metric)
        for label, where in ((None, None), *_places(batch, options.positions)):
            outcome = _effects(model, run, readout, options, components, where)
            if label is None:
                effects.append(outcome)
            else:
                rows = torch.ones(len(batch), dtype=torch.bool) if where is None else where.any(1).cpu()
                sums[label] = sums.get(label, 0.0) + outcome.metric[:, rows].sum(1).numpy()
                counts[label] = counts.get(label, 0) + int(rows.sum())
            done += len(components)
            problem.progress("activation patching", done, total)
    samples = in_prompt_order(problem.batches, effects).metric.T.double().numpy()
    return Scores(
        METHOD.name,
        components,
        samples,
        by_position={label: sums[label] / counts[label] for label in sums},
        details={"options": options.model_dump(), "unit": "change of the metric"},
    )


def work(model: Model, problem: Problem, options: PatchingOptions) -> Workload:
    """The rows that `score` asks for."""
    components, constant = _scored(model, options), zero_donor() if options.ablation == "mean" else None
    total = batch_passes(model, problem.batches, 2) if constant else Work()
    positions: dict[str, None] = {}
    for batch in problem.batches:
        runs, readout = account(model, *_swap(batch, options, constant)), Readout(batch, problem.metric)
        total += runs.begun
        places = dict(_places(batch, options.positions))
        positions |= dict.fromkeys(places)
        for where in (None, *places.values()):
            total += runs.unpatched(readout)
            for layer in _by_layer(model, components):
                total += runs.measure(all_but_one(model.graph, layer), readout, where)
    return Workload(components, total, positions=tuple(positions))


def _scored(model: Model, options: PatchingOptions) -> tuple[str, ...]:
    return model.graph.heads if options.components == "heads" else model.graph.components


def _swap(batch: Batch, options: PatchingOptions, mean: Donor | None) -> tuple[Tensor, Donor]:
    """The tokens that run, and what replaces outputs there."""
    if options.direction == "denoising":
        return batch.corrupt, resample_donor(batch.clean)
    if options.ablation == "zero":
        return batch.clean, zero_donor()
    return batch.clean, mean or resample_donor(batch.corrupt)


def _effects(
    model: Model,
    run: BaseRun,
    readout: Readout,
    options: PatchingOptions,
    components: tuple[str, ...],
    where: Bool[Tensor, "batch pos"] | None,
) -> Outcome:
    parts = [
        run.measure(all_but_one(model.graph, layer), readout, where) for layer in _by_layer(model, components)
    ]
    patched, sign = concatenate(parts, dim=0), 1.0 if options.direction == "denoising" else -1.0
    return Outcome(sign * (patched.metric - run.unpatched(readout).metric), patched.preferred)


def _by_layer(model: Model, components: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Components of one layer at a time, so that a pass edits one layer's sites only."""
    for _, layer in groupby(components, key=lambda name: model.graph.node(name).layer):
        yield tuple(layer)


def _places(batch: Batch, positions: str) -> Iterable[tuple[str, Bool[Tensor, "batch pos"]]]:
    """(label, mask) of each place to patch alone."""
    length = batch.clean.shape[1]
    if positions == "every":
        for index in range(length):
            yield f"{index}", _mask(batch, [index] * len(batch))
    if positions == "named":
        for name in dict.fromkeys(n for pair in batch.pairs for n in pair.positions):
            yield name, _mask(batch, [pair.positions.get(name) for pair in batch.pairs])


def _mask(batch: Batch, index: list[int] | list[int | None]) -> Bool[Tensor, "batch pos"]:
    mask = torch.zeros(batch.clean.shape, dtype=torch.bool, device=batch.clean.device)
    for row, column in enumerate(index):
        if column is not None:
            mask[row, column] = True
    return mask


METHOD = Method(
    name="activation-patching",
    summary="exact effect of replacing one head's or MLP's output by that of the other prompt",
    paper="Zhang & Nanda 2023, arXiv 2309.16042",
    options=PatchingOptions,
    score=score,
    work=work,
)
