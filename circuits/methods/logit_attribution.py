"""Direct logit attribution: what each component writes straight onto the logit difference.

The one idea: the last residual stream is a sum of writes, and with the final norm's scale held at its value
the logits are linear in it; so the logit difference splits exactly into one number a component, plus the
embedding and the constant biases. It sees direct effects only: a head that acts through other heads gets about 0.
Source: Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits); Wang et al. 2022 (IOI).
Cost: one forward pass a prompt; head outputs are read at the last position alone.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from circuits.batches import Batch
from circuits.graph import INPUT, LOGITS
from circuits.interventions import component_sites
from circuits.methods.method import Method, Options, Problem
from circuits.metrics import logit_difference
from circuits.model import Model, Site, Unembedding
from circuits.probes import probe
from circuits.scores import Scores
from circuits.work import Rehearsal, Workload, batch_passes


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
    probe(model, problem.batches[0].clean[:2]).require_additive(model)
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
    """One forward pass a prompt, or two, and the folded unembedding once for each of them and each batch."""
    probe(model, problem.batches[0].clean[:2]).require_additive(model)
    times = 1 + options.contrast
    folding = Rehearsal(model.unembedding, times * len(problem.batches))
    return Workload(model.graph.components, batch_passes(model, problem.batches, times), (folding,))


def attribute(model: Model, batch: Batch, tokens: Tensor) -> Float[Tensor, "batch part"]:
    """[prompt, component..., input, biases, logit difference]: the parts, then what they should sum to."""
    run = model.run(tokens, capture=(Site("input"), Site("final"), *component_sites(model.graph)))
    last = {site: value[:, -1].float() for site, value in run.captured.items()}
    unembedding = model.unembedding()
    scale = unembedding.scale(last[Site("final")])
    direction = _directions(unembedding, batch)
    columns: list[Tensor] = []
    biases = (
        _pooled(unembedding.bias[:, None], batch.answers)
        - _pooled(unembedding.bias[:, None], batch.distractors)
    )[:, 0]
    for layer in range(model.graph.n_layers):
        weight, bias = model.head_writer(layer)
        heads = torch.einsum("bhd,hdm,bm->bh", last[Site("z", layer)], weight, direction)
        mlp = (last[Site("mlp", layer)] * direction).sum(-1, keepdim=True)
        columns += [heads / scale[:, None], mlp / scale[:, None]]
        biases = biases + direction @ bias / scale
    embedding = (last[Site("input")] * direction).sum(-1) / scale
    difference = logit_difference(run.logits, batch.answers, batch.distractors)
    return torch.cat([*columns, torch.stack([embedding, biases, difference], 1)], 1)


def _directions(unembedding: Unembedding, batch: Batch) -> Float[Tensor, "batch d_model"]:
    by_token = unembedding.weight.T
    return _pooled(by_token, batch.answers) - _pooled(by_token, batch.distractors)


def _pooled(
    by_token: Float[Tensor, "vocab width"], tokens: tuple[tuple[int, ...], ...]
) -> Float[Tensor, "batch width"]:
    return torch.stack([by_token[list(ids)].mean(0) for ids in tokens])


METHOD = Method(
    name="logit-attribution",
    summary="direct effect of every head, MLP and embedding on the logit difference, final norm frozen",
    paper="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits",
    options=AttributionOptions,
    score=score,
    direct=True,
    work=work,
)
