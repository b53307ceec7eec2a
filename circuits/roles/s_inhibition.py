"""S-inhibition heads: the last token looks at the second saying of the repeated name.

Score: attention from END to S2. It sees where the head reads, not that movers are turned away by what it writes.
Source: Wang et al. 2022 (Interpretability in the Wild), section 3.2.
"""

from __future__ import annotations

from circuits.roles.attention import from_end
from circuits.roles.role import Evidence, Measured, Role


def measure(evidence: Evidence) -> Measured:
    return from_end(evidence, ("S2",))


ROLE = Role(
    name="s-inhibition",
    definition="attention from END to S2",
    paper="Wang et al. 2022, arXiv 2211.00593",
    measure=measure,
    needs=(("S2",),),
)
