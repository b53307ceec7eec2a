"""Negative movers: the last token looks at names, and what the head reads there lowers them.

Score: attention from END to IO, S1 and S2, counted where the head's OV circuit, fed the residual stream there, lowers
the name that stands there to the last five of the vocabulary.
Source: Wang et al. 2022 (Interpretability in the Wild), section 3.4 (to IO); Merullo et al. 2023 (to S2).
"""

from __future__ import annotations

import torch

from circuits.roles.name_mover import moved
from circuits.roles.role import Evidence, Measured, Role, positions_of

NAMES = ("IO", "S1", "S2")


def measure(evidence: Evidence) -> Measured:
    samples, chance = [], []
    for batch in evidence.batches:
        tokens = batch.clean.gather(1, positions_of(batch, NAMES))
        each = [moved(evidence, batch, name, tokens[:, n], -1) for n, name in enumerate(NAMES)]
        samples.append(torch.stack([paid for paid, _ in each]).sum(0))
        chance.append(torch.stack([even for _, even in each]).sum(0))
    return Measured(torch.cat(samples), "prompt", float(torch.cat(chance).mean()))


ROLE = Role(
    name="negative-mover",
    definition="attention from END to IO, S1 and S2, where the OV circuit there lowers that name to the last five",
    paper="Wang et al. 2022, arXiv 2211.00593",
    measure=measure,
    needs=tuple((name,) for name in NAMES),
)
