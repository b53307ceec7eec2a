"""Low rank: how few dimensions of a head's queries, keys or values its last token needs for the behaviour.

The one idea: queries of the last token (or keys, or values, of all that it sees) are replaced by
    mean + U U^T (x - mean),
U the first r principal directions of other prompts. Rank 0 leaves the mean alone, full rank the model as it is, and
    recovered(r) = (loss_0 - loss_r) / (loss_0 - loss_full),
loss the mean of -log p(answer). Only the last token's output of one head changes, so a rank costs the last column.
Source: Lieberum et al. 2023 (arXiv 2307.09458), section 5: low-rank subspaces of correct-letter heads. Which tokens
count, what rank 0 is, and the baseline of random directions are our definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.batches import Batch, by_prompt
from circuits.engine.forward import Attention, Trace, climb, mlp, trace
from circuits.engine.weights import Weights
from circuits.evaluation.faithfulness import Estimate, mean_estimate
from circuits.metrics import Metric, Tokens
from circuits.statistics import bootstrap_ratio_interval

Part = Literal["q", "k", "v", "all"]
PARTS: tuple[Part, ...] = ("q", "k", "v", "all")
ENOUGH = 0.95
DRAWS = 10


class Space(NamedTuple):
    """The mean, and orthonormal directions in columns, the most important first."""

    mean: Float[Tensor, "d_head"]
    directions: Float[Tensor, "d_head d_head"]

    def nearest(self, x: Float[Tensor, "*some d_head"], rank: int) -> Float[Tensor, "*some d_head"]:
        kept = self.directions[:, :rank]
        return self.mean + (x - self.mean) @ kept @ kept.T


Spaces = Mapping[str, Space]


class Inside(NamedTuple):
    """Of one head: the last token's query, keys and values of all that it sees."""

    q: Float[Tensor, "prompt d_head"]
    k: Float[Tensor, "prompt pos d_head"]
    v: Float[Tensor, "prompt pos d_head"]

    def output(self, scale: float) -> Float[Tensor, "prompt d_head"]:
        """What the head puts out at the last token."""
        looks = (torch.einsum("pd,ptd->pt", self.q, self.k) * scale).softmax(-1)
        return torch.einsum("pt,ptd->pd", looks, self.v)

    def at_rank(self, spaces: Spaces, part: Part, rank: int) -> Inside:
        wanted = ("q", "k", "v") if part == "all" else (part,)
        return self._replace(**{name: spaces[name].nearest(getattr(self, name), rank) for name in wanted})


def inside(weights: Weights, base: Trace, depth: int, head: int) -> Inside:
    """Read off the stream before the layer, as attention uses them: rotated and normalised where it does so."""
    before = base.before[depth]
    rotation = weights.rotation(before.shape[1]) if weights.rotation else None
    attention = Attention(weights, depth, rotation)
    q, k, v = attention.project(attention.layer.attention_norm(before)[None], 0)
    group = head // (weights.n_heads // weights.n_kv_heads)
    return Inside(q[0, :, -1, head], k[0, :, :, group], v[0, :, :, group])


def principal(samples: Float[Tensor, "sample d_head"]) -> Space:
    """Directions by the variance along them."""
    mean = samples.mean(0)
    centred = (samples - mean).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    return Space(mean, vectors.flip(1).to(samples.dtype))


def fit_spaces(weights: Weights, batches: Sequence[Batch], depth: int, head: int) -> dict[str, Space]:
    """Of the clean prompts. One forward pass a prompt."""
    read = [inside(weights, trace(weights, weights.embed(b.clean)), depth, head) for b in batches]
    return {
        name: principal(torch.cat([getattr(one, name).flatten(0, -2) for one in read]))
        for name in ("q", "k", "v")
    }


def random_spaces(spaces: Spaces, seed: int) -> dict[str, Space]:
    """The same means, and directions drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, space in spaces.items():
        drawn = torch.randn(space.directions.shape, generator=generator, dtype=torch.float64)
        turned = torch.linalg.qr(drawn).Q.to(space.directions)
        found[name] = Space(space.mean, turned)
    return found


def logits_with(
    weights: Weights, base: Trace, depth: int, head: int, z: Float[Tensor, "row prompt d_head"]
) -> Float[Tensor, "row prompt vocab"]:
    """Last logits where the head puts `z` out at the last token, and all else is as in `base`."""
    layer, before = weights.layers[depth], base.before[depth][None, :, -1:]
    every = base.z[depth][:, -1].expand(len(z), -1, -1, -1).clone()
    every[:, :, head] = z
    between = before + layer.out(every.flatten(2))[:, :, None]
    read = before.expand_as(between) if weights.parallel else between
    length = base.before[0].shape[1]
    return weights.logits(climb(weights, base, depth + 1, between + mlp(layer, read), length - 1))


def loss(logits: Float[Tensor, "*rows prompt vocab"], answers: Tokens) -> Float[Tensor, "*rows prompt"]:
    """-log p of the answers together, in nats."""
    said = logits.log_softmax(-1)
    return -torch.stack([said[..., row, list(ids)].logsumexp(-1) for row, ids in enumerate(answers)], -1)


@dataclass(frozen=True)
class Ranks:
    """One head and part, by rank from 0 to full: mean loss and metric on judged prompts.

    lost, fallen: loss and metric of full rank against rank 0 (what there is to recover), with intervals over prompts.
    enough: the smallest rank that recovers ENOUGH of the loss, and share: what it recovers there; None where rank 0
    does not clearly raise the loss. random: the same of random directions, mean curve of DRAWS.
    """

    head: str
    part: Part
    loss: tuple[float, ...]
    metric: tuple[float, ...]
    random_loss: tuple[float, ...]
    lost: Estimate
    fallen: Estimate
    enough: int | None
    share: Estimate | None
    random: int | None


def largest(
    weights: Weights, batches: Sequence[Batch], metric: Metric, heads: Sequence[tuple[str, int, int]], n: int
) -> list[tuple[str, int, int]]:
    """The n heads whose last output, put at its mean, changes the metric most. A forward pass, a column a head."""
    traces = [trace(weights, weights.embed(batch.clean)) for batch in batches]
    means = {head: torch.cat([one.z[head[1]][:, -1, head[2]] for one in traces]).mean(0) for head in heads}
    sizes = dict.fromkeys(heads, 0.0)
    for batch, base in zip(batches, traces, strict=True):
        for head in heads:
            own = base.z[head[1]][:, -1, head[2]]
            z = torch.stack([own, means[head].expand_as(own)])
            values = metric(logits_with(weights, base, *head[1:], z), batch.answers, batch.distractors)
            sizes[head] += float((values[0] - values[1]).sum())
    return sorted(heads, key=lambda head: -abs(sizes[head]))[:n]


def measure_ranks(
    weights: Weights,
    batches: Sequence[Batch],
    metric: Metric,
    head: tuple[str, int, int],
    spaces: Spaces,
    *,
    part: Part,
    seed: int = 0,
    draws: int = DRAWS,
) -> Ranks:
    """head: name, layer, index. One forward pass a prompt, and its last column (1 + draws) * (d_head + 1) times."""
    name, depth, index = head
    tried = [spaces, *(random_spaces(spaces, seed + draw) for draw in range(draws))]
    losses: list[list[Tensor]] = [[] for _ in tried]
    metrics = []
    for batch in batches:
        base = trace(weights, weights.embed(batch.clean))
        own = inside(weights, base, depth, index)
        for n, some in enumerate(tried):
            z = [
                own.at_rank(some, part, r).output(weights.layers[depth].scale)
                for r in range(weights.d_head + 1)
            ]
            logits = logits_with(weights, base, depth, index, torch.stack(z))
            losses[n].append(loss(logits, batch.answers))
            if n == 0:
                metrics.append(metric(logits, batch.answers, batch.distractors))
    table = [by_prompt(batches, torch.cat(each, 1)).double().cpu().numpy().T for each in losses]
    values = by_prompt(batches, torch.cat(metrics, 1)).double().cpu().numpy().T
    return _ranks(name, part, table[0], values, np.mean(table[1:] or table, axis=0), seed)


def _ranks(
    name: str,
    part: Part,
    losses: Float[np.ndarray, "prompt rank"],
    values: Float[np.ndarray, "prompt rank"],
    random: Float[np.ndarray, "prompt rank"],
    seed: int,
) -> Ranks:
    lost, fallen = losses[:, 0] - losses[:, -1], values[:, -1] - values[:, 0]
    there = mean_estimate(lost, seed)
    first = _first(losses.mean(0)) if there.low > 0 else None
    return Ranks(
        name,
        part,
        tuple(losses.mean(0).tolist()),
        tuple(values.mean(0).tolist()),
        tuple(random.mean(0).tolist()),
        there,
        mean_estimate(fallen, seed),
        first,
        None if first is None else _share(losses[:, 0] - losses[:, first], lost, seed),
        None if first is None else _first(random.mean(0)),
    )


def _first(curve: Float[np.ndarray, "rank"]) -> int:
    """The smallest rank from which on all recover enough: a curve may pass the line by luck and fall again."""
    enough = (curve[0] - curve) / (curve[0] - curve[-1]) >= ENOUGH
    return int(len(enough) - np.argmin(enough[::-1])) if not enough.all() else 0


def _share(numerators: np.ndarray, denominators: np.ndarray, seed: int) -> Estimate | None:
    found = bootstrap_ratio_interval(numerators, denominators, seed=seed)
    value = float(numerators.mean() / denominators.mean())
    return None if found is None else Estimate(value, float(found.low), float(found.high))
