"""Semantic retrieval heads: while the model copies a token of an answer, they look at the answer as a whole.

Score: attention, from the position that says a token of the needle, to all of the needle; 0 for tokens that are
not of it; mean over the needle's length and the tests that the model passes (see circuits.roles.needles). Chance:
even attention. The paper's sum over tokens is divided by the needle's length, which is ours: it bounds the score.
Source: CompressKV (arXiv 2508.02401) and its code, which keeps the first four heads of each layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuits.roles.needles import ABSENT, Said, over_retrievals
from circuits.roles.role import Evidence, Measured, Role


def attends(said: Said) -> tuple[Tensor, Tensor]:
    """[test, head]: attention to the whole needle where a token of it is said; and that of even attention."""
    needle, hit = said.needle.float(), said.copied.any(1).float()
    return torch.einsum("ths,ts->th", said.looks, needle) * hit[:, None], needle.mean(1) * hit


def measure(evidence: Evidence) -> Measured | None:
    return over_retrievals(evidence, attends)


ROLE = Role(
    name="semantic-retrieval",
    definition="attention to the whole needle while a token of it is said, in needle tests passed",
    paper="CompressKV, arXiv 2508.02401",
    measure=measure,
    absent=ABSENT,
)
