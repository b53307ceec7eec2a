"""Interventions: what is done to named heads while a model runs.

The one idea: all of them change z, what heads put out before W_O, and nothing else, so the model's own forward pass
does the rest. A head that is knocked out puts out zero; scaling its value vectors by a factor scales z by it; and
where a head's attention is told where to go, z of the last token is the mean of the value vectors there. These are
read off the residual stream of the same run, so interventions upstream are felt. A channel, one direction that a
head writes, is closed by a change of z too (see circuits.weight_reading.channels).
Sources: Merullo et al. 2023 (arXiv 2310.08744), section 5, for attention; Yu et al. 2023 (arXiv 2310.15910), section
5, for value vectors; Ahn et al. 2025 (HeadHunter, arXiv 2506.10978) for interpolation; Yin et al. 2024 (LoFiT, arXiv
2406.01563) for offsets; sinks: see circuits.interventions.sinks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.batches import Batch
from circuits.donors import Donor
from circuits.engine.forward import Attention
from circuits.engine.weights import Weights
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.interventions.sinks import calibrated
from circuits.model import Edit, Model, Site
from circuits.patching import engine_weights, require_engine
from circuits.roles.attention import pattern
from circuits.weight_reading.channels import Channel, scaling
from circuits.weight_reading.heads import require_weights

Onto = Callable[[Batch], Bool[Tensor, "prompt pos"]]
"""The positions of each prompt that attention goes to, see circuits.interventions.positions."""


class Place(NamedTuple):
    """A layer of a run. before: the residual stream that it reads; None where no intervention asks for it."""

    model: Model
    batch: Batch
    layer: int
    before: Float[Tensor, "prompt pos d_model"] | None


@dataclass(frozen=True)
class Scale:
    """Value vectors multiplied by a factor, at every position: 0 knocks the heads out, 1 does nothing."""

    heads: tuple[str, ...]
    factor: float = 0.0
    reads_stream = False

    def change(self, z: Float[Tensor, "prompt pos head d_head"], heads: list[int], at: Place) -> None:
        z[:, :, heads] *= self.factor


@dataclass(frozen=True)
class Mean:
    """Outputs replaced by their means over prompts, position by position (see donors.mean_donor)."""

    heads: tuple[str, ...]
    donor: Donor
    reads_stream = False

    def change(self, z: Float[Tensor, "prompt pos head d_head"], heads: list[int], at: Place) -> None:
        means = self.donor.constant(Site("z", at.layer), (0, z.shape[1]), tuple(z.shape[2:]), z.device)
        z[:, :, heads] = means[:, heads].to(z.dtype)


@dataclass(frozen=True)
class Attend:
    """The last token's attention, after the softmax, spread evenly over the positions `onto`; 0 elsewhere.

    Needs the engine's weights, and leaves the rows of all other tokens as they are.
    """

    heads: tuple[str, ...]
    onto: Onto
    reads_stream = True

    def change(self, z: Float[Tensor, "prompt pos head d_head"], heads: list[int], at: Place) -> None:
        weights, before = read(at, z.shape[1])
        row = self.onto(at.batch).to(before)
        row = row / row.sum(-1, keepdim=True)
        told = torch.einsum("bp,bphd->bhd", row, values(weights, at.layer, before)[:, :, heads])
        z[:, -1, heads] = told.to(z.dtype)


def values(
    weights: Weights, layer: int, before: Float[Tensor, "prompt pos d_model"]
) -> Float[Tensor, "prompt pos head d_head"]:
    """Value vectors that each head reads, of the residual stream before its layer; heads of a group share theirs."""
    attention = Attention(weights, layer, None)
    v = attention.layer.value(attention.layer.attention_norm(before.float()))
    groups = weights.n_heads // weights.n_kv_heads
    return v.view(*v.shape[:2], weights.n_kv_heads, weights.d_head).repeat_interleave(groups, 2)


@dataclass(frozen=True)
class Channels:
    """Singular components of what heads write, times a factor, at every position. Needs the engine's weights."""

    channels: tuple[Channel, ...]
    factor: float = 0.0
    reads_stream = False

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(channel.head for channel in self.channels))

    def change(self, z: Float[Tensor, "prompt pos head d_head"], heads: list[int], at: Place) -> None:
        weights = require_weights(at.model, "A channel")
        for index in heads:
            name = f"a{at.layer}.h{index}"
            components = [channel.component for channel in self.channels if channel.head == name]
            matrix = scaling(weights, at.model.graph, name, components, self.factor)
            z[:, :, index] = (z[:, :, index].double() @ matrix).to(z.dtype)


@dataclass(frozen=True)
class Interpolate:
    """A share of every row of attention moved to the query's own position: A' = (1 - share) A + share I.

    So z moves as far towards the token's own value vector. Needs the engine's weights.
    """

    heads: tuple[str, ...]
    share: float
    reads_stream = True

    def change(self, z: Float[Tensor, "prompt pos head d_head"], heads: list[int], at: Place) -> None:
        weights, before = read(at, z.shape[1])
        own = values(weights, at.layer, before)[:, :, heads]
        z[:, :, heads] = torch.lerp(z[:, :, heads].float(), own, self.share).to(z.dtype)


@dataclass(frozen=True)
class Calibrate:
    """Attention to sinks times `factor`, the rest of it handed to the other positions. Needs the engine's weights."""

    heads: tuple[str, ...]
    factor: float = 0.4
    reads_stream = True

    def change(self, z: Float[Tensor, "prompt pos head d_head"], heads: list[int], at: Place) -> None:
        weights, before = read(at, z.shape[1])
        told = calibrated(pattern(weights, at.layer, before)[:, heads], self.factor)
        v = values(weights, at.layer, before)[:, :, heads]
        z[:, :, heads] = torch.einsum("bhqs,bshd->bqhd", told, v).to(z.dtype)


@dataclass(frozen=True)
class Offset:
    """A learned vector added to what each head puts out, at every position.

    learn: trains the vectors of whichever heads it is asked for, so that other heads get their own.
    """

    heads: tuple[str, ...]
    learn: Callable[[tuple[str, ...]], Float[Tensor, "head d_head"]]
    reads_stream = False

    @cached_property
    def vectors(self) -> Float[Tensor, "head d_head"]:
        # It is asked for in the middle of a run without gradients.
        with torch.inference_mode(False):
            return self.learn(self.heads)

    def change(self, z: Float[Tensor, "prompt pos head d_head"], heads: list[int], at: Place) -> None:
        rows = [row for row, head in enumerate(self.heads) if at.model.graph.node(head).layer == at.layer]
        z[:, :, heads] += self.vectors[rows].to(z)


def read(at: Place, length: int) -> tuple[Weights, Float[Tensor, "prompt pos d_model"]]:
    """What an intervention that reads the stream reads of it, and by which weights."""
    weights = engine_weights(at.model, length)
    assert weights is not None, "see require_possible"
    assert at.before is not None, "edits remember it for who reads the stream"
    return weights, at.before


Intervention = Scale | Mean | Attend | Interpolate | Calibrate | Offset | Channels


def edits(model: Model, batch: Batch, interventions: Sequence[Intervention]) -> dict[Site, Edit]:
    """What Model.run needs to carry the interventions out on `batch`, in their order."""
    found: dict[Site, Edit] = {}
    for layer in sorted({model.graph.node(head).layer for i in interventions for head in i.heads}):
        here = [(i, heads) for i in interventions if (heads := _in_layer(model.graph, i.heads, layer))]
        stream: list[Tensor] = []
        if any(i.reads_stream for i, _ in here):
            found[Site("input", layer)] = partial(_remember, stream)
        found[Site("z", layer)] = partial(_change, here, model, batch, layer, stream)
    return found


def _in_layer(graph: Graph, heads: Sequence[str], layer: int) -> list[int]:
    return [node.index for node in map(graph.node, heads) if node.layer == layer]


def _remember(stream: list[Tensor], value: Tensor) -> Tensor:
    stream[:] = [value]
    return value


def _change(
    here: Sequence[tuple[Intervention, list[int]]],
    model: Model,
    batch: Batch,
    layer: int,
    stream: list[Tensor],
    z: Tensor,
) -> Tensor:
    z = z.clone()
    for intervention, heads in here:
        intervention.change(z, heads, Place(model, batch, layer, stream[0] if stream else None))
    return z


def require_possible(model: Model, batches: Sequence[Batch], interventions: Sequence[Intervention]) -> None:
    """Raises CircuitError for what is no head of the model, or named twice; ModelError where the engine is needed."""
    named = [head for i in interventions for head in i.heads]
    require_heads(model.graph, named)
    if twice := sorted({head for head in named if named.count(head) > 1}):
        raise CircuitError(f"{', '.join(twice)} would be changed twice. Name each head once.")
    if any(i.reads_stream for i in interventions):
        require_engine(model, batches, "Changing where heads attend")


def require_heads(graph: Graph, names: Sequence[str]) -> None:
    """Raises one CircuitError for all names that are no heads of the model."""
    problems = []
    for name in names:
        try:
            if graph.node(name).kind != "head":
                problems.append(f"{name} is no head. Name heads, such as {graph.heads[0]}.")
        except CircuitError as problem:
            problems.append(str(problem))
    if problems or not names:
        raise CircuitError("\n".join(problems) or "There is no head to intervene on. Name one with --head.")


def with_heads(intervention: Intervention, other: Mapping[str, str]) -> Intervention:
    """The same done to other heads, each in the place of one; channels have controls of their own."""
    assert not isinstance(intervention, Channels)
    return replace(intervention, heads=tuple(other[head] for head in intervention.heads))
