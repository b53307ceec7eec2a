"""Edges to first order: what every source changes by, times the gradient at what every reader reads.

The one idea: an ordinary pass there and back gives the gradients at queries, keys and values; each reader's own is
a product with its part of W_Q, W_K or W_V and a way back through the norm, each source's write one with its part of
W_O. Both are laid out for a few columns at a time and meet in one product a layer; no buffer of all writes, and no
copy of the residual stream for each reader, is ever held for a batch. Gradients add up, so those at several points
on the way from the donor's run to the own one are summed before they meet the sources.
Sources: Syed et al. 2023 (EAP, arXiv 2310.10348); Hanna et al. 2024 (EAP-IG, arXiv 2403.17806).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from circuits.donors import Donor, first_difference
from circuits.engine.forward import Attention, Outputs, Trace, mlp, trace
from circuits.engine.products import product
from circuits.engine.weights import Norm, Weights
from circuits.memory import in_chunks
from circuits.model import Site
from circuits.readout import Readout

FLOAT = 4


class Point(NamedTuple):
    """Where a gradient is taken: a share of the way from the donor's run to the own one; weight: of that gradient."""

    share: float
    weight: float


OWN_RUN = (Point(1.0, 1.0),)


class Writes(NamedTuple):
    """What sources write, factored: embedding, head outputs, MLPs; of each layer, over the last columns."""

    embedding: Float[Tensor, "prompt column d_model"]
    z: tuple[Float[Tensor, "prompt column head d_head"], ...]
    mlp: tuple[Float[Tensor, "prompt column d_model"], ...]

    def of_columns(self, part: slice) -> Writes:
        return Writes(
            self.embedding[:, part], tuple(z[:, part] for z in self.z), tuple(m[:, part] for m in self.mlp)
        )

    def in_full(self, weights: Weights, sources: slice) -> Float[Tensor, "prompt source column d_model"]:
        """Of the `sources` of a graph: the embedding, then of each layer its heads and its MLP."""
        prompts, columns, width = self.embedding.shape
        start, stop, _ = sources.indices(1 + len(self.z) * (weights.n_heads + 1))
        full = self.embedding.new_empty(prompts, stop - start, columns, width)
        if start == 0 < stop:
            full[:, 0] = self.embedding
        for depth, layer in enumerate(weights.layers):
            at = 1 + depth * (weights.n_heads + 1) - start
            if 0 <= at < stop - start:
                out = layer.out.weight.float().view(weights.n_heads, weights.d_head, width)
                full[:, at : at + weights.n_heads] = torch.einsum("pche,hed->phcd", self.z[depth], out)
            if 0 <= at + weights.n_heads < stop - start:
                full[:, at + weights.n_heads] = self.mlp[depth]
        return full


class Slopes(NamedTuple):
    """Gradients of the metric at what the readers of some layers read, over the last columns, zero where unread.

    heads: layer -> (the stream before it, gradients at q, k and v of all heads side by side, before rotation).
    mlps: layer -> at the stream that its MLP reads. logits: at the stream that the logits read.
    """

    heads: dict[int, tuple[Float[Tensor, "row prompt column d_model"], Float[Tensor, "row prompt column _"]]]
    mlps: dict[int, Float[Tensor, "row prompt column d_model"]]
    logits: Float[Tensor, "row prompt column d_model"]


@dataclass(frozen=True)
class Pass:
    """Rows that go up from some layer, and what they pass on the way that gradients can be taken at.

    Tensors of each layer: streams before it, q, k and v, what the MLP reads, z, what the MLP writes.
    """

    before: dict[int, Tensor]
    projected: dict[int, tuple[Tensor, Tensor, Tensor]]
    read: dict[int, Tensor]
    z: tuple[Float[Tensor, "row prompt _ head d_head"], ...]
    wrote: tuple[Float[Tensor, "row prompt _ d_model"], ...]
    final: Float[Tensor, "row prompt _ d_model"]

    def outputs(self, row: int) -> Outputs:
        """What components put out in a row that began at the embedding."""
        z, wrote = (tuple(part[row].detach() for part in parts) for parts in (self.z, self.wrote))
        return Outputs(z, wrote)

    def slopes(self, metric: Float[Tensor, ""], n_columns: int) -> Slopes:
        """Of `metric`, which hangs on self.final."""
        ways = [part for parts in self.projected.values() for part in parts]
        wanted = [*ways, *self.read.values(), self.final]
        moving = [part for part in wanted if part.requires_grad]
        found = iter(torch.autograd.grad(metric, moving))
        slopes = [
            pad(next(found) if part.requires_grad else torch.zeros_like(part), _in_front(part, n_columns))
            for part in wanted
        ]
        by_layer = zip(
            self.projected, zip(slopes[0::3], slopes[1::3], slopes[2::3], strict=False), strict=False
        )
        heads = {layer: (self.before[layer].detach(), torch.cat(parts, -1)) for layer, parts in by_layer}
        return Slopes(heads, dict(zip(self.read, slopes[len(ways) :], strict=False)), slopes[-1])


def _in_front(part: Tensor, n_columns: int) -> tuple[int, int, int, int]:
    return (0, 0, n_columns - part.shape[2], 0)


def upwards(
    weights: Weights,
    x: Float[Tensor, "row prompt _ d_model"],
    length: int,
    prefix: Trace | None,
    *,
    layer: int = 0,
    behind_attention: bool = False,
) -> Pass:
    """Runs rows whose residual stream before `layer`, or behind its attention, is `x`; differentiable.

    prefix: a run whose columns before x's are theirs too. The last layer is run for the answer alone.
    """
    before: dict[int, Tensor] = {}
    projected: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    read: dict[int, Tensor] = {}
    z: list[Tensor] = []
    wrote: list[Tensor] = []
    first, rotation = length - x.shape[2], weights.rotation(length) if weights.rotation else None
    for depth in range(layer, len(weights.layers)):
        block, between = weights.layers[depth], x
        if depth > layer or not behind_attention:
            before[depth] = x
            x = x[:, :, -1:] if depth + 1 == len(weights.layers) else x
            at = Attention(weights, depth, rotation)
            known = None if prefix is None else prefix.attention[depth].until(first)
            q, k, v = at.read(block.attention_norm(before[depth]), before[depth].shape[2] - x.shape[2])
            projected[depth] = (q, k, v)
            q, k, v = at.turned(q, k, v, first, length - x.shape[2])
            z.append(at.mix(at.pattern(q, k, known), v, known))
            between = x + block.out(z[-1].flatten(3))
        # A name of its own for what the MLP reads: the stream has other readers, whose gradients are not its.
        read[depth] = (x if weights.parallel else between).view_as(x)
        wrote.append(mlp(block, read[depth]))
        x = between + wrote[-1]
    return Pass(before, projected, read, tuple(z), tuple(wrote), x)


class Ends:
    """The own run's tokens and the donor, ready for runs between them; columns before they differ are left out."""

    def __init__(
        self, weights: Weights, tokens: Int[Tensor, "prompt pos"], donor: Donor, readout: Readout
    ) -> None:
        self.weights, self.donor, self.readout = weights, donor, readout
        self.length = tokens.shape[1]
        self.first = min(first_difference(tokens, donor), self.length - 1)
        self.given: Trace | None = None
        with torch.no_grad():
            self.embedding = weights.embed(tokens)[:, self.first :]
            if donor.tokens is not None:
                embedded = weights.embed(donor.tokens)
                self.given = trace(weights, embedded, answer_alone=True)
                self.given_embedding = embedded[:, self.first :]
            else:
                self.given_embedding = self._constant(Site("input", 0), self.embedding)

    def own(self) -> Trace:
        """The own run, without gradients."""
        with torch.no_grad():
            return trace(self.weights, self.embedding, behind=self.given, answer_alone=True)

    def between(self, points: Sequence[Point]) -> Float[Tensor, "row prompt column d_model"]:
        """The embeddings at these points of the way."""
        return torch.stack(
            [torch.lerp(self.given_embedding, self.embedding, point.share) for point in points]
        )

    def writes(self, own: Outputs) -> Writes:
        """Donor minus own of all sources."""
        z = tuple(self._change(Site("z", layer), value) for layer, value in enumerate(own.z))
        wrote = tuple(self._change(Site("mlp", layer), value) for layer, value in enumerate(own.mlp))
        return Writes(self.given_embedding - self.embedding, z, wrote)

    def _change(self, site: Site, own: Tensor) -> Tensor:
        if self.given is None:
            given = self._constant(site, own)
        else:
            given = self.given.z[site.layer] if site.kind == "z" else self.given.mlp(site.layer)
        missing = self.embedding.shape[1] - own.shape[1]
        return pad(given[:, -own.shape[1] :] - own, (0, 0) * (own.dim() - 2) + (missing, 0))

    def _constant(self, site: Site, like: Tensor) -> Tensor:
        """What mean and zero ablation put in place of `like`, the last columns of what is there."""
        columns = (self.length - like.shape[1], self.length)
        return self.donor.constant(site, columns, tuple(like.shape[2:]), like.device).expand_as(like)

    def slopes(self, run: Pass, points: Sequence[Point]) -> Slopes:
        """Gradients of the metric, each point with its weight."""
        metric = self.readout.of_residual(self.weights, run.final[:, :, -1]).metric
        weighed = metric * torch.tensor([point.weight for point in points])[:, None]
        return run.slopes(weighed.sum(), self.embedding.shape[1])


def embedding_path_edges(
    ends: Ends, points: Sequence[Point], rows_at_once: int, memory: int
) -> Float[Tensor, "prompt source reader"]:
    """Changes of the metric to first order, by gradients at `points` of the way between the embeddings.

    A pass there and back for each point, and one there for the donor; and one for the own run, where no point is it.
    """
    points = sorted(points, key=lambda point: -point.share)
    writes = None if points[0].share == 1 else ends.writes(ends.own().outputs())

    def work(rows: slice) -> Tensor:
        nonlocal writes
        run = upwards(ends.weights, ends.between(points[rows]).requires_grad_(), ends.length, ends.given)
        if writes is None:
            writes = ends.writes(run.outputs(0))
        slopes = ends.slopes(run, points[rows])
        del run
        with torch.no_grad():
            return meeting(ends.weights, writes, slopes, memory)

    return torch.stack(in_chunks(len(points), rows_at_once, work)).sum(0)


def output_path_edges(
    ends: Ends, points: Sequence[Point], rows_at_once: int, memory: int
) -> Float[Tensor, "prompt source reader"]:
    """The same with points on the way between what the sources themselves put out: the embedding, all heads of a
    layer, an MLP, each in turn, while all else is computed anew.

    For each of them, and each point, a pass there and back through the layers above.
    """
    weights, own = ends.weights, ends.own()
    writes, n_heads = ends.writes(own.outputs()), ends.weights.n_heads
    columns: list[Tensor] = []

    def of(sources: slice, x: Tensor, written: Tensor, layer: int, behind_attention: bool = False) -> None:
        def work(rows: slice) -> Tensor:
            shares = torch.tensor([1 - point.share for point in points[rows]], device=x.device)
            moved = x + shares.view(-1, 1, 1, 1) * written[:, -x.shape[1] :]
            run = upwards(
                weights,
                moved.requires_grad_(),
                ends.length,
                ends.given,
                layer=layer,
                behind_attention=behind_attention,
            )
            slopes = ends.slopes(run, points[rows])
            del run
            with torch.no_grad():
                return meeting(weights, writes, slopes, memory, sources)

        columns.append(torch.stack(in_chunks(len(points), rows_at_once, work)).sum(0))

    of(slice(0, 1), ends.embedding, writes.embedding, 0)
    for layer, block in enumerate(weights.layers):
        first = 1 + layer * (n_heads + 1)
        heads, beside = slice(first, first + n_heads), not weights.parallel
        written = writes.z[layer].flatten(2) @ block.out.weight.float()
        above = own.residual(layer + 1)
        of(heads, own.between[layer] if beside else above, written, layer + (not beside), beside)
        of(slice(heads.stop, heads.stop + 1), above, writes.mlp[layer], layer + 1)
    return torch.cat(columns, 1)


def meeting(
    weights: Weights, writes: Writes, slopes: Slopes, memory: int, sources: slice = slice(None)
) -> Float[Tensor, "prompt source reader"]:
    """What sources write times the gradient at what readers read, summed over columns and rows."""
    prompts, n_columns, width = writes.embedding.shape
    per_layer = weights.n_heads + 2 * weights.n_kv_heads + 1
    n_sources, n_readers = (
        1 + len(weights.layers) * (weights.n_heads + 1),
        len(weights.layers) * per_layer + 1,
    )
    start, stop, _ = sources.indices(n_sources)

    def work(part: slice) -> Tensor:
        full = writes.of_columns(part).in_full(weights, sources).flatten(2)
        matrix = full.new_zeros(prompts, stop - start, n_readers)

        def meet(below: int, first: int, readers: Float[Tensor, "prompt reader column d_model"]) -> None:
            n = min(stop, below) - start
            for row, sources_of, readers_of in zip(matrix, full, readers.flatten(2), strict=True):
                row[:n, first : first + len(readers_of)] = product(sources_of[:n], readers_of.T, None)

        for layer, (stream, slope) in slopes.heads.items():
            read = head_inputs(weights, layer, stream[:, :, part], slope[:, :, part])
            meet(1 + layer * (weights.n_heads + 1), layer * per_layer, read)
        for layer, slope in slopes.mlps.items():
            heads = 0 if weights.parallel else weights.n_heads
            at = 1 + layer * (weights.n_heads + 1) + heads
            meet(at, (layer + 1) * per_layer - 1, slope[:, :, part].sum(0)[:, None])
        meet(n_sources, n_readers - 1, slopes.logits[:, :, part].sum(0)[:, None])
        return matrix

    column = FLOAT * prompts * width * (stop - start + 4 * per_layer)
    return torch.stack(in_chunks(n_columns, max(1, memory // (4 * column)), work)).sum(0)


def head_inputs(
    weights: Weights,
    layer: int,
    stream: Float[Tensor, "row prompt column d_model"],
    slope: Float[Tensor, "row prompt column width"],
) -> Float[Tensor, "prompt reader column d_model"]:
    """Gradients at what q of every head and k and v of every group read, from those at q, k and v; rows summed."""
    block = weights.layers[layer]
    matrix = torch.cat([part.weight.float() for part in (block.query, block.key, block.value)], 1)
    matrix = matrix.view(weights.d_model, -1, weights.d_head)
    total: Tensor | None = None
    for x, by_reader in zip(stream, slope.view(*slope.shape[:-1], *matrix.shape[1:]), strict=True):
        behind = torch.einsum("pcre,dre->prcd", by_reader, matrix)
        before = way_back(block.attention_norm, x[:, None], behind)
        total = before if total is None else total.add_(before)
    assert total is not None
    return total


def way_back(
    norm: Norm,
    x: Float[Tensor, "prompt _ column d_model"],
    slope: Float[Tensor, "prompt reader column d_model"],
) -> Float[Tensor, "prompt reader column d_model"]:
    """From gradients behind a norm of `x` to those before it."""
    with torch.enable_grad():
        x = x.detach().expand_as(slope).requires_grad_()
        return torch.autograd.grad(norm(x), x, slope)[0]
