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

from circuits.engine.forward import Outputs, trace
from circuits.engine.weights import Weights
from circuits.interventions import Donor, component_sites, first_difference
from circuits.model import Model, Site
from circuits.readout import Readout

BySite = Mapping[Site, Float[Tensor, "_ _ ..."]]
"""[prompt, column, *unit]; one prompt where it is the same for all."""


@dataclass(frozen=True)
class Slopes:
    """At each site: what the run puts out, what the donor does, the gradient; each over the last columns."""

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
    """Through the engine, residual stream in fp32; columns from the first difference on, of the last layer one."""
    first = min(first_difference(tokens, donor), tokens.shape[1] - 1)
    with torch.no_grad():
        other = (
            None if donor.tokens is None else trace(weights, weights.embed(donor.tokens), answer_alone=True)
        )
        x = weights.embed(tokens)[:, first:]
    base = trace(weights, x.requires_grad_(), behind=other, answer_alone=True)
    metric = readout.of_residual(weights, base.after[None, :, -1]).metric
    behind = [base.residual(layer + 1) for layer in range(len(weights.layers))]
    slopes = torch.autograd.grad(metric.sum(), (*base.z, *behind))
    outputs, gradients = (
        _by_site(base.outputs()),
        _by_site(Outputs(slopes[: len(behind)], slopes[len(behind) :])),
    )
    given = _by_site(other.outputs()) if other else None
    return Slopes(outputs, _given(donor, outputs, given, tokens.shape[1]), gradients)


def portable_slopes(
    model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor, readout: Readout
) -> Slopes:
    """Through hooks on the model itself, all columns."""
    sites = component_sites(model.graph)
    outputs, gradients = model.gradients(tokens, sites, lambda logits: readout.of_all(logits[None]).metric[0])
    given = None if donor.tokens is None else model.run(donor.tokens, capture=sites).captured
    return Slopes(outputs, _given(donor, outputs, given, tokens.shape[1]), gradients)


def _by_site(outputs: Outputs) -> BySite:
    z = {Site("z", layer): value.detach() for layer, value in enumerate(outputs.z)}
    return z | {Site("mlp", layer): value.detach() for layer, value in enumerate(outputs.mlp)}


def _given(donor: Donor, outputs: BySite, given: BySite | None, length: int) -> BySite:
    """What the donor puts in place of `outputs`, at the same columns; given: what it puts out where it runs."""
    if given is not None:
        return {site: given[site][:, -value.shape[1] :] for site, value in outputs.items()}
    return {
        site: donor.constant(site, (length - value.shape[1], length), tuple(value.shape[2:]), value.device)[
            None
        ]
        for site, value in outputs.items()
    }
