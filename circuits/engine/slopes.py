"""How steeply the metric depends on what each component puts out: two forward passes and a backward.

The one idea: columns before clean and donor tokens differ are shared, so gradients flow through the others alone,
from the answer down to the first head outputs; parameters take none. What an MLP puts out goes straight into the
residual stream, so its gradient is that of the stream behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.engine.forward import Trace, trace
from circuits.engine.weights import Weights
from circuits.interventions import Donor, component_sites, first_difference
from circuits.model import Model, Site
from circuits.readout import Readout

BySite = Mapping[Site, Float[Tensor, "_ _ ..."]]
"""[prompt, column, *unit]; one prompt where it is the same for all."""


@dataclass(frozen=True)
class Slopes:
    """At each site, over the columns from `first` on: what the run puts out, what the donor does, the gradient."""

    first: int
    outputs: BySite
    given: BySite
    gradients: BySite

    def effects(self, site: Site) -> Float[Tensor, "prompt column unit"]:
        """How the metric changes to first order where the donor's output replaces that of one head, or the MLP."""
        change = self.given[site].float() - self.outputs[site].float()
        effect = (change * self.gradients[site].float()).sum(-1)
        return effect if site.kind == "z" else effect[..., None]


def engine_slopes(
    weights: Weights, tokens: Int[Tensor, "prompt pos"], donor: Donor, readout: Readout
) -> Slopes:
    """Through the engine, residual stream in fp32."""
    first = min(first_difference(tokens, donor), tokens.shape[1] - 1)
    with torch.no_grad():
        other = None if donor.tokens is None else trace(weights, weights.embed(donor.tokens))
        x = weights.embed(tokens)[:, first:]
    base = trace(weights, x.requires_grad_(), behind=other)
    metric = readout.of_residual(weights, base.after[None, :, -1]).metric
    stream = (*base.before[1:], base.after)
    found = torch.autograd.grad(metric.sum(), (*base.z, *stream))
    depth = len(weights.layers)
    outputs = _by_site(base)
    given = _constants(donor, outputs, first) if other is None else _by_site(other.since(first))
    gradients = {Site("z", layer): found[layer] for layer in range(depth)}
    gradients |= {Site("mlp", layer): found[depth + layer] for layer in range(depth)}
    return Slopes(first, outputs, given, gradients)


def portable_slopes(
    model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor, readout: Readout
) -> Slopes:
    """Through hooks on the model itself, all columns."""
    sites = component_sites(model.graph)
    outputs, gradients = model.gradients(tokens, sites, lambda logits: readout.of_all(logits[None]).metric[0])
    if donor.tokens is None:
        given: BySite = _constants(donor, outputs, 0)
    else:
        given = model.run(donor.tokens, capture=sites).captured
    return Slopes(0, outputs, given, gradients)


def _by_site(run: Trace) -> BySite:
    z = {Site("z", layer): value.detach() for layer, value in enumerate(run.z)}
    return z | {Site("mlp", layer): run.mlp(layer).detach() for layer in range(len(run.z))}


def _constants(donor: Donor, outputs: BySite, first: int) -> BySite:
    """What mean and zero ablation put in place of `outputs`."""
    return {
        site: donor.constant(site, (first, first + value.shape[1]), tuple(value.shape[2:]), value.device)[
            None
        ]
        for site, value in outputs.items()
    }
