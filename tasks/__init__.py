"""The built-in tasks, one file each: `tasks/colored_objects.py` defines TASK, the task `colored-objects`."""

from __future__ import annotations

from circuits.registry import Registry

TASKS = Registry(
    kind="task",
    package="tasks",
    attribute="TASK",
    without=frozenset({"task", "words", "facts", "templates", "held_out", "sampling"}),
)
