"""Distributed alignment search: the subspace that, taken from the source, makes the model give the source's answer.

The one idea: the patch is differentiable in the directions, so they are learned by gradient descent with the model
frozen; they stay orthonormal because what is learned is any matrix, of which the patch takes the orthonormal part
(QR). Loss: cross-entropy of the full logits on the counterfactual answer; Adam, rate .01, which falls linearly to a
tenth. Sources: Geiger et al. 2023 (arXiv 2303.02536); Makelov et al. 2023 (arXiv 2311.17030), whose constants these
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import CircuitError
from circuits.progress import Progress, silent
from circuits.subspaces.directions import orthonormal, random_frames
from circuits.subspaces.swaps import Swap, along

BATCH = 20
"""Prompts of a step, at most: swaps are made of batches of this size."""


@dataclass(frozen=True)
class Recipe:
    epochs: int = 30
    rate: float = 0.01
    falls_to: float = 0.1


def learn(
    some: Sequence[Swap], rank: int, seed: int = 0, recipe: Recipe | None = None, progress: Progress = silent
) -> Float[Tensor, "width rank"]:
    """Orthonormal directions. A pass of the layers above the place and one back, a prompt, way and epoch.

    Raises CircuitError for a rank that the place does not have.
    """
    recipe, size = recipe or Recipe(), some[0].value.shape[1]
    require_rank(rank, size, str(some[0].place))
    (start,) = random_frames(size, rank, 1, seed)
    free = start.to(some[0].value.device).requires_grad_()
    steps = recipe.epochs * len(some)
    adam = torch.optim.Adam([free], lr=recipe.rate)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, recipe.falls_to, total_iters=max(1, steps))
    shuffle = torch.Generator().manual_seed(seed)
    for epoch in range(recipe.epochs):
        for place in torch.randperm(len(some), generator=shuffle).tolist():
            adam.zero_grad()
            loss(some[place], orthonormal(free)).backward()  # type: ignore[no-untyped-call]
            adam.step()
            falling.step()
        progress(f"learning {rank} of {size} dimensions", epoch + 1, recipe.epochs)
    return orthonormal(free.detach())


def loss(swap: Swap, frame: Float[Tensor, "width rank"]) -> Float[Tensor, ""]:
    """Mean of -log p(counterfactual answer); of several answers their summed probability."""
    log_p = swap.logits((swap.value + along(swap.difference, frame))[None])[0].log_softmax(-1)
    hits = [log_p[row, list(tokens)].logsumexp(0) for row, tokens in enumerate(swap.counterfactual)]
    return -torch.stack(hits).mean()


def require_rank(rank: int, size: int, place: str) -> None:
    """Raises CircuitError for a rank that a place of so many dimensions does not have."""
    if not 1 <= rank < size:
        raise CircuitError(
            f"A subspace of {rank} dimensions does not fit in {place}, which has {size}. "
            f"Choose --rank from 1 to {size - 1}."
        )
