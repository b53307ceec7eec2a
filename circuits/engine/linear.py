"""Patching to first order: how steeply the metric depends on what each component puts out.

The one idea: columns before clean and donor tokens differ are shared, so gradients flow through the others alone,
from the answer down to the first head outputs; parameters take none. What an MLP puts out goes straight into the
residual stream, so its gradient is that of the stream behind it. Two forward passes and a backward.

GradDrop (AtP*, Kramár et al. 2024, arXiv 2403.00745): effects along two paths may cancel, but not where the
gradient through what one layer writes is dropped. The stream behind that layer keeps its gradient, which then
skips the layer: so a drop is a backward pass through the layers below, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from circuits.donors import Donor, component_sites, first_difference
from circuits.engine.forward import Outputs, Trace, trace
from circuits.engine.weights import Weights
from circuits.model import Model, Site
from circuits.readout import Readout


class Estimate(NamedTuple):
    """How the metric changes to first order. alone: by a replacement at one position; together: at all of them."""

    alone: Float[Tensor, "*kind name prompt pos"]
    together: Float[Tensor, "*kind name prompt"]

    @classmethod
    def adding_up(cls, alone: Float[Tensor, "*kind name prompt pos"]) -> Estimate:
        """Where a replacement at all positions does what those at each do."""
        return cls(alone, alone.sum(-1))


def joined(parts: Iterable[Estimate], length: int) -> Estimate:
    """Names of all parts; alone is filled up with zeros in front, where nothing is replaced."""
    alone, together = zip(*parts, strict=True)
    padded = [pad(part, (length - part.shape[-1], 0)) for part in alone]
    return Estimate(torch.cat(padded, -3), torch.cat(together, -2))


@dataclass(frozen=True)
class Linear:
    """What components put out in a run, what the donor puts in its place, and slopes of the metric there.

    Each over the last columns, of the last layer perhaps fewer. slopes: the gradient; then, for GradDrop, the same
    with each layer dropped in turn. traces: both runs, where they went through the engine.
    """

    outputs: Outputs
    given: Outputs
    slopes: Iterable[Outputs]
    traces: tuple[Trace, Trace] | None = None

    def effects(self, slopes: Outputs, length: int) -> Estimate:
        """Of every component."""
        by_layer = zip(
            _products(self.given.z, self.outputs.z, slopes.z),
            _products(self.given.mlp, self.outputs.mlp, slopes.mlp),
            strict=True,
        )
        rows = [row for z, mlp in by_layer for row in (z.permute(2, 0, 1), mlp[None])]
        return joined(map(Estimate.adding_up, rows), length)


def _products(given: Sequence[Tensor], own: Sequence[Tensor], slopes: Sequence[Tensor]) -> Iterator[Tensor]:
    for replacing, replaced, slope in zip(given, own, slopes, strict=True):
        yield ((replacing.float() - replaced.float()) * slope.float()).sum(-1)


def engine_linear(
    weights: Weights,
    tokens: Int[Tensor, "prompt pos"],
    donor: Donor,
    readout: Readout,
    grad_drop: bool = False,
) -> Linear:
    """Through the engine: columns from the first difference on, of what the last layer puts out one."""
    first, other = min(first_difference(tokens, donor), tokens.shape[1] - 1), None
    with torch.no_grad():
        if donor.tokens is not None:
            other = trace(weights, weights.embed(donor.tokens), answer_alone=True)
        x = weights.embed(tokens)[:, first:]
    base = trace(weights, x.requires_grad_(), behind=other, answer_alone=True)
    metric = readout.of_residual(weights, base.after[None, :, -1]).metric.sum()
    outputs = base.outputs()
    outputs = Outputs(tuple(z.detach() for z in outputs.z), tuple(mlp.detach() for mlp in outputs.mlp))
    given = _last(other.outputs(), outputs) if other else _constants(donor, outputs, tokens.shape[1])
    return Linear(outputs, given, _slopes(base, metric, grad_drop), (base, other) if other else None)


def _slopes(base: Trace, metric: Tensor, grad_drop: bool) -> Iterator[Outputs]:
    n_layers = len(base.z)
    plain = _gradients(base, n_layers, metric)
    yield plain
    for layer in range(n_layers if grad_drop else 0):
        stream, behind = base.before[layer], plain.mlp[layer]
        skipping = pad(behind, (0, 0, stream.shape[1] - behind.shape[1], 0))
        below = _gradients(base, layer, stream, skipping)
        nothing = Outputs((torch.zeros_like(plain.z[layer]),), (torch.zeros_like(behind),))
        yield Outputs(
            (*below.z, *nothing.z, *plain.z[layer + 1 :]), (*below.mlp, *nothing.mlp, *plain.mlp[layer + 1 :])
        )


def _gradients(base: Trace, n_layers: int, of: Tensor, slope: Tensor | None = None) -> Outputs:
    """At what the first layers put out."""
    if n_layers == 0:
        return Outputs((), ())
    streams = (base.residual(layer + 1) for layer in range(n_layers))
    found = torch.autograd.grad(of, (*base.z[:n_layers], *streams), slope, retain_graph=True)
    return Outputs(found[:n_layers], found[n_layers:])


def portable_linear(
    model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor, readout: Readout
) -> Linear:
    """Through hooks on the model itself: all columns."""
    sites = component_sites(model.graph)
    captured, found = model.gradients(tokens, sites, lambda logits: readout.of_all(logits[None]).metric[0])

    def outputs(of: dict[Site, Tensor]) -> Outputs:
        z, mlp = (tuple(of[site] for site in sites if site.kind == kind) for kind in ("z", "mlp"))
        return Outputs(z, mlp)

    own = outputs(captured)
    if donor.tokens is None:
        given = _constants(donor, own, tokens.shape[1])
    else:
        given = outputs(model.run(donor.tokens, capture=sites).captured)
    return Linear(own, given, (outputs(found),))


def _last(given: Outputs, own: Outputs) -> Outputs:
    """`given` at the columns of `own`."""
    z = tuple(a[:, -b.shape[1] :] for a, b in zip(given.z, own.z, strict=True))
    return Outputs(z, tuple(a[:, -b.shape[1] :] for a, b in zip(given.mlp, own.mlp, strict=True)))


def _constants(donor: Donor, own: Outputs, length: int) -> Outputs:
    """What mean and zero ablation put in place of `own`."""

    def constant(site: Site, value: Tensor) -> Tensor:
        columns = (length - value.shape[1], length)
        return donor.constant(site, columns, tuple(value.shape[2:]), value.device)[None]

    z = tuple(constant(Site("z", layer), value) for layer, value in enumerate(own.z))
    return Outputs(z, tuple(constant(Site("mlp", layer), value) for layer, value in enumerate(own.mlp)))
