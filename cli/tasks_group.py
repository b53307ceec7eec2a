"""`circuit tasks`, `circuit tasks NAME` and `circuit tasks import FILE`: a group whose first word may be a task."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from cli.import_prompts import import_prompts
from cli.listings import tasks

SHOW = "show"


class TasksOrCommand(TyperGroup):
    """Words that do not begin with a command are those of the listing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else [SHOW, *args])


tasks_app = typer.Typer(
    name="tasks", cls=TasksOrCommand, help="List the built-in tasks; show one; say what a prompt file holds."
)
tasks_app.command(SHOW)(tasks)
tasks_app.command("import")(import_prompts)
