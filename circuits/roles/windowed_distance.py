"""Windowed distance (WAAD) of a head: how far back it looks, where further than ten tokens is no further.

Score: mean over queries of the attention-weighted distance, each distance cut at 10, in tokens. Chance: even
attention. A head on the previous token has 1, one that looks at itself 0, one that looks far 10.
Source: Attention Illuminates LLM Reasoning (arXiv 2510.13554): there a number by token, of local heads together.
"""

from __future__ import annotations

from circuits.roles.role import Evidence, Measured, Role
from circuits.roles.statistics import WINDOW, distance, over_patterns


def measure(evidence: Evidence) -> Measured:
    return over_patterns(evidence, lambda pattern: distance(pattern, WINDOW).mean(-1))


ROLE = Role(
    name="windowed-distance",
    definition="how far back attention goes, in tokens, anything beyond ten counted as ten (WAAD)",
    paper="Attention Illuminates LLM Reasoning, arXiv 2510.13554",
    measure=measure,
)
