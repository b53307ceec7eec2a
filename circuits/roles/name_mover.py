"""Name movers: the last token looks at the answer in the prompt, and what the head reads there raises it.

Score: attention from END to IO (or to the right colour, RIGHT), counted where the head's OV circuit, fed the
residual stream there, raises the answer to the first five of the vocabulary. Looking alone is not moving: planted
decoys look as movers do, and write nothing that is read.
Source: Wang et al. 2022 (Interpretability in the Wild), section 3.1; the product of its two criteria is ours.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.batches import Batch
from circuits.roles.attention import end_to, evenly, looked, patterns
from circuits.roles.role import Evidence, Measured, Role, first_named
from circuits.roles.writes import among_first, chance_of_first

ANSWER = ("IO", "RIGHT")


def moved(
    evidence: Evidence, batch: Batch, name: str, tokens: Int[Tensor, "prompt"], sign: int = 1
) -> tuple[Tensor, Tensor]:
    """[prompt, head]: attention from END to `name` where it raises (sign 1) or lowers (-1) the token; and chance."""
    queries, sources = end_to(batch, (name,))
    rows = torch.arange(len(batch), device=queries.device)
    parts = []
    for seen in patterns(evidence.weights, batch.clean):
        read = seen.before[rows, sources[:, 0]]
        writes = among_first(evidence.weights, seen.depth, read, tokens, sign)
        parts.append(looked(seen.pattern, queries, sources)[..., 0] * writes)
    return torch.cat(parts, 1), evenly(queries)[:, 0] * chance_of_first(evidence.weights)


def measure(evidence: Evidence) -> Measured:
    name = first_named(evidence, ANSWER)
    found = []
    for batch in evidence.batches:
        answers = torch.tensor([ids[0] for ids in batch.answers], device=batch.clean.device)
        found.append(moved(evidence, batch, name, answers))
    samples, chance = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Measured(samples, "prompt", float(chance.mean()))


ROLE = Role(
    name="name-mover",
    definition="attention from END to IO (or RIGHT), where the OV circuit there raises the answer to the first five",
    paper="Wang et al. 2022, arXiv 2211.00593",
    measure=measure,
    needs=(ANSWER,),
)
