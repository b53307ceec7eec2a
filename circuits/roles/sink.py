"""Attention sinks: a head that has nothing to do looks at the first token.

Score: mean attention from every later token to the first. Chance: even attention. A high score says that the head is
at rest on these prompts, not that it always is.
Source: Xiao et al. 2023 (Efficient Streaming Language Models with Attention Sinks, arXiv 2309.17453); sinks at other
places, as ACT (arXiv 2406.15765) moves them, show as `future-influence`.
"""

from __future__ import annotations

from circuits.roles.role import Evidence, Measured, Role
from circuits.roles.statistics import over_patterns


def measure(evidence: Evidence) -> Measured:
    return over_patterns(evidence, lambda pattern: pattern[..., 1:, 0].mean(-1))


ROLE = Role(
    name="sink",
    definition="attention from every later token to the first",
    paper="Xiao et al. 2023, arXiv 2309.17453",
    measure=measure,
)
