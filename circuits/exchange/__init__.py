"""Foreign formats, one file each: circuits as other programs read and write them.

Installed packages add theirs by the entry-point group `circuit.formats`.
"""

from __future__ import annotations

from circuits.registry import Registry

FORMATS = Registry(
    kind="format",
    package="circuits.exchange",
    attribute="FORMAT",
    without=frozenset({"format", "fields", "files", "run_folder"}),
    group="circuit.formats",
    noun="circuits.exchange.format:Format",
)
