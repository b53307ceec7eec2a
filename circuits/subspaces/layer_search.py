"""Layer search: in which layers the last token's attention brings the decision between two answers.

The one idea: what all heads of some layers S put out at the last token is taken from the source, everything else is
computed anew, and the source's answer is read layer by layer. The smallest such set is found by bisection: (1) the
lowest u for which S = [0, u) brings the answer, (2) the highest l for which [l, u) still does, (3) while the last
layer does not give it clearly, the next layer above at which its probability falls.
Source: Minder et al. 2024 (arXiv 2411.07404), `auto_search`. Our definitions: (a) the answer is read by the last norm
and the unembedding (logit lens), not by a token-identity prompt, which models with a vocabulary of words cannot read;
(b) the threshold is a share of what the source itself reaches; (c) step 3 ends where no fall is found, while the
authors' code then adds the last layer that it looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.batches import Batch
from circuits.engine.forward import Trace, climb, trace
from circuits.engine.weights import Weights
from circuits.metrics import Tokens
from circuits.model import Model
from circuits.patching import require_engine

THRESHOLD, MARGIN, FALL = 0.85, 0.3, 0.05
"""Share of the source's own probability that counts as brought; how far the source's answer shall lead in the last
layer; what counts as a fall. As in the paper, but for (b)."""


@dataclass(frozen=True, eq=False)
class Pull:
    """Prompts of one length and the runs that heads' outputs come from. right, counterfactual: see swaps.Swap."""

    weights: Weights
    base: Trace
    source: Trace
    right: Tokens
    counterfactual: Tokens


@dataclass(frozen=True)
class Reading:
    """Mean probability of the source's and of the base's answer behind each layer, at the last token."""

    source: tuple[float, ...]
    base: tuple[float, ...]


@dataclass(frozen=True)
class Search:
    """layers: found, in order; empty where even all do not bring the answer, or the source does not give it.

    reading: with those (or all) patched. reached: the best that the source's own runs give. n_readings: how often
    the layers were run at the last token.
    """

    layers: tuple[int, ...]
    reading: Reading
    reached: float
    n_readings: int


def pulls(model: Model, batches: Sequence[Batch], to_clean: bool) -> tuple[Pull, ...]:
    """Two forward passes a pair. to_clean: whether clean prompts are the source, and corrupt ones the base."""
    require_engine(model, batches, "A search of layers")
    assert model.weights is not None
    found = []
    for batch in batches:
        sides = [(batch.clean, batch.answers), (batch.corrupt, batch.distractors)]
        source, base = sides if to_clean else sides[::-1]
        with torch.no_grad():
            last = batch.clean.shape[1] - 1
            runs = [
                trace(model.weights, model.weights.embed(tokens), keep_from=last)
                for tokens, _ in (base, source)
            ]
        found.append(Pull(model.weights, runs[0], runs[1], base[1], source[1]))
    return tuple(found)


def search(some: Sequence[Pull]) -> Search:
    """A pass of the last token alone through all layers, a prompt and set of layers tried: 2 log2 L and a few."""
    n_layers, tried = len(some[0].weights.layers), dict[frozenset[int], Reading]()

    def read(layers: Collection[int]) -> Reading:
        key = frozenset(layers)
        if key not in tried:
            tried[key] = reading(some, key)
        return tried[key]

    own = _own(some)
    enough = THRESHOLD * own

    def brings(low: int, high: int) -> bool:
        return max(read(range(low, high)).source) > enough

    if own <= 0.5 or not brings(0, n_layers):  # else there is nothing to bring, or it comes by other columns
        return Search((), read(range(n_layers)), own, len(tried))
    high = _first(1, n_layers, lambda u: brings(0, u))
    low = _first(0, high - 1, lambda gap: not brings(gap + 1, high))
    layers = list(range(low, high))
    while layers:
        found = read(layers)
        if found.source[-1] > found.base[-1] + MARGIN:
            break
        falls = (
            layer
            for layer in range(layers[-1] + 1, n_layers)
            if found.source[layer - 1] - found.source[layer] > FALL
        )
        if (more := next(falls, None)) is None:
            break
        layers.append(more)
    return Search(tuple(layers), read(layers), own, len(tried))


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The lowest of low..high for which it holds, taken to hold from there on, and at `high` anyway."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _own(some: Sequence[Pull]) -> float:
    """The source's runs as they are: the largest mean probability of their answer behind any layer."""
    return max(reading(some, range(len(some[0].weights.layers)), sources=True).source)


def reading(some: Sequence[Pull], layers: Collection[int], sources: bool = False) -> Reading:
    """With the heads of `layers` as the source has them at the last token; or of the sources themselves."""
    sums, n = torch.zeros(2, len(some[0].weights.layers), dtype=torch.float64), 0
    for pull in some:
        sums += _probabilities(pull, layers, pull.source if sources else pull.base).sum(-1).double().cpu()
        n += len(pull.right)
    source, base = (sums / n).tolist()
    return Reading(tuple(source), tuple(base))


@torch.no_grad()
def _probabilities(pull: Pull, layers: Collection[int], base: Trace) -> Float[Tensor, "2 layer prompt"]:
    weights, (x, last) = pull.weights, (base.before[0][None], base.first)
    stream, behind = x, list[Tensor]()

    def replacing(kind: str, layer: int, first: int, compute: Callable[[], Tensor]) -> Tensor:
        nonlocal stream
        if kind == "z":
            value = pull.source.z[layer][None] if layer in layers else compute()
            stream = stream + weights.layers[layer].out(value.flatten(3))
        else:
            value = compute()
            stream = stream + value
            behind.append(stream)
        return value

    climb(weights, base, 0, x, last, replacing)
    lens = weights.logits(torch.cat(behind)[:, :, 0]).softmax(-1)
    sides = (pull.counterfactual, pull.right)
    return torch.stack(
        [torch.stack([lens[:, row, list(ids)].sum(-1) for row, ids in enumerate(side)], -1) for side in sides]
    )
