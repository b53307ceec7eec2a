"""Retrieval heads: while the model copies a token from its prompt, they look at it more than at anything else.

Score: share of the needle's tokens that the model says while the head's largest attention is on the very token that
is said, within the needle; mean over the tests that the model passes (see circuits.roles.needles). Chance: that the
largest attention falls on any position alike. Looking is not writing: a head may look and write nothing that is read,
so the masking test (`--mask-top`) stands beside it.
Source: Wu et al. 2024 (Retrieval Head Mechanistically Explains Long-Context Factuality, arXiv 2404.15574).
"""

from __future__ import annotations

from torch import Tensor

from circuits.roles.needles import ABSENT, Said, over_retrievals
from circuits.roles.role import Evidence, Measured, Role


def copies(said: Said) -> tuple[Tensor, Tensor]:
    """[test, head]: 1 where the most attended position holds what was said; and chance."""
    best, right = said.looks.argmax(-1), said.copied.float()
    return right.gather(1, best), right.mean(1)


def measure(evidence: Evidence) -> Measured | None:
    return over_retrievals(evidence, copies)


ROLE = Role(
    name="retrieval",
    definition="share of copied tokens that the head looks at most while they are said, in needle tests passed",
    paper="Wu et al. 2024, arXiv 2404.15574",
    measure=measure,
    absent=ABSENT,
)
