"""Echo heads, as RazorAttention tells them: a token looks at all earlier sayings of itself.

Score: attention from each token of the second to fourth saying of a random block to all its earlier occurrences,
together. Chance: even attention, the number of occurrences over the positions seen.
Source: RazorAttention (arXiv 2407.15891) and its authors' code; it keeps the KV groups of the first 1 % of heads.
"""

from __future__ import annotations

from circuits.roles.repeats import over_blocks
from circuits.roles.role import Evidence, Measured, Role


def measure(evidence: Evidence) -> Measured:
    return over_blocks(evidence, after=0)


ROLE = Role(
    name="razor-echo",
    definition="attention from a random token, said four times over, to all its earlier occurrences",
    paper="RazorAttention, arXiv 2407.15891",
    measure=measure,
)
