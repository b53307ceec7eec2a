"""The seam of every method: a named function from a model and prompts to Scores, with its typed options.

A new method is one new file in this folder that defines METHOD; nothing else is edited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from circuits.batches import Batch
from circuits.errors import CircuitError, UnknownNameError
from circuits.metrics import Metric
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.scores import Scores
from circuits.work import Workload


class Options(BaseModel):
    """Options of a method: a pydantic model whose field descriptions are shown by `circuit methods`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Problem:
    """What every method gets: the discovery half of the prompts, and how to read an answer.

    references: name of a known circuit -> its heads, for methods that state AUROC (never used to score).
    """

    batches: tuple[Batch, ...]
    metric: Metric
    seed: int = 0
    references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    progress: Progress = silent


@dataclass(frozen=True)
class Method:
    """score(model, problem, options) -> Scores; positive means that the component supports the behaviour.

    direct: it sees only what components write straight to the logits.
    granularity: what it scores, and what its circuits are made of.
    work: says what `score` is going to do for the same arguments, before it does it, and raises as it would; None
    where nobody knows.
    """

    name: str
    summary: str
    paper: str
    options: type[Options]
    score: Callable[[Model, Problem, Any], Scores]
    direct: bool = False
    granularity: Literal["node", "edge"] = "node"
    work: Callable[[Model, Problem, Any], Workload | None] = lambda model, problem, options: None

    def configure(self, settings: Mapping[str, object]) -> Options:
        """Options from `settings`; raises CircuitError that names every unknown option and bad value."""
        for key in settings:
            if key.replace("-", "_") not in self.options.model_fields:
                known = [f.replace("_", "-") for f in self.options.model_fields]
                raise UnknownNameError(f"option of {self.name}", key, known)
        try:
            return self.options.model_validate({k.replace("-", "_"): v for k, v in settings.items()})
        except ValidationError as error:
            raise CircuitError("; ".join(map(self._reason, error.errors()))) from None

    def _reason(self, problem: ErrorDetails) -> str:
        if not problem["loc"]:  # no single option is wrong, but what they say together
            return f"{self.name}: {problem['msg'].removeprefix('Value error, ')}"
        return f"{self.name}.{problem['loc'][0]}: {problem['msg']}, got {problem['input']!r}"
