"""Induction heads, as RazorAttention tells them: a token looks behind all earlier sayings of itself.

Score: attention from each token of the second to fourth saying of a random block to the tokens behind its earlier
occurrences, together. Chance: even attention. A head at a fixed distance of one block less one scores as well: the
period is fixed, so confirm by the masking test.
Source: RazorAttention (arXiv 2407.15891) and its authors' code; it keeps the KV groups of the first 14 % of heads.
"""

from __future__ import annotations

from circuits.roles.repeats import over_blocks
from circuits.roles.role import Evidence, Measured, Role


def measure(evidence: Evidence) -> Measured:
    return over_blocks(evidence, after=1)


ROLE = Role(
    name="razor-induction",
    definition="attention from a random token, said four times over, to what stands behind its earlier occurrences",
    paper="RazorAttention, arXiv 2407.15891",
    measure=measure,
)
