"""Formats of prompt files, one file each."""

from __future__ import annotations

from circuits.registry import Registry

FORMATS = Registry(
    kind="format of prompt files",
    package="circuits.prompt_files.formats",
    attribute="FORMAT",
    without=frozenset({"format"}),
)
