"""Runs the cells of a study, one after another; what stands already is not made again.

The one idea: a cell's folder is named by all that its outcome depends on and appears whole or not at all, so the
folder being there is the only record of its being done, and a study that was killed goes on where it was.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from circuits.errors import CircuitError, ModelError, RunFolderError
from cli.study.cells import Cell

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from circuits.models.source import ModelSource
    from circuits.progress import Progress

State = Literal["done", "kept", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What came of one piece of a study. kept: it stood there already. problem: why it failed, empty otherwise."""

    name: str
    folder: Path
    state: State
    seconds: float = 0.0
    problem: str = ""


def place_cells(study_cells: Sequence[Cell], output: Path) -> dict[Cell, Path]:
    """Where each cell's run goes. Raises CircuitError that names every model that is not there."""
    from circuits.models.source import find_model, weights_hash

    sources: dict[str, ModelSource] = {}
    problems = []
    for model in dict.fromkeys(cell.model for cell in study_cells):
        try:
            sources[model] = find_model(model)
        except ModelError as problem:
            problems.append(str(problem))
    if problems:
        raise ModelError("\n".join(problems))
    weights = {model: weights_hash(source.directory) for model, source in sources.items()}
    return {cell: output / "cells" / f"{cell.name}-{cell.key(weights[cell.model])}" for cell in study_cells}


def run_cells(
    places: dict[Cell, Path], show: Progress, *, fail_fast: bool = False, load: LastModel | None = None
) -> Iterator[Outcome]:
    """Every cell in turn; one that fails stops no other, unless fail_fast."""
    load = load or LastModel()
    for cell, folder in places.items():
        outcome = attempt(cell.name, folder, partial(_discover, cell, folder, show, load))
        yield outcome
        if fail_fast and outcome.state == "failed":
            return


def attempt(name: str, folder: Path, make: Callable[[], None]) -> Outcome:
    """Makes the folder unless it is there; what goes wrong is told in the outcome."""
    if folder.exists():
        return Outcome(name, folder, "kept")
    start = time.perf_counter()
    try:
        make()
    except CircuitError as problem:
        if isinstance(problem, RunFolderError) and folder.exists():  # another process was faster
            return Outcome(name, folder, "kept")
        return Outcome(name, folder, "failed", time.perf_counter() - start, str(problem))
    except Exception:
        return Outcome(name, folder, "failed", time.perf_counter() - start, traceback.format_exc())
    return Outcome(name, folder, "done", time.perf_counter() - start)


def _discover(cell: Cell, folder: Path, show: Progress, load: LastModel) -> None:
    from cli.discover import discovered, prepared

    options = cell.discover_options() | {"output": folder}
    discovered(prepared(options, show, load), show, lambda baseline: None)


class LastModel:
    """Loads models, and keeps the last one for whoever asks for the same again."""

    def __init__(self) -> None:
        self.asked: tuple[Any, ...] = ()
        self.model: BridgeModel | None = None

    def __call__(self, source: ModelSource, **how: Any) -> BridgeModel:
        from circuits.models.bridge import load_model

        asked = (source, *sorted(how.items()))
        if self.model is None or asked != self.asked:
            self.model = None  # the one before goes before the next one comes
            self.model, self.asked = load_model(source, **how), asked
        return self.model
