"""Named things, one file each: the file `logit_attribution.py` of a package is the entry `logit-attribution`.

Names come from the file system, so listing them imports nothing; loading one imports its file alone.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any

from circuits.errors import UnknownNameError


@dataclass(frozen=True)
class Registry:
    """The modules of `package` that hold an entry: `attribute` is the name of the value that each defines."""

    kind: str
    package: str
    attribute: str
    without: frozenset[str] = frozenset()

    def names(self) -> tuple[str, ...]:
        """All entry names, sorted, without importing them."""
        path = importlib.import_module(self.package).__path__
        modules = (m.name for m in pkgutil.iter_modules(path) if not m.ispkg)
        return tuple(sorted(m.replace("_", "-") for m in modules if m not in self.without))

    def load(self, name: str) -> Any:
        """The entry called `name`. Raises UnknownNameError with the nearest known name."""
        if name not in self.names():
            raise UnknownNameError(self.kind, name, self.names())
        module = importlib.import_module(f"{self.package}.{name.replace('-', '_')}")
        return getattr(module, self.attribute)
