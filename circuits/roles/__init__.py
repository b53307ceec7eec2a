"""The roles of attention heads, one file each: what a head of that role does, as a number."""

from __future__ import annotations

from circuits.registry import Registry

ROLES = Registry(
    kind="role",
    package="circuits.roles",
    attribute="ROLE",
    without=frozenset(
        {
            "role",
            "attention",
            "writes",
            "needles",
            "masking",
            "repeats",
            "statistics",
            "rhythm",
            "digit_arithmetic",
            "mod_ten",
        }
    ),
)
