"""Whether half precision can carry the effects: the rounding of patched runs beside the effects themselves.

The one idea: two computations of the same effects that differ in nothing but where they round (the engine keeps
the residual stream in fp32, the model's own forward pass does not) differ by the rounding; where that is as large
as the effects, a ranking of small ones means nothing. Asked of half-precision models alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.batches import Batch
from circuits.donors import all_but_one, resample_donor
from circuits.engine.exact import ExactRun
from circuits.engine.portable import PortableRun
from circuits.metrics import Metric
from circuits.model import Model
from circuits.readout import Readout
from circuits.work import ExactAccount, PortableAccount, Work, account, total

PROMPTS, COMPONENTS = 8, 24
"""How much of the model is asked: enough for a median."""

WORTH_A_WARNING = 0.1


@dataclass(frozen=True)
class Rounding:
    """Of effects of single components on single prompts, in units of the metric.

    gap: median difference of the two computations; None where the engine does not cover the model, so that there
    is one computation only. effect: median size.
    """

    dtype: str
    gap: float | None
    effect: float

    @property
    def share(self) -> float | None:
        """Rounding over effect."""
        return None if self.gap is None else self.gap / max(self.effect, 1e-12)

    @property
    def matters(self) -> bool:
        return self.share is None or self.share > WORTH_A_WARNING


def rounding(model: Model, batch: Batch, metric: Metric) -> Rounding | None:
    """Measures it on the first prompts of `batch`; None for fp32, where it is some 1e-6 of the effects."""
    if model.dtype in (torch.float32, torch.float64):
        return None
    few, keep = _asked(model, batch)
    readout, donor = Readout(few, metric), resample_donor(few.corrupt)
    runs = [PortableRun(model, few.clean, donor)]
    effects = [run.measure(keep, readout).metric - run.unpatched(readout).metric for run in runs]
    if model.weights is not None:
        exact = ExactRun(model.weights, few.clean, donor, model.memory)
        effects.append(exact.measure(keep, readout).metric - exact.unpatched(readout).metric)
    gap = float((effects[0] - effects[1]).abs().median()) if len(effects) == 2 else None
    return Rounding(str(model.dtype).removeprefix("torch."), gap, float(effects[-1].abs().median()))


def rounding_work(model: Model, batch: Batch, metric: Metric) -> Work | None:
    """What `rounding` runs; None where it runs nothing."""
    if model.dtype in (torch.float32, torch.float64):
        return None
    few, keep = _asked(model, batch)
    readout, donor = Readout(few, metric), resample_donor(few.corrupt)
    runs: list[ExactAccount | PortableAccount] = [PortableAccount(model, few.clean, donor)]
    if model.weights is not None:
        runs.append(account(model, few.clean, donor))
    return total([run.begun + run.measure(keep, readout) for run in runs])


def _asked(model: Model, batch: Batch) -> tuple[Batch, Bool[Tensor, "row component"]]:
    components = model.graph.components
    return batch.until(PROMPTS), all_but_one(model.graph, components[:: -(-len(components) // COMPONENTS)])
