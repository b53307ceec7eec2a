"""Gates: what a run must keep to, beside a baseline, for a check to pass.

The one idea: a gate is one number that the run folders hold already, and a bound on it; nothing is measured anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from circuits.comparison.pairwise import jaccard
from circuits.comparison.sides import Side, granularities
from circuits.errors import CircuitError


@dataclass(frozen=True)
class Limits:
    """What is asked for; None for what is not."""

    min_overlap: float | None = None
    min_faithfulness: float | None = None
    max_drift: float | None = None


@dataclass(frozen=True)
class Gate:
    """One number and its bound. of: what the number is of, in words."""

    name: str
    value: float
    limit: float
    at_least: bool
    of: str

    @property
    def passed(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def check_gates(baseline: Side, run: Side, limits: Limits, nodes_only: bool = False) -> list[Gate]:
    """Every gate that is asked for. Raises CircuitError where none is, or a run does not hold its number."""
    if limits == Limits():
        raise CircuitError("No gate is given. Say --min-overlap, --min-faithfulness or --max-drift.")
    gates = []
    if limits.min_overlap is not None:
        kind = granularities((baseline, run), nodes_only)[-1]
        gates.append(
            Gate("overlap", jaccard(baseline, run, kind), limits.min_overlap, True, f"Jaccard of {kind}s")
        )
    if limits.min_faithfulness is not None:
        ablation, value = _faithfulness(run)
        gates.append(Gate("faithfulness", value, limits.min_faithfulness, True, f"{ablation} ablation"))
    if limits.max_drift is not None:
        gates.append(_drift(baseline, run, limits.max_drift))
    return gates


def _faithfulness(side: Side) -> tuple[str, float]:
    """The run's first ablation, and what it measured."""
    if not side.faithfulness:
        raise CircuitError(
            f"{side.name} holds no faithfulness of {side.method}, as an imported circuit does not. Check it with "
            "--min-overlap, or discover it here."
        )
    return next(iter(side.faithfulness.items()))


def _drift(baseline: Side, run: Side, limit: float) -> Gate:
    ablation, before = _faithfulness(baseline)
    _faithfulness(run)
    if ablation not in run.faithfulness:
        raise CircuitError(
            f"{baseline.name} measured faithfulness under {ablation} ablation, {run.name} under "
            f"{', '.join(run.faithfulness)}: they cannot be compared. Make both runs alike."
        )
    drift = abs(run.faithfulness[ablation] - before)
    words = f"faithfulness {run.faithfulness[ablation]:.3g} after {before:.3g}, {ablation} ablation"
    return Gate("drift", drift, limit, False, words)
