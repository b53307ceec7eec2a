"""Cells as Ray tasks, on this machine or on a cluster that shares the disk or a URL (the optional extra `ray`).

The one idea: a task is what a worker of this machine does, so the folder is the same byte for byte; Ray decides where
it runs, and starts it again where its worker dies.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.errors import CircuitError
from circuits.progress import silent
from cli.study.claims import claim_of
from cli.study.runner import Make, Outcome, Piece, make_cell
from cli.study.workers import Made, Told, made, pass_on

RETRIES = 2
_LOOK_AGAIN = 1.0  # seconds between looks at which cells have begun


def require_ray() -> None:
    """Raises CircuitError where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise CircuitError("--ray needs Ray, which is not installed: pip install '.[ray]'.")


@dataclass(frozen=True)
class RayWorkers:
    """address: local, auto, or a cluster's. gpus: the share of a GPU that a cell asks for.

    fetch: brings a folder here that was made on a machine that does not share this one's disk.
    """

    address: str
    gpus: float
    told: Told
    make: Make = make_cell
    fetch: Callable[[Path], None] = lambda folder: None

    def __call__(self, pieces: Sequence[Piece], /) -> Generator[Outcome, None, None]:
        # Ray speaks of dead workers on stdout, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            ray = _connected(self.address)
            try:
                yield from self._results(ray, pieces)
            finally:
                ray.shutdown()

    def _results(self, ray: Any, pieces: Sequence[Piece]) -> Generator[Outcome, None, None]:
        # Not one call a worker, which is Ray's way with GPUs: the next cell may be of the same model.
        task = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=RETRIES, max_calls=0)(_make)
        running = {task.remote(_absolute(piece), Path.cwd(), self.make): piece for piece in pieces}
        while running:
            ready, _ = ray.wait(list(running), timeout=_LOOK_AGAIN)
            for piece in running.values():
                if claim_of(piece.folder).exists():
                    self.told(piece.cell.name, "", 0, 0)
            for reference in ready:
                yield self._outcome(ray, reference, running.pop(reference))

    def _outcome(self, ray: Any, reference: Any, piece: Piece) -> Outcome:
        try:
            outcome = pass_on(ray.get(reference))
        except ray.exceptions.RayError as problem:
            return piece.failed(
                f"Its Ray worker failed {RETRIES + 1} times: {str(problem).strip().splitlines()[0]}"
            )
        if outcome.state in ("done", "kept"):
            self.fetch(piece.folder)
            if not piece.folder.exists():
                return piece.failed(
                    f"It was made on a machine that does not share {piece.folder.parent} with this one. Share the "
                    "disk, or give a URL that both reach as --output."
                )
        return Outcome(outcome.name, piece.folder, outcome.state, outcome.seconds, outcome.problem)


def _connected(address: str) -> Any:
    """Ray itself. Raises CircuitError where there is none at the address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A cell that is too large is too large every time.
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise CircuitError(f"There is no Ray at {address}: {str(problem).strip().splitlines()[0]}") from None
    return ray


def _absolute(piece: Piece) -> Piece:
    return piece._replace(folder=piece.folder.absolute())


def _make(piece: Piece, here: Path, make: Make) -> Made:
    """The task. here: where paths begin that the study names."""
    if here.is_dir():
        os.chdir(here)
    return made(piece, silent, make)
