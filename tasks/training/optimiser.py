"""Muon for the matrices inside the layers, AdamW for embeddings, LayerNorms and biases.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the
nearest orthogonal matrix, found by five Newton-Schulz steps; the update is scaled to AdamW's usual size
(0.2 times the square root of the longer side, Liu et al. 2025, arXiv 2502.16982). Matrices of one shape are
stacked, which makes it cheap on a CPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Each [rows, cols] of `matrices` [n, rows, cols] with its singular values brought near 1."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    result: Tensor = x.transpose(1, 2) if tall else x
    return result


class Muon:
    """Momentum, orthogonalised, with decoupled weight decay."""

    def __init__(
        self, weights: Iterable[nn.Parameter], lr: float, decay: float, momentum: float = 0.95
    ) -> None:
        shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for weight in weights:
            shapes[weight.shape].append(weight)
        self.groups = [(group, torch.zeros(len(group), *shape)) for shape, group in shapes.items()]
        self.lr, self.decay, self.momentum = lr, decay, momentum

    @torch.no_grad()
    def step(self) -> None:
        for group, velocity in self.groups:
            gradients = torch.stack([torch.zeros_like(w) if w.grad is None else w.grad for w in group])
            velocity.lerp_(gradients, 1 - self.momentum)
            update = orthogonalised(gradients.lerp(velocity, self.momentum))
            size = 0.2 * max(update.shape[1:]) ** 0.5
            for weight, change in zip(group, update, strict=True):
                weight.mul_(1 - self.lr * self.decay).sub_(change, alpha=self.lr * size)


class Optimiser:
    """Both, under one learning rate."""

    def __init__(self, network: nn.Module, lr: float, decay: float = 0.2) -> None:
        inside = {name for name, w in network.named_parameters() if w.ndim == 2 and name.startswith("blocks")}
        named = dict(network.named_parameters())
        self.lr = lr
        self.muon = Muon((named[name] for name in sorted(inside)), lr, decay)
        rest = [w for name, w in named.items() if name not in inside]
        self.adam = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
        self.weights = list(network.parameters())

    def step(self, scale: float) -> None:
        """One update with `scale` times the learning rate, gradients clipped to norm 1; clears them."""
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.muon.lr = self.lr * scale
        for group in self.adam.param_groups:
            group["lr"] = self.lr * scale
        self.muon.step()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        for weight in self.weights:
            weight.grad = None
