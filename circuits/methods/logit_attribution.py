"""Direct logit attribution: what each component writes straight onto the logit difference.

The one idea: the last residual stream is a sum of writes, and with the final norm's scale held at its value
the logits are linear in it; so the logit difference splits exactly into one number a component, plus the
embedding and the constant biases. It sees direct effects only: a head that acts through other heads gets about 0.
Source: Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits); Wang et al. 2022 (IOI).
Cost: one forward pass a prompt; outputs are read at the last position alone, layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from circuits.batches import Batch, require_single_tokens
from circuits.donors import component_sites
from circuits.engine.footprint import Footprint
from circuits.engine.forward import steps
from circuits.engine.weights import Weights
from circuits.graph import INPUT, LOGITS
from circuits.methods.method import Method, Options, Problem
from circuits.metrics import Tokens, logit_difference
from circuits.model import Edit, Model, Site, Unembedding
from circuits.patching import engine_weights
from circuits.probes import probe
from circuits.readout import Readout
from circuits.scores import Scores
from circuits.work import Rehearsal, Work, Workload, total, whole_passes

Sides = tuple[Tokens, Tokens]
"""Answers and distractors of each prompt, as columns of an unembedding."""


class AttributionOptions(Options):
    contrast: bool = Field(
        False,
        description="attribute clean minus corrupt instead of clean: what the corruption changes directly",
    )


def score(model: Model, problem: Problem, options: AttributionOptions) -> Scores:
    """Direct effect of every component on the logit difference of the clean answers, in logits.

    Positive raises the answers above the distractors. details["parts"] holds the means of the embedding and of
    the biases; with them the parts sum to the logit difference (details["largest_gap"]). The metric is always the
    logit difference: other metrics are not linear in the logits.
    Raises ModelError where the model's writes do not add up.
    """
    _require_additive(model, problem)
    order = np.argsort([i for batch in problem.batches for i in batch.index])
    parts = []
    for n, batch in enumerate(problem.batches):
        effects = attribute(model, batch, batch.clean)
        if options.contrast:
            effects = effects - attribute(model, batch, batch.corrupt)
        parts.append(effects)
        problem.progress("logit attribution", n + 1, len(problem.batches))
    table = torch.cat(parts)[order].double().cpu().numpy()
    components, n_components = model.graph.components, len(model.graph.components)
    values = table.mean(0)
    return Scores(
        METHOD.name,
        components,
        table[:, :n_components],
        details={
            "options": options.model_dump(),
            "unit": "logits",
            "parts": {INPUT: float(values[n_components]), "biases": float(values[n_components + 1])},
            "logit_difference": float(values[-1]),
            "largest_gap": float(np.abs(table[:, :-1].sum(1) - table[:, -1]).max()),
        },
        links={
            (name, LOGITS): float(value)
            for name, value in zip((*components, INPUT), values[: n_components + 1], strict=True)
        },
    )


def work(model: Model, problem: Problem, options: AttributionOptions) -> Workload:
    """One forward pass a prompt, or two."""
    _require_additive(model, problem)
    passes = total([_passes(model, batch) for batch in problem.batches]) * (1 + options.contrast)
    through_hooks = sum(engine_weights(model, b.clean.shape[1]) is None for b in problem.batches)
    # Through hooks the whole unembedding is folded for every batch, which no pass counts.
    folding = Rehearsal(model.unembedding, (1 + options.contrast) * through_hooks)
    return Workload(model.graph.components, passes, (folding,) if through_hooks else ())


def _passes(model: Model, batch: Batch) -> Work:
    """See attribute."""
    n, length = batch.clean.shape
    weights = engine_weights(model, length)
    if weights is None:
        return whole_passes(model, n, length)
    shape = Footprint(weights, n, length, 0, resamples=False)
    flops = shape.trace_flops(length, answer_alone=True)
    return Work(passes=n, flops=flops, calls=len(weights.layers) + 1, bytes=shape.rows_bytes(1, length))


def _require_additive(model: Model, problem: Problem) -> None:
    require_single_tokens(problem.batches, METHOD.name)
    if any(engine_weights(model, batch.clean.shape[1]) is None for batch in problem.batches):
        probe(model, problem.batches[0].clean[:2]).require_additive(model)


class Writes(NamedTuple):
    """What is written at the last position, before the last norm.

    components: along the direction from distractors to answers. embedding, bias (what attention adds whatever it
    sees, of all layers), final: whole. difference: what the logits themselves say.
    """

    components: Float[Tensor, "batch component"]
    embedding: Float[Tensor, "batch d_model"]
    bias: Float[Tensor, "d_model"]
    final: Float[Tensor, "batch d_model"]
    difference: Float[Tensor, "batch"]


def attribute(
    model: Model,
    batch: Batch,
    tokens: Int[Tensor, "batch pos"],
    edit: Mapping[Site, Edit] | None = None,
) -> Float[Tensor, "batch part"]:
    """[prompt, component..., input, biases, logit difference]: the parts, then what they should sum to.

    edit: what is changed in the run that is read, see Model.run.
    """
    weights = None if edit else engine_weights(model, tokens.shape[1])
    readout = Readout(batch, logit_difference)
    with torch.inference_mode():
        if weights is None:
            sides: Sides = (batch.answers, batch.distractors)
            unembedding = model.unembedding()
            direction = _direction(unembedding.weight.T, sides)
            writes = _through_hooks(model, tokens, readout, direction, edit or {})
        else:
            sides, unembedding = readout.renumbered, unembedding_of(weights, readout.tokens)
            direction = _direction(unembedding.weight.T, sides)
            writes = _through_engine(weights, tokens, readout, direction)
        vectors = torch.stack([writes.embedding, writes.bias.expand_as(writes.embedding)], 1)
        along = torch.cat([writes.components, (vectors * direction[:, None]).sum(-1)], 1)
        parts = along / unembedding.scale(writes.final)[:, None]
        parts[:, -1:] += _direction(unembedding.bias[:, None], sides)
        return torch.cat([parts, writes.difference[:, None].to(parts.device)], 1)


def _through_engine(weights: Weights, tokens: Tensor, readout: Readout, direction: Tensor) -> Writes:
    """Read layer by layer, so that no layer's outputs are held behind it."""
    columns: list[Tensor] = []
    x = weights.embed(tokens)
    for layer, step in zip(weights.layers, steps(weights, x, answer_alone=True), strict=True):
        writer = layer.out.weight.float().view(weights.n_heads, weights.d_head, -1)
        columns += _along(direction, step.z[:, -1], writer, (step.after - step.between)[:, -1])
        final = step.after[:, -1]
    biases = [layer.out.bias.float() for layer in weights.layers if layer.out.bias is not None]
    bias = torch.stack(biases).sum(0) if biases else x.new_zeros(weights.d_model)
    difference = readout.of_residual(weights, final[None]).metric[0]
    return Writes(torch.cat(columns, 1), x[:, -1], bias, final, difference)


def _through_hooks(
    model: Model, tokens: Tensor, readout: Readout, direction: Tensor, edit: Mapping[Site, Edit]
) -> Writes:
    last: dict[Site, Tensor] = {}

    def keeping(site: Site, value: Tensor) -> Tensor:
        value = edit[site](value) if site in edit else value
        last[site] = value[:, -1].float().clone()
        return value

    sites = (Site("input"), Site("final"), *component_sites(model.graph))
    kept = {site: partial(keeping, site) for site in sites}
    logits = model.run(tokens, edit={**edit, **kept}).logits
    columns: list[Tensor] = []
    bias = torch.zeros(model.d_model, device=model.device)
    for layer in range(model.graph.n_layers):
        writer, constant = model.head_writer(layer)
        columns += _along(direction, last[Site("z", layer)], writer, last[Site("mlp", layer)])
        bias = bias + constant
    difference = readout.of_all(logits[None]).metric[0]
    return Writes(torch.cat(columns, 1), last[Site("input")], bias, last[Site("final")], difference)


def _along(
    direction: Float[Tensor, "batch d_model"],
    z: Float[Tensor, "batch head d_head"],
    writer: Float[Tensor, "head d_head d_model"],
    mlp: Float[Tensor, "batch d_model"],
) -> tuple[Float[Tensor, "batch head"], Float[Tensor, "batch 1"]]:
    """What heads and MLP write along `direction`; it is pulled back through W_O, which is smaller than writes are."""
    pulled = torch.einsum("bm,hdm->bhd", direction, writer)
    return (z * pulled).sum(-1), (mlp * direction).sum(-1, keepdim=True)


def unembedding_of(weights: Weights, tokens: Int[Tensor, "token"]) -> Unembedding:
    """Of the tokens alone."""
    norm, columns = weights.final_norm, weights.unembed.weight[:, tokens].float()
    bias = columns.new_zeros(len(tokens)) if norm.bias is None else norm.bias @ columns
    if weights.unembed.bias is not None:
        bias = bias + weights.unembed.bias[tokens].float()
    folded = norm.gain[:, None] * columns
    return Unembedding(folded - folded.mean(0) if norm.centres else folded, bias, norm.eps, norm.centres)


def _direction(by_token: Float[Tensor, "token width"], sides: Sides) -> Float[Tensor, "batch width"]:
    """From the mean of a prompt's distractors to the mean of its answers."""
    answers, distractors = (torch.stack([by_token[list(ids)].mean(0) for ids in side]) for side in sides)
    return answers - distractors


METHOD = Method(
    name="logit-attribution",
    summary="direct effect of every head, MLP and embedding on the logit difference, final norm frozen",
    paper="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits",
    options=AttributionOptions,
    score=score,
    direct=True,
    work=work,
)
