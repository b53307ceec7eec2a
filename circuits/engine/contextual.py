"""Contextual decomposition: every activation as a part that stems from chosen sources, and a rest.

The one idea: part + rest is always the activation of the plain run, so the plain run is made once and only parts are
carried up, many sources side by side; a source joins at its own layer, where its part is what it puts out beyond a
reference. Linear maps act on parts, and their bias is shared out by size; scores and patterns of parts are those that
the parts alone make; an activation's part is what is lost when the rest stands alone; where part and rest have
opposite signs the larger takes the sum. No gradient, and about a forward pass a source.

Source: Hsu et al. 2024, "Efficient automated circuit discovery in transformers using contextual decomposition"
(arXiv 2407.00886), section 3; first of all Murdoch et al. 2018. Our own reading, where the paper has no rule: RMSNorm
is LayerNorm without mean and bias; a gated MLP is an activation of two inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.forward import Attention, Outputs, Trace, rotate
from circuits.engine.weights import Affine, Layer, Norm, Weights
from circuits.graph import Node

TINY = torch.finfo(torch.float32).tiny
"""Keeps what has no size from being divided by nothing."""

Rows = Float[Tensor, "source prompt ..."]
"""Of every source its part of what passes at some place, over columns."""


def share(part: Tensor, rest: Tensor) -> Tensor:
    """Of what belongs to neither, by size."""
    return part.abs() / (part.abs() + rest.abs() + TINY)


def through_affine(affine: Affine, part: Rows, whole: Tensor) -> Rows:
    """part W + its share of the bias."""
    plain = Affine(affine.weight)
    moved = plain(part)
    if affine.bias is None:
        return moved
    return moved + affine.bias.float() * share(moved, plain(whole) - moved)


def through_norm(norm: Norm, part: Rows, whole: Tensor) -> Rows:
    """Divided by the scale of the whole; the bias is shared."""
    spread = whole - whole.mean(-1, keepdim=True) if norm.centres else whole
    centred = part - part.mean(-1, keepdim=True) if norm.centres else part
    scaled = centred / (spread.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.gain
    return scaled if norm.bias is None else scaled + norm.bias * share(part, whole - part)


def settled(part: Rows, whole: Tensor) -> Rows:
    """Where part and rest pull against each other the larger takes the sum, and the other nothing."""
    rest = whole - part
    winner = torch.where(part.abs() >= rest.abs(), whole.expand_as(part), 0.0)
    return torch.where(part * rest < 0, winner, part)


class Parts(NamedTuple):
    """One layer, of every source so far: its part of what heads read (q, k, v by head; k and v by kv head), of what
    they put out, and of what the MLP writes; each beside the whole, which has no sources."""

    layer: int
    reads: tuple[tuple[Rows, Tensor], ...]
    z: tuple[Rows, Tensor]
    mlp: tuple[Rows, Tensor]


@dataclass(frozen=True)
class Decomposition:
    """Sources of one batch that was run plainly.

    base, given: the plain run, and the reference that each source is compared with. sources: heads and MLPs in the
    order of the graph. by_sign: whether the sign rule holds; without it a linear model is decomposed exactly.
    """

    weights: Weights
    base: Trace
    given: Outputs
    sources: Sequence[Node]
    by_sign: bool = True

    def climb(self, until: int | None = None) -> Iterator[Parts | Rows]:
        """Layer by layer; below the lowest source there is nothing to tell. Last comes the part of the final stream,
        unless it ends with layer `until`."""
        prompts, columns, width = self.base.after.shape
        x = self.base.after.new_zeros(0, prompts, columns, width)
        last = len(self.weights.layers) - 1 if until is None else until
        for depth in range(min(node.layer for node in self.sources), last + 1):
            parts, x = self._layer(depth, x)
            yield parts
        if until is None:
            yield x

    def logits(self, final: Rows, tokens: Tensor | None = None) -> Float[Tensor, "source prompt token"]:
        """The part of the last column's logits, of `tokens` or of the whole vocabulary."""
        norm, unembed, whole = self.weights.final_norm, self.weights.unembed, self.base.after[:, -1]
        if tokens is not None:
            bias = unembed.bias
            unembed = Affine(unembed.weight[:, tokens].float(), None if bias is None else bias[tokens])
        return through_affine(unembed, through_norm(norm, final[:, :, -1], whole), norm(whole))

    def _layer(self, depth: int, x: Rows) -> tuple[Parts, Float[Tensor, "more prompt ..."]]:
        """Its parts, and the stream behind it, where its own sources have joined."""
        base = self.base
        reads, z, whole_z = self._attend(depth, x)
        z_here = torch.cat([z, self._new_heads(depth)])
        x = torch.cat([x, x.new_zeros(len(z_here) - len(x), *x.shape[1:])])
        layer = self.weights.layers[depth]
        wrote = through_affine(layer.out, z_here.flatten(3), whole_z.flatten(2))
        read, whole_read = x, base.before[depth]
        if not self.weights.parallel:
            x = self._settled(x + wrote, base.between[depth])
            read, whole_read, wrote = x, base.between[depth], torch.zeros_like(wrote)
        mlp = self._mlp(layer, read, whole_read)
        parts = Parts(depth, reads, (z, whole_z), (mlp, base.mlp(depth)))
        new = [node for node in self.sources if node.kind == "mlp" and node.layer == depth]
        beyond = base.mlp(depth) - self.given.mlp[depth]
        x = torch.cat([x + wrote + mlp, beyond[None].expand(len(new), *x.shape[1:])])
        return parts, self._settled(x, base.residual(depth + 1))

    def _settled(self, part: Rows, whole: Tensor) -> Rows:
        return settled(part, whole) if self.by_sign else part

    def _new_heads(self, depth: int) -> Float[Tensor, "source prompt column head d_head"]:
        """z of the sources of this layer: what they put out beyond the reference, and nothing in other heads."""
        heads = [node.index for node in self.sources if node.kind == "head" and node.layer == depth]
        beyond = self.base.z[depth] - self.given.z[depth]
        own = torch.nn.functional.one_hot(torch.tensor(heads, dtype=torch.long), beyond.shape[2])
        return beyond[None] * own.to(beyond)[:, None, None, :, None]

    def _attend(self, depth: int, x: Rows) -> tuple[tuple[tuple[Rows, Tensor], ...], Tensor, Tensor]:
        weights, base = self.weights, self.base
        length = base.before[depth].shape[1]
        at = Attention(weights, depth, weights.rotation(length) if weights.rotation else None)
        layer, whole = at.layer, base.before[depth]
        normed, whole_normed = through_norm(layer.attention_norm, x, whole), layer.attention_norm(whole)
        read = at.read(whole_normed[None])
        rules = (
            (layer.query, layer.query_norm, True),
            (layer.key, layer.key_norm, True),
            (layer.value, None, False),
        )
        q, k, v = (
            self._turned(at, norm, through_affine(affine, normed, whole_normed), value, rotates)
            for (affine, norm, rotates), value in zip(rules, read, strict=True)
        )
        z = at.mix(at.pattern(q, k, None), v, None)
        wholes = at.turned(*read, 0, 0)
        reads = tuple((part, value[0]) for part, value in zip((q, k, v), wholes, strict=True))
        return reads, z, base.z[depth]

    def _turned(self, at: Attention, norm: Norm | None, part: Rows, whole: Tensor, rotates: bool) -> Tensor:
        """By head, normalised and rotated as the whole is: both are linear in the part."""
        part, whole = (
            x.view(*x.shape[:-1], x.shape[-1] // self.weights.d_head, self.weights.d_head)
            for x in (part, whole)
        )
        part = through_norm(norm, part, whole) if norm else part
        return rotate(part, *at.rotation) if at.rotation and rotates else part

    def _mlp(self, layer: Layer, x: Rows, whole: Tensor) -> Rows:
        normed, whole = through_norm(layer.mlp_norm, x, whole), layer.mlp_norm(whole)

        def into(affine: Affine) -> tuple[Rows, Tensor]:
            value = affine(whole)
            return self._settled(through_affine(affine, normed, whole), value), value

        part, value = into(layer.mlp_in)
        act = layer.activation
        if layer.gate is None:
            hidden = act(value)
            part = hidden - act(value - part)
        else:
            gate, gate_value = into(layer.gate)
            hidden = act(gate_value) * value
            part = hidden - act(gate_value - gate) * (value - part)
        wrote = through_affine(layer.mlp_out, part, hidden)
        return self._settled(wrote, layer.mlp_out(hidden))
