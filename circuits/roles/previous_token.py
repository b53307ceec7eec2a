"""Previous-token heads: each token looks at the one before it.

Score: mean attention from position i to i - 1, on sequences of random tokens, over all i whose predecessor is such
a token too. Source: Elhage et al. 2021; Olsson et al. 2022 (In-context Learning and Induction Heads), appendix.
"""

from __future__ import annotations

import torch

from circuits.roles.attention import over_repeats
from circuits.roles.role import Evidence, Measured, Role


def measure(evidence: Evidence) -> Measured:
    queries = torch.arange(len(evidence.opening) + 1, evidence.repeated.shape[1])
    return over_repeats(evidence, queries, queries - 1)


ROLE = Role(
    name="previous-token",
    definition="attention from each random token to the one before it",
    paper="Olsson et al. 2022, In-context Learning and Induction Heads",
    measure=measure,
)
