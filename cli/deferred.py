"""Commands whose modules are imported when they are called; a list of commands needs names and summaries alone.

The one idea: all that typer does with a command, but for showing it in a list, begins with its context. So the entry
of a list is a command without options that makes the context of the real one.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command, get_group


def add_command(app: typer.Typer, name: str, place: str, summary: str) -> None:
    """place: of the function, or of the group, as module:name. summary: the first sentences of its help."""
    app.command(name, help=summary, cls=Deferred)(_finder(place))


def _finder(place: str) -> Callable[[], Any]:
    return lambda: pkgutil.resolve_name(place)


class Deferred(TyperCommand):
    """An entry of a list of commands; its callback finds what it stands for."""

    def command(self) -> Any:
        """The real command, its module imported."""
        assert self.callback
        found = self.callback()
        if isinstance(found, typer.Typer):
            return get_group(found)
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(found)
        return get_command(alone)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.command().make_context(info_name, args, parent, **extra)
