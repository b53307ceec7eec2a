"""Checkpoints: the model as it is at chosen steps of its training, each a directory that loads like any other.

The one idea: a checkpoint is written between two steps and draws on none of the training's sources of chance, so the
model at the end is bit for bit that of a training without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuits.errors import CircuitError
from circuits.over_training.checkpoints import RECORD, folder_name
from circuits.records import write_json
from tasks.training.export import save_model
from tasks.training.network import Network

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Steps:
    """Which steps are kept: those of `at`, or every so many where it is empty; 0 is the start."""

    every: int = 100
    at: frozenset[int] = frozenset()

    def __contains__(self, step: int) -> bool:
        return step in self.at if self.at else step % self.every == 0

    def require_within(self, most: int) -> None:
        """Raises CircuitError for a step that training cannot reach."""
        if late := sorted(step for step in self.at if step > most):
            raise CircuitError(
                f"Step {late[0]} of --at is never reached: this training has {most} steps at most. Choose earlier."
            )


def parse_steps(every: int | None, at: str | None) -> Steps:
    """From what --every and --at say. Raises CircuitError for both, and for what is no list of steps."""
    if every is not None and at is not None:
        raise CircuitError(f"--every {every} and --at {at} are two ways to choose steps; give one of them.")
    if at is None:
        return Steps() if every is None else Steps(every)
    words = [word.strip() for word in at.split(",")]
    if bad := [word for word in words if not (word.isascii() and word.isdigit())]:
        raise CircuitError(f"--at {at}: {bad[0]!r} is no step. Give whole numbers, such as --at 0,100,500.")
    return Steps(at=frozenset(map(int, words)))


@dataclass
class Checkpoints:
    """Where they go, and which are written already. known: the model's words, all of ours where None."""

    folder: Path
    steps: Steps
    known: Sequence[str] | None = None
    written: list[int] = field(default_factory=list)

    def after_step(self, network: Network, step: int) -> None:
        """Writes the model where this step is wanted."""
        if step in self.steps:
            self._write(network, step)

    def finish(self, network: Network, stages: Mapping[str, int], about: Mapping[str, Any]) -> None:
        """The last step, wanted or not, and the record. stages: stage -> steps."""
        last = sum(stages.values())
        if last not in self.written:
            self._write(network, last)
        record = {"format_version": FORMAT_VERSION, **about, "stages": stages, "steps": self.written}
        write_json(self.folder / RECORD, record)

    def _write(self, network: Network, step: int) -> None:
        save_model(network, self.folder / folder_name(step), self.known)
        self.written.append(step)
