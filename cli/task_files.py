"""The user's own task files on the command line: `--task-file FILE`, and what a run says of the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tasks.task import Task

TaskFile = Annotated[
    Path | None,
    typer.Option(help="A Python file with your own task, a function under @task; TASK where it has several."),
]


def named_task(task: str | None, task_file: Path | None) -> str | None:
    """What TASKS knows the task of the file by, FILE or FILE:TASK; `task` itself where there is no file."""
    from circuits.errors import CircuitError

    if task_file is None:
        return task
    if task_file.suffix != ".py":
        raise CircuitError(f"--task-file {task_file} is no Python file; its name must end in .py.")
    return f"{task_file}:{task}" if task else str(task_file)


def short_name(task: str) -> str:
    """The task's own name, without its file."""
    from tasks import TASKS
    from tasks.own import split_reference

    return TASKS.load(task).name if split_reference(task) else task


def source_of(task: Task) -> dict[str, str]:
    """Name and digest of the user's file that the task stands in; empty for all others."""
    from tasks.own import OwnTask

    return {"file": task.file, "sha256": task.sha256} if isinstance(task, OwnTask) else {}
