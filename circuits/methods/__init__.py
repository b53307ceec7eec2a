"""The methods, one file each: a way to score the components of a model on prompts."""

from __future__ import annotations

from circuits.registry import Registry

METHODS = Registry(
    kind="method", package="circuits.methods", attribute="METHOD", without=frozenset({"method"})
)
