"""What can go wrong, as a tree. The command line turns every CircuitError into one message and exit code 2.

CircuitError            the user's mistake: says what, which value, what next
├── UnknownNameError    a task, method, model, metric or option that is not there, with "did you mean"
├── PromptError         a prompt file or a prompt pair that cannot be used
├── ModelError          a model that cannot be loaded, or lacks what a method needs
└── RunFolderError      a run folder that exists, is damaged, or cannot be written
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CircuitError(Exception):
    """A mistake that the user can mend; its text names the value and the way out."""


class UnknownNameError(CircuitError):
    """A name that no registry holds."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"There is no {kind} {name!r}.{hint} Known: {', '.join(names)}.")


class PromptError(CircuitError):
    """A prompt file or a prompt pair that cannot be used."""


class ModelError(CircuitError):
    """A model that cannot be loaded, or that lacks what a method needs."""


class RunFolderError(CircuitError):
    """A run folder that exists already, is damaged, or cannot be written."""
