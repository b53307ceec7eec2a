"""Cells without a model: what becomes of each is said by its method, and each one that is done is logged."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from circuits.progress import Progress
from circuits.runs import writing_run
from cli.study.cells import Cell
from cli.study.runner import Outcome, Piece, attempt_now


def pieces(folder: Path, *methods: str, model: str = "m") -> list[Piece]:
    named = [(method, Cell("t", model, method, seed, {})) for seed, method in enumerate(methods)]
    return [Piece(cell, folder / "cells" / cell.name) for _, cell in named]


def make(piece: Piece, show: Progress) -> Outcome:
    return attempt_now(piece.cell.name, piece.folder, partial(_write, piece, show))


def _write(piece: Piece, show: Progress) -> None:
    study, method = piece.folder.parents[1], piece.cell.method
    show("writing", 0, 1)
    with writing_run(piece.folder, record="run.json") as aside:
        (aside / "begun").write_text("begun")
        match method:
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "killed-once" if not (study / "killed").exists():
                (study / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            case "raises":
                raise ValueError("what a pity")
            case "too-large":
                raise MemoryError
            case "warns":
                print("mind the gap", file=sys.stderr)
            case "slow":
                time.sleep(0.3)
            case "endless":
                time.sleep(1000)
        (aside / "run.json").write_text(f"{piece.cell.name}\n")
    with (study / "log").open("a") as log:
        log.write(f"{piece.cell.name}\n")
