"""Content gatherers: the last token looks at what the prompt asks about.

Score: attention from END to the thing asked for (ASKED) or the subject (SUBJECT). The paper finds its gatherers by
their effect when this attention is blocked; the score is the attention itself.
Source: Merullo et al. 2023 (arXiv 2310.08744), section 4; the name is Lieberum et al. 2023 (arXiv 2307.09458).
"""

from __future__ import annotations

from circuits.roles.attention import from_end
from circuits.roles.role import Evidence, Measured, Role, first_named

CONTENT = ("ASKED", "SUBJECT")


def measure(evidence: Evidence) -> Measured:
    return from_end(evidence, (first_named(evidence, CONTENT),))


ROLE = Role(
    name="content-gatherer",
    definition="attention from END to what the prompt asks about (ASKED, or SUBJECT)",
    paper="Merullo et al. 2023, arXiv 2310.08744",
    measure=measure,
    needs=(CONTENT,),
)
