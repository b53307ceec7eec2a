"""The methods, one file each: a way to score the components of a model on prompts.

Installed packages add theirs by the entry-point group `circuit.methods`.
"""

from __future__ import annotations

from circuits.registry import Registry

METHODS = Registry(
    kind="method",
    package="circuits.methods",
    attribute="METHOD",
    without=frozenset({"method"}),
    group="circuit.methods",
    noun="circuits.methods.method:Method",
)
