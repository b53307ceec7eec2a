"""What a method will take where nothing counts it: the method itself on a few prompts.

The one idea: the cost of most methods grows with the tokens that they see and with nothing else, so a few prompts of
the longest tell the price of all. Not for methods whose path depends on what they find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from circuits.methods.method import Problem
from circuits.model import Model
from circuits.progress import silent
from circuits.scores import Scores
from circuits.work import Rehearsal, Work, Workload

FEW = 2
"""Prompts that are tried."""


def rehearsed(
    score: Callable[[Model, Problem, Any], Scores],
    model: Model,
    problem: Problem,
    options: Any,
    components: Sequence[str] | None = None,
    share: float = 1.0,
    prompts: int = FEW,
) -> Workload:
    """The workload of `score`, as it will be told by trying; raises as `score` does, when it is tried.

    components: those that get a score, all where None. share: of the whole work, what `score` does as it is given.
    prompts: how many are tried.
    """
    batch = max(problem.batches, key=lambda b: b.clean.numel()).until(prompts)
    times = sum(b.clean.numel() for b in problem.batches) / batch.clean.numel()
    some = replace(problem, batches=(batch,), progress=silent)
    tried = Rehearsal(partial(score, model, some, options), times / share)
    return Workload(tuple(components or model.graph.components), Work(), (tried,))
