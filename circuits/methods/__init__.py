"""The methods, one file each: a way to score the nodes of a model on a task."""

from __future__ import annotations

from circuits.registry import Registry

METHODS = Registry(kind="method", package="circuits.methods", attribute="METHOD", without=frozenset({"method"}))
