"""The forward pass of a decoder from any layer, over the last columns alone, many patched rows at once.

The one idea: a patch at columns >= start changes nothing before it, so keys and values of those columns are the
base run's, shared by all rows and never copied for each; and where the patch touches some columns only, the
first layer above recomputes queries, keys and values for those alone. Exact up to rounding, differentiable.

Shapes: x is [row, prompt, column, d_model]; a row is one patch, run on every prompt of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.weights import Layer, Weights

MLP_BYTES = 32 * 2**20
"""Hidden activations of an MLP that are held at once where no gradient needs them."""


@dataclass(frozen=True)
class KeysValues:
    """Keys (rotated) and values of one layer, over columns from 0; prompts only, no rows."""

    keys: Float[Tensor, "prompt kv_head column d_head"]
    values: Float[Tensor, "prompt kv_head column d_head"]

    def until(self, column: int) -> KeysValues:
        """The columns before `column`, as views."""
        return KeysValues(self.keys[:, :, :column], self.values[:, :, :column])

    def then(self, more: KeysValues) -> KeysValues:
        """These columns, then those of `more`."""
        return KeysValues(torch.cat([self.keys, more.keys], 2), torch.cat([self.values, more.values], 2))


Replace = Callable[[str, int, int, Callable[[], Tensor]], Tensor]
"""(kind "z" or "mlp", layer, first column, what computes the value) -> what passes: [row, prompt, column, ...]."""


def nothing_replaced(kind: str, layer: int, first: int, compute: Callable[[], Tensor]) -> Tensor:
    return compute()


def rotate(x: Float[Tensor, "row prompt column head d_head"], cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position code on the first part of d_head (Su et al. 2021), halves paired as in NeoX and Llama."""
    width = cos.shape[-1]
    turned, straight = x[..., :width], x[..., width:]
    one, two = turned.chunk(2, dim=-1)
    turned = turned * cos[:, None] + torch.cat([-two, one], -1) * sin[:, None]
    return turned if width == x.shape[-1] else torch.cat([turned, straight], -1)


class Attention:
    """Queries, keys and values of one layer, and the pattern between them."""

    def __init__(self, weights: Weights, layer: int, rotation: tuple[Tensor, Tensor] | None) -> None:
        self.weights, self.layer, self.rotation = weights, weights.layers[layer], rotation

    def project(
        self, x: Float[Tensor, "row prompt column d_model"], first: int, queries_from: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [row, prompt, column, head, d_head] each, of normalised `x`.

        first: x's first column. queries_from: how many of x's columns need no query.
        """
        q, k, v = self.read(x, queries_from)
        return self.turned(q, k, v, first, first + queries_from)

    def read(
        self, x: Float[Tensor, "row prompt column d_model"], queries_from: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Products with the matrices alone, [row, prompt, column, heads side by side] each."""
        if self.layer.joint is None:
            return self.layer.query(x[:, :, queries_from:]), self.layer.key(x), self.layer.value(x)
        widths = [part.weight.shape[1] for part in (self.layer.query, self.layer.key, self.layer.value)]
        q, k, v = torch.split(self.layer.joint(x), widths, -1)
        return q[:, :, queries_from:], k, v

    def turned(
        self, q: Tensor, k: Tensor, v: Tensor, first: int, queries_first: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What `read` gives, by head, normalised where the layer does so, and rotated.

        first, queries_first: the columns at which k and q begin.
        """
        return self._queries(q, queries_first), self._keys(k, first), self._by_head(v)

    def queries(self, x: Tensor, first: int) -> Float[Tensor, "row prompt column head d_head"]:
        """Of normalised `x`, whose first column is `first`."""
        return self._queries(self.layer.query(x), first)

    def keys(self, x: Tensor, first: int) -> Float[Tensor, "row prompt column kv_head d_head"]:
        """Of normalised `x`, whose first column is `first`."""
        return self._keys(self.layer.key(x), first)

    def _keys(self, k: Tensor, first: int) -> Tensor:
        k = self._by_head(k)
        return self._rotated(self.layer.key_norm(k) if self.layer.key_norm else k, first)

    def _queries(self, q: Tensor, first: int) -> Tensor:
        q = self._by_head(q)
        return self._rotated(self.layer.query_norm(q) if self.layer.query_norm else q, first)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], x.shape[-1] // self.weights.d_head, self.weights.d_head)

    def _rotated(self, x: Tensor, first: int) -> Tensor:
        if self.rotation is None:
            return x
        cos, sin = (part[first : first + x.shape[2]] for part in self.rotation)
        return rotate(x, cos, sin)

    def pattern(
        self, q: Tensor, k: Tensor, before: KeysValues | None
    ) -> Float[Tensor, "prompt kv_head row query source"]:
        """Softmax of scores, and what the layer's rule makes of it where it has one."""
        found = self.scores(q, k, before).softmax(-1)
        if self.layer.rule is None:
            return found
        by_query = found.view(*found.shape[:3], q.shape[2], -1, found.shape[4])
        return self.layer.rule(by_query).flatten(3, 4)

    def scores(
        self, q: Tensor, k: Tensor, before: KeysValues | None
    ) -> Float[Tensor, "prompt kv_head row query source"]:
        """From the last columns `q` (heads of a group beside its columns) to all columns.

        before: the columns that come before `k`'s.
        """
        rows, prompts, n_queries, heads, d_head = q.shape
        kv_heads, groups = k.shape[3], heads // k.shape[3]
        q = q.view(rows, prompts, n_queries, kv_heads, groups, d_head).permute(1, 3, 0, 2, 4, 5)
        q = q.reshape(prompts, kv_heads, rows, n_queries * groups, d_head)
        scores = q @ k.permute(1, 3, 0, 4, 2)
        if n_queries > 1:
            late = torch.ones(n_queries, k.shape[2], dtype=torch.bool, device=q.device)
            late = late.triu(k.shape[2] - n_queries + 1).repeat_interleave(groups, 0)
            scores = scores.masked_fill(late, -torch.inf)
        if before is not None:
            earlier = q.flatten(2, 3) @ before.keys.transpose(2, 3)
            scores = torch.cat([earlier.view(*scores.shape[:-1], -1), scores], -1)
        return scores * self.layer.scale

    def mix(
        self, pattern: Tensor, v: Tensor, before: KeysValues | None
    ) -> Float[Tensor, "row prompt query head d_head"]:
        """z: values of all columns, weighed by the pattern."""
        n_before = 0 if before is None else before.values.shape[2]
        z = pattern[..., n_before:] @ v.permute(1, 3, 0, 2, 4)
        if before is not None:
            earlier = pattern[..., :n_before].flatten(2, 3) @ before.values
            z = z + earlier.view_as(z)
        prompts, kv_heads, rows, n, d_head = z.shape
        groups = self.weights.n_heads // kv_heads
        z = z.view(prompts, kv_heads, rows, n // groups, groups, d_head).permute(2, 0, 3, 1, 4, 5)
        return z.flatten(3, 4)


def mlp(layer: Layer, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """What the MLP of `layer` writes for the residual stream `x`; without gradients, a few columns at a time."""

    if x.requires_grad:
        return layer.mlp_out(hidden(layer, x))
    parts = [layer.mlp_out(hidden(layer, part)) for part in torch.split(x.flatten(0, -2), mlp_tokens(layer))]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view_as(x)


def hidden(layer: Layer, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows hidden"]:
    """What the MLP of `layer` makes of the residual stream `x` before it writes."""
    normed = layer.mlp_norm(x)
    if layer.gate is None:
        return layer.mlp_in(normed, layer.activation)
    return layer.gate(normed, layer.activation) * layer.mlp_in(normed)


def mlp_tokens(layer: Layer) -> int:
    """How many tokens the MLP of `layer` works on at once."""
    return max(256, MLP_BYTES // (4 * layer.mlp_in.weight.shape[1]))


@dataclass(frozen=True)
class Trace:
    """A run of the prompts, and what it leaves for patched ones: residual streams of the columns from `first` on.

    before[l], between[l]: the residual stream before layer l, and behind its attention. z[l]: head outputs.
    after: behind the last layer. Each [prompt, column - first, ...], but [prompt, 1, ...] for what the last layer
    puts out where trace was asked for the answer alone. attention[l]: keys and values of all columns.
    """

    first: int
    before: tuple[Float[Tensor, "prompt column d_model"], ...]
    between: tuple[Float[Tensor, "prompt _ d_model"], ...]
    z: tuple[Float[Tensor, "prompt _ head d_head"], ...]
    after: Float[Tensor, "prompt _ d_model"]
    attention: tuple[KeysValues, ...]

    def residual(self, layer: int) -> Float[Tensor, "prompt column d_model"]:
        """The residual stream before `layer`; behind the last where there is no such layer."""
        return self.before[layer] if layer < len(self.before) else self.after

    def mlp(self, layer: int) -> Float[Tensor, "prompt column d_model"]:
        """What the MLP of `layer` wrote."""
        return self.residual(layer + 1) - self.between[layer]

    def of_prompts(self, part: slice) -> Trace:
        """The same of some of the prompts, as views."""
        known = (KeysValues(each.keys[part], each.values[part]) for each in self.attention)
        before, between, z = (
            tuple(each[part] for each in streams) for streams in (self.before, self.between, self.z)
        )
        return Trace(self.first, before, between, z, self.after[part], tuple(known))

    def outputs(self) -> Outputs:
        """What its components put out, without the rest."""
        return Outputs(self.z, tuple(self.mlp(layer) for layer in range(len(self.z))))


@dataclass(frozen=True)
class Outputs:
    """What components of each layer put out, over the last columns."""

    z: tuple[Float[Tensor, "prompt _ head d_head"], ...]
    mlp: tuple[Float[Tensor, "prompt _ d_model"], ...]


def n_bytes(parts: Iterable[Tensor]) -> int:
    return sum(part.numel() * part.element_size() for part in parts)


class Step(NamedTuple):
    """What one layer did: see Trace."""

    before: Float[Tensor, "prompt column d_model"]
    z: Float[Tensor, "prompt _ head d_head"]
    between: Float[Tensor, "prompt _ d_model"]
    after: Float[Tensor, "prompt _ d_model"]
    attention: KeysValues

    def since(self, column: int) -> Step:
        """A copy without the streams' first columns, which then take no memory."""
        before, z, between, after = (part[:, column:].clone() for part in self[:4])
        return Step(before, z, between, after, self.attention)


Changing = Callable[[int, Tensor], Tensor]
"""Layer, z [prompt, column, head, d_head] -> what passes instead; differentiable where a gradient is asked for."""


def steps(
    weights: Weights,
    x: Float[Tensor, "prompt column d_model"],
    *,
    behind: Trace | None = None,
    answer_alone: bool = False,
    changing: Changing = lambda layer, z: z,
) -> Iterator[Step]:
    """Runs the embedded columns `x` layer by layer; what a step holds can be dropped before the next.

    behind: a run of the same prompts whose columns before these are the same.
    answer_alone: the last layer puts out its last column only, which is all that the answer depends on.
    Differentiable.
    """
    total = x.shape[1] if behind is None else behind.attention[0].keys.shape[2]
    first = total - x.shape[1]
    rotation = weights.rotation(total) if weights.rotation else None
    for depth, layer in enumerate(weights.layers):
        at = Attention(weights, depth, rotation)
        before, normed = x, layer.attention_norm(x)[None]
        n = 1 if answer_alone and depth + 1 == len(weights.layers) else x.shape[1]
        q, k, v = at.project(normed, first, x.shape[1] - n)
        prefix = None if behind is None else behind.attention[depth].until(first)
        z = changing(depth, at.mix(at.pattern(q, k, prefix), v, prefix)[0])
        x = x[:, -n:]
        between = x + layer.out(z.flatten(2))
        x = between + mlp(layer, x if weights.parallel else between)
        own = KeysValues(*(part[0].transpose(1, 2).contiguous() for part in (k, v)))
        yield Step(before, z, between, x, own if prefix is None else prefix.then(own))


def trace(
    weights: Weights,
    x: Float[Tensor, "prompt column d_model"],
    *,
    behind: Trace | None = None,
    keep_from: int = 0,
    answer_alone: bool = False,
) -> Trace:
    """All that `steps` passes through, kept; residual streams and head outputs from column `keep_from` on."""
    taken: list[Step] = []
    for step in steps(weights, x, behind=behind, answer_alone=answer_alone):
        since = max(0, keep_from - step.attention.keys.shape[2] + x.shape[1])
        taken.append(step.since(since) if since else step)
    before, z, between, after, attention = zip(*taken, strict=True)
    first = max(keep_from, attention[0].keys.shape[2] - x.shape[1])
    return Trace(first, before, between, z, after[-1], attention)


def outputs(weights: Weights, x: Float[Tensor, "prompt column d_model"], *, behind: Trace) -> Outputs:
    """What components put out in the columns `x`, and nothing else of that run kept."""
    taken = [(step.z, step.after - step.between) for step in steps(weights, x, behind=behind)]
    z, wrote = zip(*taken, strict=True)
    return Outputs(z, wrote)


def climb(
    weights: Weights,
    base: Trace,
    layer: int,
    x: Float[Tensor, "row prompt column d_model"],
    first: int,
    replacing: Replace = nothing_replaced,
) -> Float[Tensor, "row prompt d_model"]:
    """The last column behind the last layer, of rows whose residual stream before `layer` is `x`.

    x starts at column `first` >= base.first; columns behind it are the base's. The last layer is computed at the
    last column alone. replacing: see Replace; it is given the columns that are computed.
    """
    rotation = weights.rotation(base.attention[0].keys.shape[2]) if weights.rotation else None
    for depth in range(layer, len(weights.layers)):
        x = _block(Attention(weights, depth, rotation), depth, base, x, first, replacing)
    return x[:, :, -1]


def _block(
    attention: Attention, depth: int, base: Trace, x: Tensor, first: int, replacing: Replace
) -> Float[Tensor, "row prompt column d_model"]:
    """One layer: from some columns of its input to all columns >= first of its output, of the last layer to one."""
    weights, layer = attention.weights, attention.layer
    last = depth + 1 == len(weights.layers)
    tail = base.residual(depth)[None, :, first - base.first + x.shape[2] :]
    whole = _joined(x, tail)
    at = first + whole.shape[2] - 1 if last else first
    whole = whole[:, :, -1:] if last else whole

    def z() -> Tensor:
        return _head_outputs(attention, base.attention[depth], x, tail, first, at)

    between = whole + layer.out(replacing("z", depth, at, z).flatten(3))
    return between + replacing("mlp", depth, at, lambda: mlp(layer, whole if weights.parallel else between))


def _head_outputs(
    attention: Attention, known: KeysValues, x: Tensor, tail: Tensor, first: int, at: int
) -> Float[Tensor, "row prompt query head d_head"]:
    """z at the columns from `at` on; keys and values of the columns behind `x` are the known ones."""
    end, normed = first + x.shape[2], attention.layer.attention_norm(x)
    q, k, v = attention.project(normed, first, min(at, end) - first)
    k = _joined(k, known.keys[None, :, :, end:].transpose(2, 3))
    v = _joined(v, known.values[None, :, :, end:].transpose(2, 3))
    if tail.shape[2]:
        unread = max(0, at - end)
        rest = attention.layer.attention_norm(tail[:, :, unread:])
        q = _joined(q, attention.queries(rest, end + unread))
    prefix = known.until(first) if first else None
    return attention.mix(attention.pattern(q, k, prefix), v, prefix)


def _joined(x: Tensor, tail: Tensor) -> Tensor:
    """Columns of rows, then columns that all rows share."""
    return torch.cat([x, tail.expand(len(x), *tail.shape[1:])], 2) if tail.shape[2] else x
