"""A model so small that every effect on it is computed by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from fake_model import Differentiable
from torch import Tensor

from circuits.batches import Batch, TokenPair
from circuits.graph import Graph
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.model import Edit, Resume, Run, Site


class Micro(Differentiable):
    """One layer, two heads. z0 = t, z1 = 2t, mlp = z0 z1; the answer's logit is the sum of z0 - z1 + mlp.

    On tokens (1, 2) it is 1 + 6 = 7, on (1, 3) it is 1 + 15 = 16; the distractor's is 0.
    """

    name, graph, d_model = "micro", Graph(1, 2, 2), 1

    def run(
        self,
        tokens: Tensor,
        *,
        capture: Collection[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        resume: Resume | None = None,
    ) -> Run:
        edits = edit or {}
        z = torch.stack([tokens, 2 * tokens], -1)[..., None].float()
        z = edits.get(Site("z"), lambda value: value)(z)
        mlp = edits.get(Site("mlp"), lambda value: value)(z.prod(2))
        answer = (z[:, :, 0] - z[:, :, 1] + mlp).sum((1, 2))
        logits = torch.stack([answer, torch.zeros_like(answer)], 1)
        return Run(logits, {Site("z"): z, Site("mlp"): mlp})


def micro_problem() -> Problem:
    pair = TokenPair((1, 2), (1, 3), (0,), (1,), {"S": 1}, (1, 3))
    clean, corrupt = (torch.tensor([side]) for side in (pair.clean, pair.corrupt))
    return Problem((Batch((0,), clean, corrupt, (pair,)),), logit_difference)
