"""Learned shares of injection: z_h <- (1 - share_h) z_h + share_h t_h at the last token, one share a head.

The one idea: instead of choosing heads to patch, every head is patched by a share between 0 and 1, all at once, and
the shares are learned; heads that carry what the answer needs end near 1, those that must stay as they are near 0,
and a head that makes no difference stays where it began, at a half.
Source: SITE (soft injection of task embeddings, arXiv 2507.20906); SNU-DRL/Soft_Injection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.engine.forward import Trace, climb, trace
from circuits.engine.weights import Weights
from circuits.progress import Progress, silent
from circuits.tuning.training import Example, Schedule, surprise, train

Shares = Float[Tensor, "layer head"]
Vectors = Float[Tensor, "prompt layer head d_head"]
"""What is injected into each prompt."""


def last_outputs(weights: Weights, tokens: Int[Tensor, "prompt pos"]) -> Vectors:
    """z of all heads at the last token. One forward pass a prompt."""
    with torch.no_grad():
        base = trace(weights, weights.embed(tokens), answer_alone=True)
    return torch.stack([z[:, -1] for z in base.z], 1)


@dataclass(frozen=True)
class Injected:
    """Prompts of one length, run once, and what is injected into each; a share then costs its last column alone."""

    weights: Weights
    base: Trace
    vectors: Vectors

    @classmethod
    def of(cls, weights: Weights, tokens: Int[Tensor, "prompt pos"], vectors: Vectors) -> Injected:
        with torch.no_grad():
            base = trace(weights, weights.embed(tokens), keep_from=tokens.shape[1] - 1)
        return cls(weights, base, vectors)

    def of_rows(self, row: slice) -> Injected:
        return Injected(self.weights, self.base.of_prompts(row), self.vectors[row])

    def logits(self, shares: Shares) -> Float[Tensor, "prompt vocab"]:
        """Behind the last token. Differentiable in the shares."""

        def mixed(kind: str, layer: int, at: int, compute: Callable[[], Tensor]) -> Tensor:
            value = compute()
            if kind != "z":
                return value
            return torch.lerp(value, self.vectors[None, :, layer, None], shares[layer, :, None])

        start = self.base.before[0][None]
        return self.weights.logits(climb(self.weights, self.base, 0, start, self.base.first, mixed)[0])


def learned_shares(
    injected: Sequence[Injected],
    taught: Sequence[Example],
    schedule: Schedule,
    seed: int,
    progress: Progress = silent,
) -> Shares:
    """Shares that make the answers likely; untrained ones are a half. One column there and back a step.

    taught: the prompts of each of `injected`.
    """
    weights = injected[0].weights
    logits = torch.zeros(len(weights.layers), weights.n_heads, device=weights.unembed.weight.device)
    logits.requires_grad_()
    where = {
        index: (part, row)
        for part, example in zip(injected, taught, strict=True)
        for row, index in enumerate(example.prompts.index)
    }

    def loss(example: Example) -> Tensor:
        rows = [where[index] for index in example.prompts.index]
        said = [part.of_rows(slice(row, row + 1)).logits(logits.sigmoid()) for part, row in rows]
        return surprise(torch.cat(said), example.answers).mean()

    train([logits], loss, taught, schedule, seed, progress, "learning shares")
    return logits.detach().sigmoid()
