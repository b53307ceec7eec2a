"""Checks of feature vectors on prompts: does what the weights foretell hold for what the model computes?

The one idea: a feature vector foretells numbers that a forward pass holds, so each claim is a regression. Coupling:
x . y2 on x . y1 over tokens, x what the head's norm puts out of the stream, beside random contrasts. MLPs: the
gradient of n . MLP at a point between the corrupt and the clean stream where n . MLP is 0 (the decision
boundary) foretells how n . MLP changes from corrupt to clean.
Source: Dunefsky and Cohan 2023 (arXiv 2312.16291). The boundary is sought by bisection, not by gradient descent;
where there is none, the midpoint serves and is counted: our definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.batches import Batch
from circuits.engine.forward import mlp, steps
from circuits.engine.weights import Layer, Weights
from circuits.weight_reading.observables import Observable, Reader, directions

GRID, HALVINGS = 33, 30
"""Points of the way from corrupt to clean between which a change of sign is looked for; how often each is halved."""


class Fit(NamedTuple):
    """Least squares with an intercept."""

    slope: float
    r_squared: float


def fit(x: Float[Tensor, "sample"], y: Float[Tensor, "sample"]) -> Fit:
    """Of y on x; zeros where x does not vary."""
    dx, dy = x - x.mean(), y - y.mean()
    xx, yy, xy = dx @ dx, dy @ dy, dx @ dy
    nothing = xx <= 1e-20 * (x @ x).clamp_min(1e-30)
    slope = 0.0 if nothing else float(xy / xx)
    return Fit(slope, 0.0 if nothing or not yy else float(xy**2 / (xx * yy)))


class Coupled(NamedTuple):
    """x . y2 on x . y1 over `tokens`; random: mean r^2 where y2 is of a random contrast."""

    tokens: int
    own: Fit
    random: float


def couplings(
    reader: Reader, batches: Sequence[Batch], heads: Sequence[str], n: Float[Tensor, "two d_model"]
) -> dict[str, Coupled]:
    """Of every head, over all tokens of the clean prompts but the first. One forward pass a prompt."""
    streams = _normed_streams(reader.weights, batches)
    found = {}
    for head in heads:
        x = streams[reader.graph.node(head).layer]
        one, two = (x @ y for y in reader.follow((head,), n))
        others = x @ reader.follow((head,), reader.random).T
        random = [fit(one, other).r_squared for other in others.T]
        found[head] = Coupled(len(x), fit(one, two), sum(random) / len(random))
    return found


def _normed_streams(weights: Weights, batches: Sequence[Batch]) -> list[Float[Tensor, "token d_model"]]:
    """What each layer's attention reads, its norm's gain and bias aside: every token but the first of each prompt."""
    rows: list[list[Tensor]] = [[] for _ in weights.layers]
    for batch in batches:
        for depth, step in enumerate(steps(weights, weights.embed(batch.clean))):
            x = step.before[:, 1:].double()
            norm = weights.layers[depth].attention_norm
            centred = x - x.mean(-1, keepdim=True) if norm.centres else x
            rows[depth].append(
                (centred / (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()).flatten(0, 1)
            )
    return [torch.cat(each) for each in rows]


class Bent(NamedTuple):
    """An MLP: what its feature vectors foretell of its change from corrupt to clean, against what it is.

    boundaries: prompts on whose way n . MLP changes sign. shuffled: r^2 with the feature vectors of other prompts.
    """

    layer: int
    prompts: int
    boundaries: int
    change: float
    own: Fit
    shuffled: float


def mlps(weights: Weights, batches: Sequence[Batch]) -> tuple[Bent, ...]:
    """Every MLP at the last token, each prompt by its own observable. Two forward passes a prompt."""
    ends = [_mlp_inputs(weights, batch) for batch in batches]
    n = torch.cat([directions(weights, observables_of(batch)).float() for batch in batches])
    found = []
    for depth, layer in enumerate(weights.layers):
        clean, corrupt = (torch.cat([end[side][depth] for end in ends]) for side in (0, 1))
        found.append(_bent(layer, depth, clean, corrupt, n))
    return tuple(found)


def observables_of(batch: Batch) -> list[Observable]:
    return [Observable(pair.answers, pair.distractors) for pair in batch.pairs]


def _mlp_inputs(weights: Weights, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """What each MLP reads at the last token, clean and corrupt."""
    sides = []
    for tokens in (batch.clean, batch.corrupt):
        taken = steps(weights, weights.embed(tokens))
        sides.append([(step.before if weights.parallel else step.between)[:, -1] for step in taken])
    return sides[0], sides[1]


def _bent(layer: Layer, depth: int, clean: Tensor, corrupt: Tensor, n: Tensor) -> Bent:
    def says(x: Tensor) -> Tensor:
        return (mlp(layer, x) * n).sum(-1)

    t, found = boundary(lambda t: says(corrupt + t[:, None] * (clean - corrupt)), len(n), n.device)
    with torch.inference_mode(False), torch.enable_grad():
        at = (corrupt + t[:, None] * (clean - corrupt)).clone().requires_grad_()
        own = (mlp(layer, at) * n.clone()).sum()
        (y,) = torch.autograd.grad(own, at)
    step, change = (clean - corrupt).double(), (says(clean) - says(corrupt)).double()
    foretold, others = ((step * each.double()).sum(-1) for each in (y, y.roll(1, 0)))
    return Bent(
        depth,
        len(n),
        int(found.sum()),
        float(change.mean()),
        fit(foretold, change),
        fit(others, change).r_squared,
    )


def boundary(
    value: Callable[[Tensor], Tensor], n: int, device: torch.device
) -> tuple[Float[Tensor, "prompt"], Tensor]:
    """Where `value` is 0 between t = 0 and 1, nearest to the middle; the middle where it never is. Whether it is."""
    grid = torch.linspace(0, 1, GRID, device=device)
    values = torch.stack([value(t.expand(n)) for t in grid])
    turns = values[:-1].sign() != values[1:].sign()
    middle = (grid[:-1] + grid[1:]) / 2
    place = torch.where(turns, (middle[:, None] - 0.5).abs(), 9.0).argmin(0)
    low, high = grid[place], grid[place + 1]
    below = values.gather(0, place[None])[0].sign()
    for _ in range(HALVINGS):
        half = (low + high) / 2
        same = value(half).sign() == below
        low, high = torch.where(same, half, low), torch.where(same, high, half)
    found = turns.any(0)
    return torch.where(found, (low + high) / 2, torch.full_like(low, 0.5)), found
