"""What every patching method asks: which run is changed, by what, and where; and the sweep that asks it.

The one idea: an effect is the metric of a changed run minus that of the run itself, with one component's output
replaced everywhere or at one place; how the change is worked out, exactly or to first order, is the method's
affair, and all the rest (signs, positions, the order of the prompts) is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from circuits.batches import Batch, by_prompt
from circuits.donors import Donor, mean_donor, resample_donor, zero_donor
from circuits.graph import Graph
from circuits.methods.method import Options, Problem
from circuits.model import Model
from circuits.scores import Scores
from circuits.work import Work, batch_passes


class ReplacementOptions(Options):
    direction: Literal["noising", "denoising"] = Field(
        "noising", description="noising: damage the clean run; denoising: restore the corrupt run"
    )
    ablation: Literal["resample", "mean", "zero"] = Field(
        "resample", description="what replaces an output: the other prompt's, the mean over prompts, or zero"
    )

    @model_validator(mode="after")
    def _denoising_restores_the_clean_run(self) -> ReplacementOptions:
        if self.direction == "denoising" and self.ablation != "resample":
            raise ValueError(
                f"denoising restores the clean run's outputs, so ablation {self.ablation} has no meaning"
            )
        return self

    @property
    def sign(self) -> float:
        """What turns a change of the metric into support of the behaviour."""
        return 1.0 if self.direction == "denoising" else -1.0


class PatchingOptions(ReplacementOptions):
    positions: Literal["all", "named", "every"] = Field(
        "all", description="all at once; or also by the task's named positions; or by every token position"
    )
    components: Literal["all", "heads"] = Field(
        "all", description="heads: score heads alone; the circuit then keeps every MLP, as most papers do"
    )

    def scored(self, graph: Graph) -> tuple[str, ...]:
        """The components that get a score."""
        return graph.heads if self.components == "heads" else graph.components


class PartOptions(PatchingOptions):
    inputs: bool = Field(
        False, description="also score what heads read: q, k, v and pattern of each, as finer parts"
    )

    @model_validator(mode="after")
    def _inputs_come_from_the_other_prompt(self) -> PartOptions:
        if self.inputs and self.ablation != "resample":
            raise ValueError(
                f"inputs are those of the other prompt, so ablation {self.ablation} has no meaning"
            )
        return self


Swap = Callable[[Batch], tuple[Int[Tensor, "prompt pos"], Donor]]
"""A batch -> the tokens that run, and what replaces outputs there."""


def swap(model: Model, problem: Problem, options: ReplacementOptions) -> Swap:
    """The swap that the options ask for; a mean is taken once, over all prompts (two forward passes)."""
    if options.direction == "denoising":
        return lambda batch: (batch.corrupt, resample_donor(batch.clean))
    if options.ablation == "resample":
        return lambda batch: (batch.clean, resample_donor(batch.corrupt))
    constant = mean_donor(model, problem.batches) if options.ablation == "mean" else zero_donor()
    return lambda batch: (batch.clean, constant)


def counted_swap(model: Model, problem: Problem, options: ReplacementOptions) -> tuple[Swap, Work]:
    """The same with means that are counted and not taken."""
    if options.ablation != "mean":
        return swap(model, problem, options), Work()
    return lambda batch: (batch.clean, zero_donor()), batch_passes(model, problem.batches, 2)


Changes = Callable[[Bool[Tensor, "prompt pos"] | None], Float[Tensor, "*kind name prompt"]]
"""Where to patch (None: everywhere) -> the changed run's metric minus that of the run itself."""


@dataclass(frozen=True)
class Effects:
    """samples: in the order of the prompt set. by_position: label -> mean over the prompts that have the place.

    Positive where what is patched supports the behaviour. kind: whatever a method tells apart.
    """

    samples: Float[np.ndarray, "*kind prompt name"]
    by_position: Mapping[str, Float[np.ndarray, "*kind name"]]

    def scores(
        self,
        method: str,
        components: tuple[str, ...],
        parts: tuple[str, ...],
        details: Mapping[str, object],
    ) -> Scores:
        """Names are components, then parts."""
        n = len(components)

        def of(names: tuple[str, ...], columns: slice, **more: Any) -> Scores:
            places = {label: values[columns] for label, values in self.by_position.items()}
            return Scores(method, names, self.samples[:, columns], by_position=places, **more)

        finer = of(parts, slice(n, None)) if parts else None
        return of(components, slice(n), details=details, parts=finer)


def sweep(
    problem: Problem, options: PatchingOptions, what: str, n_names: int, begin: Callable[[Batch], Changes]
) -> Effects:
    """Every batch, everywhere and at each place of options.positions.

    what, n_names: what progress calls it, and how many effects one call works out.
    """
    total = n_names * sum(1 + sum(1 for _ in places(b, options.positions)) for b in problem.batches)
    everywhere: list[Tensor] = []
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, set[int]] = {}
    done = 0
    for batch in problem.batches:
        changes = begin(batch)
        everywhere.append(options.sign * changes(None).cpu())
        done += n_names
        problem.progress(what, done, total)
        for label, where in places(batch, options.positions):
            rows = where.any(1).cpu()
            effect = options.sign * changes(where).cpu() * torch.tensor(batch.weights)
            sums[label] = sums.get(label, 0.0) + effect[..., rows].sum(-1).numpy()
            counts.setdefault(label, set()).update(
                i for i, there in zip(batch.index, rows.tolist(), strict=True) if there
            )
            done += n_names
            problem.progress(what, done, total)
    samples = by_prompt(problem.batches, torch.cat(everywhere, -1)).transpose(-1, -2).double().numpy()
    return Effects(samples, {label: sums[label] / len(counts[label]) for label in sums})


def places(batch: Batch, positions: str) -> Iterator[tuple[str, Bool[Tensor, "prompt pos"]]]:
    """(label, mask) of each place to patch alone."""
    if positions == "every":
        for index in range(batch.clean.shape[1]):
            yield f"{index}", _mask(batch, [index] * len(batch))
    if positions == "named":
        for name in dict.fromkeys(n for pair in batch.pairs for n in pair.positions):
            yield name, _mask(batch, [pair.positions.get(name) for pair in batch.pairs])


def labels(batches: Iterable[Batch], positions: str) -> tuple[str, ...]:
    """Of all places."""
    return tuple(dict.fromkeys(label for batch in batches for label, _ in places(batch, positions)))


def _mask(batch: Batch, index: list[int] | list[int | None]) -> Bool[Tensor, "prompt pos"]:
    mask = torch.zeros(batch.clean.shape, dtype=torch.bool, device=batch.clean.device)
    for row, column in enumerate(index):
        if column is not None:
            mask[row, column] = True
    return mask
