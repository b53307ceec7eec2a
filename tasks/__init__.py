"""The tasks by name: the built-in ones, one file each, those of installed packages, and those of a user's files.

`tasks/colored_objects.py` defines TASK, the task `colored-objects`; for the others see tasks/own.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from circuits.errors import UnknownNameError
from circuits.registry import Registry


class Tasks(Registry):
    """The built-in tasks, and those that installed packages bring; a file's go by `my_task.py[:name]`."""

    def load(self, name: str) -> Any:
        """The task called `name`, or that of the file. Raises UnknownNameError, and CircuitError for a bad file."""
        from tasks.own import load_file, split_reference

        if file := split_reference(name):
            return load_file(*file)
        return super().load(name)

    def require(self, name: str, others: Iterable[str] = ()) -> None:
        """Raises UnknownNameError where there is no such task, and CircuitError where its file is bad.

        others: names to suggest besides those of tasks.
        """
        from tasks.own import split_reference

        if split_reference(name):
            self.load(name)
        elif name not in self.names():
            raise UnknownNameError(self.kind, name, (*self.names(), *others))


TASKS = Tasks(
    kind="task",
    package="tasks",
    attribute="TASK",
    without=frozenset(
        {"task", "own", "words", "facts", "templates", "held_out", "sampling", "mutations", "any_length"}
    ),
    group="circuit.tasks",
    noun="tasks.task:Task",
)
