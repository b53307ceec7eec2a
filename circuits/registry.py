"""Named things, one file each: the file `logit_attribution.py` of a package is the entry `logit-attribution`.

Names come from the file system, and those of what installed packages bring from their entry points, so listing them
imports nothing; loading one imports its file alone.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from circuits.errors import CircuitError, UnknownNameError


@dataclass(frozen=True)
class Registry:
    """The modules of `package` that hold an entry: `attribute` is the name of the value that each defines.

    group: the entry points by which installed packages add entries; a built-in one wins over a package's.
    noun: the type that theirs must have, as module:name.
    """

    kind: str
    package: str
    attribute: str
    without: frozenset[str] = frozenset()
    group: str = ""
    noun: str = "builtins:object"

    def names(self) -> tuple[str, ...]:
        """All entry names, sorted, without importing them."""
        return tuple(sorted({*self._files(), *packaged(self.group)}))

    def load(self, name: str) -> Any:
        """The entry called `name`. Raises UnknownNameError with the nearest known name."""
        if name in self._files():
            module = importlib.import_module(f"{self.package}.{name.replace('-', '_')}")
            return getattr(module, self.attribute)
        if name in packaged(self.group):
            return self._from_package(packaged(self.group)[name])
        raise UnknownNameError(self.kind, name, self.names())

    def _files(self) -> frozenset[str]:
        path = importlib.import_module(self.package).__path__
        modules = (m.name for m in pkgutil.iter_modules(path) if not m.ispkg)
        return frozenset(m.replace("_", "-") for m in modules if m not in self.without)

    def _from_package(self, entry: Any) -> Any:
        """The entry goes by the entry point's name. Raises CircuitError where it cannot be imported, or is none."""
        try:
            found = entry.load()
        except Exception as error:
            raise CircuitError(
                f"The {self.kind} {entry.name} of an installed package ({entry.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}."
            ) from error
        wanted: type = pkgutil.resolve_name(self.noun)
        if not isinstance(found, wanted):
            raise CircuitError(
                f"The entry point {entry.name} ({entry.value}) names a {type(found).__name__}, not a {self.kind}. "
                f"Let it name a {wanted.__name__}, as docs/extending.md shows."
            )
        renamed: Any = found
        return replace(renamed, name=entry.name)


@cache
def packaged(group: str) -> dict[str, Any]:
    """Name -> entry point of what installed packages bring. Imports none of them."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=group)} if group else {}
