"""Prompts of a task for a command of the weights group: the first half to fit on, the second to judge on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.batches import Batch
    from circuits.metrics import Metric
    from circuits.models.bridge import BridgeModel
    from circuits.prompts import PromptPair


@dataclass(frozen=True)
class Drawn:
    """Prompts of one task for one model."""

    model: BridgeModel
    pairs: tuple[PromptPair, ...]
    form: str
    metric: Metric

    @property
    def batches(self) -> tuple[Batch, ...]:
        from circuits.batches import make_batches

        return make_batches(self.model, self.pairs)

    @property
    def halves(self) -> tuple[tuple[Batch, ...], tuple[Batch, ...]]:
        from circuits.batches import make_batches

        half = len(self.pairs) // 2
        return make_batches(self.model, self.pairs[:half]), make_batches(self.model, self.pairs[half:])


def batches_of(model: BridgeModel, task: str, form: str | None, n: int, seed: int, what: str) -> Drawn:
    """Raises CircuitError where there are no such prompts for the model, or the exact engine does not serve it.

    what: needs the engine, and answers of one token.
    """
    from circuits.batches import require_single_tokens
    from circuits.metrics import metric_named
    from circuits.patching import require_engine
    from cli.prompt_source import sample_task
    from tasks import TASKS

    drawn = sample_task(model, TASKS.load(task), form=form, corruption=None, n=n, seed=seed)
    found = Drawn(model, drawn.pairs, drawn.form, metric_named(drawn.metric))
    require_single_tokens(found.batches, what)
    require_engine(model, found.batches, what)
    return found
