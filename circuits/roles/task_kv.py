"""Heads far from their layer's semantic centre, which Task-KV gives the full cache.

Score (our definition: of the paper only the abstract was readable): the distance of what a head writes at the last
token from the mean of all heads of its layer, as a share of the sum of such distances over the layer, so a layer's
heads sum to one. Chance: one over the number of heads. Shares of different layers are shares of different sums; a
head may be far off because it writes much, whatever it writes.
Source: Task-KV (arXiv 2501.15113), abstract.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.forward import steps
from circuits.engine.weights import Weights
from circuits.roles.role import Evidence, Measured, Role


def shares(z: Float[Tensor, "prompt head d_head"], writer: Float[Tensor, "head d_head d_model"]) -> Tensor:
    """[prompt, head]: each head's part of the distances from the centre; equal parts where all write the same."""
    wrote = torch.einsum("phd,hdm->phm", z, writer)
    far = (wrote - wrote.mean(1, keepdim=True)).norm(dim=-1)
    whole = far.sum(1, keepdim=True)
    return torch.where(whole > 0, far / whole.clamp(min=1e-30), torch.full_like(far, 1 / far.shape[1]))


def _writer(weights: Weights, depth: int) -> Float[Tensor, "head d_head d_model"]:
    return weights.layers[depth].out.weight.float().view(weights.n_heads, weights.d_head, -1)


def measure(evidence: Evidence) -> Measured:
    weights, rows = evidence.weights, []
    for batch in evidence.batches:
        found = [
            shares(step.z[:, -1].float(), _writer(weights, depth))
            for depth, step in enumerate(steps(weights, weights.embed(batch.clean)))
        ]
        rows.append(torch.cat(found, 1))
    return Measured(torch.cat(rows), "prompt", 1 / weights.n_heads)


ROLE = Role(
    name="task-kv",
    definition="share of its layer's distances from the mean of what heads write at END",
    paper="Task-KV, arXiv 2501.15113",
    measure=measure,
    needs=(("END",),),
)
