"""The gates of a study: what its cells must keep to, beside a run that was agreed on or beside each other.

Nothing stands of a gate that was passed before: it is asked anew each time, for the baseline may have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from circuits.comparison.gates import Gate, Limits, check_gates
from circuits.comparison.sides import read_side
from circuits.errors import CircuitError
from cli.study.cells import Cell
from cli.study.spec import AXES, Check, Study, Where
from cli.wording import gate_words


def gates(study: Study, places: Mapping[Cell, Path]) -> Iterator[dict[str, Any]]:
    """A record for each gate; where one cannot be asked, a record of that."""
    for check in study.check:
        for cell in places:
            if check.where.holds(cell.place) and not _is_beside(cell, check.beside):
                yield from _asked(check, cell, places)


def _is_beside(cell: Cell, beside: Where | None) -> bool:
    """Whether the cell is itself one that others are held to."""
    return beside is not None and beside.holds(cell.place)


def _asked(check: Check, cell: Cell, places: Mapping[Cell, Path]) -> Iterator[dict[str, Any]]:
    limits = Limits(check.min_overlap, check.min_faithfulness, check.max_drift)
    where = {"cell": cell.name, "baseline": check.baseline}
    try:
        held_to = _twin(cell, check.beside, places) if check.beside else None
        where["baseline"] = held_to.name if held_to else check.baseline
        run = read_side(str(_standing(cell, places)), cell.method)
        if held_to:
            baseline = read_side(str(_standing(held_to, places)), held_to.method)
        else:
            baseline = read_side(check.baseline, cell.method) if check.baseline else run
        yield from (where | _came(gate) for gate in check_gates(baseline, run, limits, check.nodes))
    except CircuitError as problem:
        yield where | {"name": "gate", "passed": False, "problem": str(problem)}


def _came(gate: Gate) -> dict[str, Any]:
    problem = "" if gate.passed else gate_words(gate)
    return {**asdict(gate), "passed": gate.passed, "problem": problem}


def _twin(cell: Cell, beside: Where, places: Mapping[Cell, Path]) -> Cell:
    """The cell that differs in what `beside` names, and in nothing else."""
    wanted = cell.place | {axis: getattr(beside, axis)[0] for axis in AXES if getattr(beside, axis)}
    for other in places:
        if other.place == wanted:
            return other
    raise CircuitError(f"There is no cell {', '.join(map(str, wanted.values()))} to hold it to.")


def _standing(cell: Cell, places: Mapping[Cell, Path]) -> Path:
    if not places[cell].exists():
        raise CircuitError(f"There is no run of {cell.name} to check: its cell failed.")
    return places[cell]
