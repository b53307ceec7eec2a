"""Duplicate-token heads: a token that was said before looks at where that was.

Score: mean attention from the second saying of each token to its first, on random tokens that are said twice over.
Source: Wang et al. 2022 (Interpretability in the Wild), section 3.3 and appendix.
"""

from __future__ import annotations

import torch

from circuits.roles.attention import over_repeats
from circuits.roles.role import Evidence, Measured, Role


def measure(evidence: Evidence) -> Measured:
    first = torch.arange(len(evidence.opening), len(evidence.opening) + evidence.period)
    return over_repeats(evidence, first + evidence.period, first)


ROLE = Role(
    name="duplicate-token",
    definition="attention from the second of a repeated random token to its first",
    paper="Wang et al. 2022, arXiv 2211.00593",
    measure=measure,
)
