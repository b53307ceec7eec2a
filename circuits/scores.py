"""Scores: one real number for each component of a model, and how far to trust it.

The one convention of the project: **positive means that the component supports the behaviour**
(corrupting it lowers the metric). No torch here: scores are numpy, so comparisons need no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from circuits.circuit import Circuit
from circuits.errors import CircuitError


@dataclass(frozen=True)
class Scores:
    """What one method says of every component.

    components: node names, in the order of the columns.
    samples: one row a prompt (or a trial, see `unit`); a component's score is the mean of its column.
    unit: "prompt" or "trial", what the rows are independent draws of.
    by_position: position label -> mean score of every component there; empty where not asked for.
    details: what the method has to say beside the scores, ready for JSON (controls, options, notes).
    links: (source, target) -> score of what flows between two nodes, where the method measures it.
    edges: scores of every edge it measures, where it does; components are then edge names (circuits.graph).
    circuit: the one that the method itself chooses, where it does.
    parts: scores of what is finer than a component, such as the inputs of heads; named as the method says.
    artifacts: file stem -> tensors by name, what the method learned and a run folder may keep as safetensors.
    tables: name -> columns, what else it saw that a run folder has a table for (circuits.runs.TABLES).
    """

    method: str
    components: tuple[str, ...]
    samples: Float[np.ndarray, "sample component"]
    unit: str = "prompt"
    by_position: Mapping[str, Float[np.ndarray, "component"]] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)
    links: Mapping[tuple[str, str], float] = field(default_factory=dict)
    artifacts: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    parts: Scores | None = None
    edges: Scores | None = None
    circuit: Circuit | None = None

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[1] != len(self.components):
            raise ValueError(f"samples {self.samples.shape} do not fit {len(self.components)} components")
        if not np.isfinite(self.samples).all():
            bad = [
                c for c, ok in zip(self.components, np.isfinite(self.samples).all(0), strict=True) if not ok
            ]
            raise CircuitError(
                f"{self.method} gives no finite score for {', '.join(bad[:5])}: the model's activations overflow. "
                "Load it with --dtype float32."
            )

    @cached_property
    def values(self) -> Float[np.ndarray, "component"]:
        return np.asarray(self.samples.mean(0))

    @cached_property
    def stderr(self) -> Float[np.ndarray, "component"]:
        """Standard error of each mean; zero where there is a single sample."""
        n = len(self.samples)
        return self.samples.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(len(self.components))

    def of(self, component: str) -> float:
        return float(self.values[self.components.index(component)])

    def stderr_of(self, component: str) -> float:
        return float(self.stderr[self.components.index(component)])

    def ranking(self) -> tuple[str, ...]:
        """Components by size of score, largest first; ties in the order of the graph."""
        order = np.argsort(-np.abs(self.values), kind="stable")
        return tuple(self.components[i] for i in order)
