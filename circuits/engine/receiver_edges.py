"""Edges with an exact receiver: what one changed input does to its head, MLP or logits; to first order what follows.

The one idea: what an edge bends first is what reads it: the norm there, softmax, the activation. So the reader is
run anew with the changed input, for every source a row, and only from its output on stands the gradient of
one pass there and back. All heads of a layer see a source's change in the same rows, for none of them sees another.
What a value or a hidden activation writes is linear from there on, so neither is carried further than itself.
Source: ours; the softmax of queries and keys as in AtP*'s QK fix (Kramár et al. 2024, arXiv 2403.00745).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.forward import Attention, Trace, hidden, trace
from circuits.engine.linear_edges import FLOAT, Ends
from circuits.memory import in_chunks


def receiver_edges(ends: Ends, memory: int) -> Float[Tensor, "prompt source reader"]:
    """Changes of the metric by each edge of a graph's matrix.

    Passes: the donor's, one there and back, and for every source the queries, keys and hidden activations of all
    layers above it.
    """
    base = trace(ends.weights, ends.embedding.detach().requires_grad_(), behind=ends.given, answer_alone=True)
    metric = ends.readout.of_residual(ends.weights, base.after[None, :, -1]).metric.sum()
    n_layers = len(base.z)
    slopes = torch.autograd.grad(metric, (*base.z, *map(base.residual, range(1, n_layers + 1))))
    with torch.no_grad():
        receivers = _Receivers(ends, base, slopes[:n_layers], slopes[n_layers:], memory)
        return torch.stack(list(receivers.columns()), -1)


class _Receivers:
    """Of some prompts. z_slopes, mlp_slopes: gradients at what heads and MLPs put out."""

    def __init__(
        self,
        ends: Ends,
        base: Trace,
        z_slopes: tuple[Float[Tensor, "prompt _ head d_head"], ...],
        mlp_slopes: tuple[Float[Tensor, "prompt _ d_model"], ...],
        memory: int,
    ) -> None:
        self.ends, self.weights, self.base, self.memory = ends, ends.weights, base, memory
        self.z_slopes, self.mlp_slopes = z_slopes, mlp_slopes
        self.changes = ends.writes(base.outputs()).in_full(ends.weights, slice(None)).transpose(0, 1)

    def columns(self) -> Iterator[Float[Tensor, "prompt source"]]:
        """Reader by reader, zero for sources that it does not read."""
        for layer in range(len(self.base.z)):
            below = 1 + layer * (self.weights.n_heads + 1)
            yield from self._padded(below, _Heads(self, layer))
            beside = 0 if self.weights.parallel else self.weights.n_heads
            yield from self._padded(below + beside, _Mlp(self, layer))
        yield from self._padded(len(self.changes), _Logits(self))

    def _padded(self, n: int, receiver: _Receiver) -> Iterator[Float[Tensor, "prompt source"]]:
        """What `receiver` makes of the first n sources."""
        at_once = max(1, self.memory // (FLOAT * receiver.numbers()))
        rows = in_chunks(n, at_once, lambda part: receiver.effects(self.changes[part]))
        effects = torch.cat(rows)
        missing = effects.new_zeros(len(self.changes) - n, *effects.shape[1:])
        yield from torch.cat([effects, missing]).permute(2, 1, 0)


@runtime_checkable
class _Receiver(Protocol):
    """One place where streams are read."""

    def numbers(self) -> int:
        """Of fp32, at work on a row."""

    def effects(
        self, changes: Float[Tensor, "row prompt column d_model"]
    ) -> Float[Tensor, "row prompt reader"]:
        """On the metric, where what is read changes by this."""


class _Heads:
    """q of every head, k and v of every group."""

    def __init__(self, all_: _Receivers, layer: int) -> None:
        weights, base, length = all_.weights, all_.base, all_.ends.length
        self.first = all_.ends.first
        rotation = weights.rotation(length) if weights.rotation else None
        self.at = Attention(weights, layer, rotation)
        self.norm, self.stream = self.at.layer.attention_norm, base.before[layer]
        self.normed = self.norm(self.stream)
        slope = all_.z_slopes[layer]
        self.n_queries = slope.shape[1]
        self.q, self.k, _ = self.at.project(
            self.normed[None], self.first, len(self.stream[0]) - self.n_queries
        )
        known = base.attention[layer]
        self.before = known.until(self.first) if self.first else None
        self.pattern = self.at.pattern(self.q, self.k, self.before)
        # As patterns have it: members of a group beside their queries.
        slope = slope.unflatten(2, (weights.n_kv_heads, -1)).permute(0, 2, 1, 3, 4).flatten(2, 3)  # type: ignore[no-untyped-call]
        self.to_pattern = (slope @ known.values.transpose(2, 3))[:, :, None]
        to_values = self.pattern[:, :, 0, :, self.first :].transpose(2, 3) @ slope
        value = self.at.layer.value.weight.float().view(weights.d_model, weights.n_kv_heads, weights.d_head)
        self.to_normed = torch.einsum("pkce,dke->pkcd", to_values, value)

    def numbers(self) -> int:
        scores = self.pattern.numel() * 4
        return 3 * self.stream.numel() + 3 * (self.q.numel() + self.k.numel()) + scores

    def effects(
        self, changes: Float[Tensor, "row prompt column d_model"]
    ) -> Float[Tensor, "row prompt reader"]:
        normed, rows = self.norm(self.stream + changes), len(changes)
        q = self.at.queries(normed[:, :, -self.n_queries :], self.first + normed.shape[2] - self.n_queries)
        by_query = self._moved(q, self.k.expand(rows, *self.k.shape[1:])).flatten(2)
        del q
        k = self.at.keys(normed, self.first)
        by_key = self._moved(self.q.expand(rows, *self.q.shape[1:]), k).sum(-1)
        by_value = torch.einsum("rpcd,pkcd->rpk", normed.sub_(self.normed), self.to_normed)
        return torch.cat([by_query, by_key, by_value], 2)

    def _moved(self, q: Tensor, k: Tensor) -> Float[Tensor, "row prompt kv_head member"]:
        """What another pattern leads to."""
        moved = self.at.pattern(q, k, self.before).sub_(self.pattern).mul_(self.to_pattern).sum(-1)
        prompts, kv_heads, rows, _ = moved.shape
        return moved.view(prompts, kv_heads, rows, self.n_queries, -1).sum(3).permute(2, 0, 1, 3)


class _Mlp:
    def __init__(self, all_: _Receivers, layer: int) -> None:
        self.layer = all_.weights.layers[layer]
        slope, streams = all_.mlp_slopes[layer], all_.base.between
        self.stream = (all_.base.before if all_.weights.parallel else streams)[layer][:, -slope.shape[1] :]
        self.to_hidden = slope @ self.layer.mlp_out.weight.float().T
        self.own = (hidden(self.layer, self.stream) * self.to_hidden).sum((-2, -1))

    def numbers(self) -> int:
        return 2 * self.stream.numel() + (4 if self.layer.gate else 2) * self.to_hidden.numel()

    def effects(
        self, changes: Float[Tensor, "row prompt column d_model"]
    ) -> Float[Tensor, "row prompt reader"]:
        within = hidden(self.layer, self.stream + changes[:, :, -self.stream.shape[1] :])
        return (torch.einsum("rpch,pch->rp", within, self.to_hidden) - self.own)[..., None]


class _Logits:
    def __init__(self, all_: _Receivers) -> None:
        self.weights, self.readout = all_.weights, all_.ends.readout
        self.stream = all_.base.after[None, :, -1]
        self.own = self.readout.of_residual(self.weights, self.stream).metric

    def numbers(self) -> int:
        n_logits = self.weights.vocab_size if self.readout.reads_vocabulary else len(self.readout.tokens)
        return 2 * self.stream.numel() + 3 * self.stream.shape[1] * n_logits

    def effects(
        self, changes: Float[Tensor, "row prompt column d_model"]
    ) -> Float[Tensor, "row prompt reader"]:
        changed = self.readout.of_residual(self.weights, self.stream + changes[:, :, -1])
        return (changed.metric - self.own)[..., None].to(self.stream.device)
