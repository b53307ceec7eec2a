"""Induction heads: a token that was said before looks at what came next then.

Score (prefix matching): mean attention from the second saying of each token to the token behind its first, on
random tokens that are said twice over. Source: Olsson et al. 2022 (In-context Learning and Induction Heads).
"""

from __future__ import annotations

import torch

from circuits.roles.attention import over_repeats
from circuits.roles.role import Evidence, Measured, Role


def measure(evidence: Evidence) -> Measured:
    first = torch.arange(len(evidence.opening), len(evidence.opening) + evidence.period)
    return over_repeats(evidence, first + evidence.period, first + 1)


ROLE = Role(
    name="induction",
    definition="attention from the second of a repeated random token to the token behind its first",
    paper="Olsson et al. 2022, In-context Learning and Induction Heads",
    measure=measure,
)
