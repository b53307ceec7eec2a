"""Cells on this machine: in this process, or in several of their own, one cell each at a time.

The one idea: a worker is a process at the other end of a pipe. It may die without the study: the pipe ends, its cell
fails by name, and another worker takes its place.
"""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, NamedTuple

import psutil

from cli.study.runner import Make, Outcome, Piece, make_cell

if TYPE_CHECKING:
    from circuits.progress import Progress
    from cli.study.cells import Cell

Told = Callable[[str, str, int, int], None]
"""Progress, after the name of the piece that it is of."""
_PATIENCE = 5.0  # seconds in which a worker that is asked to stop takes its half-written folder away
_SAY_AGAIN = 0.2  # seconds between two words of a worker about its progress


@dataclass(frozen=True)
class Workers:
    """n: how many processes; None: this one. make: makes a piece in whichever process it is called."""

    n: int | None
    told: Told
    make: Make = make_cell

    def __call__(self, pieces: Sequence[Piece], /) -> Generator[Outcome, None, None]:
        if self.n is None:
            yield from (self.make(piece, partial(self.told, piece.cell.name)) for piece in pieces)
            return
        crew: list[_Worker] = []
        try:
            yield from self._shared_out(list(pieces), crew, min(self.n, len(pieces)))
        finally:
            _dismiss(crew)

    def _shared_out(self, waiting: list[Piece], crew: list[_Worker], n: int) -> Iterator[Outcome]:
        while waiting or any(worker.piece for worker in crew):
            crew += [_Worker(n, self.make) for _ in range(min(n - len(crew), len(waiting)))]
            for worker in crew:
                if worker.piece is None and waiting:
                    others = [other.last for other in crew if other.last and other is not worker]
                    piece = next_piece(waiting, worker.last, others)
                    worker.take(piece)
                    self.told(piece.cell.name, "", 0, 0)
            for worker in _with_news(crew):
                outcome = worker.hear(self.told)
                if worker.dead:
                    crew.remove(worker)
                if outcome is not None:
                    yield outcome


def next_piece(waiting: list[Piece], last: Cell | None, others: Sequence[Cell]) -> Piece:
    """What shares most with the worker's last cell, else what no other is at, else of the model with most to do."""
    models = [piece.cell.model for piece in waiting]

    def rank(piece: Piece) -> tuple[bool | int, ...]:
        cell = piece.cell
        return (
            last is None or cell.ground != last.ground,
            last is None or cell.model != last.model,
            any(cell.model == other.model for other in others),
            any(cell.ground == other.ground for other in others),
            -models.count(cell.model),
        )

    return waiting.pop(waiting.index(min(waiting, key=rank)))


class _Worker:
    """last: the cell that it was given last. piece: what it is at."""

    def __init__(self, among: int, make: Make) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs, among, make), daemon=True)
        self.process.start()
        theirs.close()
        self.dead = False
        self.last: Cell | None = None
        self.piece: Piece | None = None

    def take(self, piece: Piece) -> None:
        self.piece, self.last = piece, piece.cell
        with contextlib.suppress(OSError):  # one that has died is found out by its pipe
            self.pipe.send(piece)

    def hear(self, told: Told) -> Outcome | None:
        """Its next word: an outcome, the failure that its death is, or nothing but how far it is."""
        piece = self.piece
        try:
            word: Made | tuple[str, int, int] = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            self.dead = True
            return piece and piece.failed(_death(self.process.exitcode))
        if isinstance(word, Made):
            self.piece = None
            return pass_on(word)
        if piece is not None:
            told(piece.cell.name, *word)
        return None


def _with_news(crew: list[_Worker]) -> list[_Worker]:
    ready = wait([worker.pipe for worker in crew])
    return [worker for worker in crew if worker.pipe in ready]


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    return (
        f"Its process {how}. Where memory ran short, try fewer --workers, or a smaller memory or batch-size."
    )


def _dismiss(crew: list[_Worker]) -> None:
    """Stops them; whoever is at work takes away what is half done, if that is quick."""
    for worker in crew:
        worker.process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for worker in crew:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()


class Made(NamedTuple):
    """An outcome, and what was said on stderr on the way to it."""

    outcome: Outcome
    said: str


def made(piece: Piece, show: Progress, make: Make) -> Made:
    """The run of one cell, made in a worker, which has no terminal of its own."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        outcome = make(piece, show)
    return Made(outcome, said.getvalue())


def pass_on(word: Made) -> Outcome:
    """Says here what a worker said there."""
    sys.stderr.write(word.said)
    return word.outcome


def _work(pipe: Connection, among: int, make: Make) -> None:
    """A worker's life: makes what comes through the pipe until it ends. among: who share the processor's cores."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal sends it to all; whoever started this one decides
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_stop_when_orphaned, daemon=True).start()
    _share_cores(among)
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            pipe.send(made(pipe.recv(), _Words(pipe), make))
    gc.freeze()  # as in cli.main


def _share_cores(among: int) -> None:
    """Says how many threads to start, to a torch that is not imported yet."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(asked) if asked.isdigit() else psutil.cpu_count(logical=False) or 1
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // among))


def _stop_when_orphaned() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class _Words:
    """Progress through a pipe, now and then."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._said = pipe, 0.0

    def __call__(self, what: str, done: int, total: int, /) -> None:
        if time.monotonic() - self._said > _SAY_AGAIN:
            self._said = time.monotonic()
            self._pipe.send((what, done, total))
