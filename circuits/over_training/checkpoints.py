"""Checkpoints of one training: the model directories of a folder, by their steps.

The one idea: the step is the number at the end of a directory's name, ours (step-000500) or that of another trainer
(checkpoint-500, step500), so any folder of saved models will do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from circuits.errors import CircuitError
from circuits.models.source import check_directory
from circuits.records import read_json

RECORD = "checkpoints.json"
"""By which a folder that `circuit train --checkpoints` wrote is known."""

_NAME = re.compile(r"(?:.*[^0-9])?([0-9]+)")


def folder_name(step: int) -> str:
    """step-000500."""
    return f"step-{step:06d}"


@dataclass(frozen=True)
class Checkpoint:
    """The model after `step` steps."""

    step: int
    directory: Path


@dataclass(frozen=True)
class Training:
    """Checkpoints, first to last. stages: stage -> its steps, where that is known."""

    name: str
    checkpoints: tuple[Checkpoint, ...]
    stages: Mapping[str, int] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(checkpoint.step for checkpoint in self.checkpoints)


def find_checkpoints(folder: Path) -> Training:
    """The training whose models lie in `folder`.

    Raises CircuitError where there are fewer than two, or two of one step, ModelError where one is not complete.
    """
    if not folder.is_dir():
        raise CircuitError(
            f"There is no folder {folder}. circuit train plain-4l --output MODEL --checkpoints {folder} writes one."
        )
    found: dict[int, Path] = {}
    for path in sorted(p for p in folder.iterdir() if (p / "config.json").is_file()):
        if (match := _NAME.fullmatch(path.name)) is None:
            continue
        if (step := int(match[1])) in found:
            raise CircuitError(
                f"{found[step].name} and {path.name} in {folder} are both step {step}. Move one of them elsewhere."
            )
        check_directory(path)
        found[step] = path
    if len(found) < 2:
        raise CircuitError(
            f"{folder} holds {len(found)} checkpoints, and a timeline needs two: model directories whose names "
            "end in their step, such as step-000500 or checkpoint-500."
        )
    checkpoints = tuple(Checkpoint(step, found[step]) for step in sorted(found))
    return Training(folder.resolve().name, checkpoints, _stages(folder))


def _stages(folder: Path) -> dict[str, int]:
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    return {str(name): int(steps) for name, steps in record.get("stages", {}).items()}
