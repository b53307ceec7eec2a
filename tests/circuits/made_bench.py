"""A bench of made-up numbers: what a circuit gives on each prompt is a function of what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from fake_model import Bare

from circuits.donors import zero_donor
from circuits.evaluation.faithfulness import Bench
from circuits.graph import Graph
from circuits.metrics import logit_difference
from circuits.progress import Progress, silent
from circuits.readout import Outcome

Worth = Callable[[frozenset[str]], np.ndarray]
"""What a circuit keeps -> its metric on every prompt."""


class _Shape(Bare):
    name, d_model = "made-up", 1

    def __init__(self, graph: Graph) -> None:
        self.graph = graph


@dataclass(frozen=True)
class MadeBench(Bench):
    """worth: of what is kept; a thousandth of noise would not be made up, so there is none."""

    worth: Worth = field(kw_only=True)

    def outcome(
        self, circuits: Sequence[Iterable[str]], progress: Progress = silent, *, accuracy: bool = False
    ) -> Outcome:
        metric = torch.tensor(np.array([self.worth(frozenset(circuit)) for circuit in circuits]))
        return Outcome(metric, metric > 0, metric > 0)


def made_bench(graph: Graph, worth: Worth, *, edges: bool = False) -> MadeBench:
    """All components, or edges, may be left out."""
    played = tuple(graph.places) if edges else graph.components
    return MadeBench(
        _Shape(graph),  # type: ignore[arg-type]
        (),
        logit_difference,
        "resample",
        played,
        lambda batch: zero_donor(),
        "edge" if edges else "node",
        worth=worth,
    )
