"""How far back a head looks: local heads a token or two, global ones across the prompt.

Score: mean over queries of the mean distance of their attention, in tokens, not a share. Chance: even attention. The
paper calls the 30 % of heads with the least distance local, the 30 % with the most global. A head that rests on the
first token is far-looking by this measure and reads nothing there: see `sink`.
Source: Attention Illuminates LLM Reasoning (arXiv 2510.13554), d(l, h); over whole prompts instead of responses.
"""

from __future__ import annotations

from circuits.roles.role import Evidence, Measured, Role
from circuits.roles.statistics import distance, over_patterns


def measure(evidence: Evidence) -> Measured:
    return over_patterns(evidence, lambda pattern: distance(pattern).mean(-1))


ROLE = Role(
    name="distance",
    definition="how far back attention goes, in tokens",
    paper="Attention Illuminates LLM Reasoning, arXiv 2510.13554",
    measure=measure,
)
