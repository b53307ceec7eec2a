"""Runs the cells of a study, by whichever scheduler; what stands already is not made again.

The one idea: a cell's folder is named by all that its outcome depends on and appears whole or not at all, so the
folder being there is the only record of its being done, and a study that was killed goes on where it was.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from circuits.errors import CircuitError, ModelError
from cli.guard import NO_MEMORY, out_of_memory
from cli.study.cells import Cell
from cli.study.claims import claimed

if TYPE_CHECKING:
    from circuits.discovery import Ground, Plan
    from circuits.model import Model
    from circuits.models.bridge import BridgeModel
    from circuits.models.source import ModelSource
    from circuits.progress import Progress
    from circuits.prompts import PromptPair

State = Literal["done", "kept", "failed", "elsewhere"]
GROUND = ("metric", "seed", "batch_size", "memory", "judge_on")
"""What a plan says of its ground."""
_LOOK_AGAIN = 1.0  # seconds between looks at what another process is making


@dataclass(frozen=True)
class Outcome:
    """What came of one piece of a study. problem: why it failed, empty otherwise.

    kept: it stood there already. elsewhere: another process is making it.
    """

    name: str
    folder: Path
    state: State
    seconds: float = 0.0
    problem: str = ""


class Piece(NamedTuple):
    """A cell, and where its run goes."""

    cell: Cell
    folder: Path

    def failed(self, problem: str) -> Outcome:
        return Outcome(self.cell.name, self.folder, "failed", problem=problem)


class Scheduler(Protocol):
    """Makes pieces, in any order, one outcome for each. To close the iterator is to stop what is still at work."""

    def __call__(self, pieces: Sequence[Piece], /) -> Generator[Outcome, None, None]: ...


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
    places: Mapping[Cell, Path], schedule: Scheduler, *, fail_fast: bool = False
) -> Iterator[Outcome]:
    """Every cell; one that fails stops no other, unless fail_fast. Those that other processes make come last."""
    waiting = [Piece(cell, folder) for cell, folder in places.items()]
    yield from (Outcome(p.cell.name, p.folder, "kept") for p in waiting if p.folder.exists())
    waiting = [piece for piece in waiting if not piece.folder.exists()]
    while waiting:
        elsewhere = set[Path]()
        with closing(schedule(waiting)) as outcomes:
            for outcome in outcomes:
                if outcome.state == "elsewhere":
                    elsewhere.add(outcome.folder)
                    continue
                yield outcome
                if fail_fast and outcome.state == "failed":
                    return
        waiting = [piece for piece in waiting if piece.folder in elsewhere]
        _await_any(waiting)


def _await_any(pieces: Sequence[Piece]) -> None:
    """Until another process has made one of these, or has given it up."""
    while pieces and not any(piece.folder.exists() or _is_free(piece.folder) for piece in pieces):
        time.sleep(_LOOK_AGAIN)


def _is_free(folder: Path) -> bool:
    with claimed(folder) as free:
        return free


def attempt(name: str, folder: Path, make: Callable[[], None]) -> Outcome:
    """Makes the folder unless it is there, once no other process is at it; what goes wrong is told in the outcome."""
    while (outcome := attempt_now(name, folder, make)).state == "elsewhere":
        time.sleep(_LOOK_AGAIN)
    return outcome


def attempt_now(name: str, folder: Path, make: Callable[[], None]) -> Outcome:
    """As `attempt`, but does not wait for others."""
    with claimed(folder) as free:
        if folder.exists():
            return Outcome(name, folder, "kept")
        if not free:
            return Outcome(name, folder, "elsewhere")
        start = time.perf_counter()
        problem = _problem(make)
        if problem and folder.exists():  # another process was faster, one whose claims do not reach here
            return Outcome(name, folder, "kept")
        return Outcome(name, folder, "failed" if problem else "done", time.perf_counter() - start, problem)


def _problem(make: Callable[[], None]) -> str:
    """What goes wrong with `make`; nothing where it goes well."""
    try:
        make()
    except CircuitError as problem:
        return str(problem)
    except Exception as problem:
        return NO_MEMORY if out_of_memory(problem) else traceback.format_exc()
    return ""


Make = Callable[[Piece, "Progress"], Outcome]


def make_cell(piece: Piece, show: Progress) -> Outcome:
    """The run of one cell, made in this process."""
    return attempt_now(piece.cell.name, piece.folder, partial(_discover, piece, show))


def _discover(piece: Piece, show: Progress) -> None:
    from cli.discover import discovered, prepared

    options = piece.cell.discover_options() | {"output": piece.folder}
    discovered(prepared(options, show, LAST_MODEL), show, lambda baseline: None, stand=LAST_MODEL.stand)


class LastModel:
    """Loads models, and keeps the last one for whoever asks for the same again, with the ground last laid on it."""

    def __init__(self) -> None:
        self.asked: tuple[Any, ...] = ()
        self.model: BridgeModel | None = None
        self.stood: tuple[Any, ...] = ()
        self.ground: Ground | None = None

    def __call__(self, source: ModelSource, **how: Any) -> BridgeModel:
        from circuits.models.bridge import load_model

        asked = (source, *sorted(how.items()))
        if self.model is None or asked != self.asked:
            self.model = self.ground = None  # the one before goes before the next one comes
            self.model, self.asked = load_model(source, **how), asked
        return self.model

    def stand(self, model: Model, prompts: Sequence[PromptPair], plan: Plan) -> Ground:
        """What methods share that are asked about the same prompts one after another."""
        from circuits.discovery import lay_ground

        asked = (tuple(prompts), *(getattr(plan, name) for name in GROUND))
        if self.ground is None or self.ground.model is not model or asked != self.stood:
            self.ground = None
            self.ground, self.stood = lay_ground(model, prompts, plan), asked
        return self.ground


LAST_MODEL = LastModel()
"""That of this process: cells of one model go together, and the steps after them."""
