"""Patching: a run in which some components put out what they put out in another run.

The one idea: every intervention of this project is a row of a keep-mask. A row runs the base tokens; kept
components compute as they please, the others have their output replaced by the donor's. One False in a row
patches one component (activation patching); all but a few False leaves a circuit alone (its evaluation).
Many rows share a forward pass, and no row sees another, so results do not depend on how rows are packed.
Replacement values follow Zhang & Nanda 2023 (arXiv 2309.16042): resample, mean or zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.batches import Batch
from circuits.graph import Graph
from circuits.metrics import Metric, correct, preferred
from circuits.model import Edit, Model, Site

Donor = Callable[[Site, Tensor], Tensor]
"""(site, what passes there [row, pos, ...]) -> what replaces it, for the same rows and positions."""

ROW_TOKENS = 8192
"""Tokens in one forward pass: enough to fill a processor, little enough for any memory."""


@dataclass(frozen=True)
class Outcome:
    """What a set of rows gave, one value a prompt: [row, prompt], on the CPU.

    metric: of the clean answers. preferred, correct: see circuits.metrics.
    """

    metric: Float[Tensor, "row prompt"]
    preferred: Bool[Tensor, "row prompt"]
    correct: Bool[Tensor, "row prompt"]


def component_sites(graph: Graph) -> tuple[Site, ...]:
    """The sites at which components can be read and replaced, in the order in which they write."""
    return tuple(Site(kind, layer) for layer in range(graph.n_layers) for kind in ("z", "mlp"))


def zero_donor(site: Site, value: Tensor) -> Tensor:
    """Zero ablation."""
    return torch.zeros_like(value)


def resample_donor(model: Model, tokens: Int[Tensor, "batch pos"]) -> Donor:
    """Resample ablation: what the components put out on `tokens`, row by row (one forward pass)."""
    captured = model.run(tokens, capture=component_sites(model.graph)).captured
    return lambda site, value: captured[site]


def mean_donor(model: Model, batches: Sequence[Batch]) -> Donor:
    """Mean ablation: each component's mean output at each token position (counted from the start).

    The mean is over the clean and the corrupt prompts of `batches`, so that neither behaviour is favoured; past
    the longest of them the last position's mean is used. Two forward passes a batch.
    """
    longest = max(batch.clean.shape[1] for batch in batches)
    sums: dict[Site, Tensor] = {}
    counts = torch.zeros(longest, device=model.device)
    for batch in batches:
        for tokens in (batch.clean, batch.corrupt):
            length = tokens.shape[1]
            counts[:length] += len(tokens)
            for site, value in model.run(tokens, capture=component_sites(model.graph)).captured.items():
                if site not in sums:
                    sums[site] = torch.zeros(longest, *value.shape[2:], device=value.device)
                sums[site][:length] += value.float().sum(0)
    means = {site: total / counts.view(-1, *[1] * (total.dim() - 1)) for site, total in sums.items()}

    def donor(site: Site, value: Tensor) -> Tensor:
        index = torch.arange(value.shape[1], device=value.device).clamp_max(longest - 1)
        return means[site][index].to(value.dtype).expand_as(value)

    return donor


def keep_masks(graph: Graph, circuits: Iterable[Iterable[str]]) -> Bool[Tensor, "row component"]:
    """One row a circuit: True at its components, in the order of graph.components."""
    kept = [set(circuit) for circuit in circuits]
    return torch.tensor([[c in circuit for c in graph.components] for circuit in kept], dtype=torch.bool)


def all_but_one(graph: Graph, components: Sequence[str]) -> Bool[Tensor, "row component"]:
    """One row a component: True everywhere but there."""
    everything = set(graph.components)
    return keep_masks(graph, (everything - {c} for c in components))


def measure(
    model: Model,
    batch: Batch,
    metric: Metric,
    *,
    keep: Bool[Tensor, "row component"],
    donor: Donor,
    base: Int[Tensor, "batch pos"] | None = None,
    where: Bool[Tensor, "batch pos"] | None = None,
    row_tokens: int = ROW_TOKENS,
) -> Outcome:
    """Runs every row of `keep` on every prompt of the batch.

    base: the tokens that run, clean where None. where: the positions at which components are replaced, all
    where None. Cost: len(keep) forward passes of the batch, packed into passes of about `row_tokens` tokens.
    """
    tokens = batch.clean if base is None else base
    at_once = max(1, row_tokens // tokens.numel())
    parts = []
    for start in range(0, len(keep), at_once):
        rows = keep[start : start + at_once]
        edits = dict(_edits(model.graph, rows.to(tokens.device), donor, len(tokens), where))
        logits = model.run(tokens.repeat(len(rows), 1), edit=edits).logits
        parts.append(read(logits.view(len(rows), len(tokens), -1), batch, metric))
    return concatenate(parts, dim=0)


def read(logits: Float[Tensor, "row prompt vocab"], batch: Batch, metric: Metric) -> Outcome:
    """Metric, preference and correctness of each row of logits."""
    answers, distractors = batch.answers, batch.distractors
    return Outcome(
        torch.stack([metric(row, answers, distractors) for row in logits]).cpu(),
        torch.stack([preferred(row, answers, distractors) for row in logits]).cpu(),
        torch.stack([correct(row, answers) for row in logits]).cpu(),
    )


def concatenate(parts: Sequence[Outcome], dim: int) -> Outcome:
    """Outcomes joined along rows (0) or prompts (1)."""
    return Outcome(
        torch.cat([p.metric for p in parts], dim),
        torch.cat([p.preferred for p in parts], dim),
        torch.cat([p.correct for p in parts], dim),
    )


def in_prompt_order(batches: Sequence[Batch], parts: Sequence[Outcome]) -> Outcome:
    """Outcomes of all batches joined, prompts in the order of the prompt set."""
    order = torch.argsort(torch.tensor([i for batch in batches for i in batch.index]))
    joined = concatenate(parts, dim=1)
    return Outcome(joined.metric[:, order], joined.preferred[:, order], joined.correct[:, order])


def _edits(
    graph: Graph,
    keep: Bool[Tensor, "row component"],
    donor: Donor,
    prompts: int,
    where: Bool[Tensor, "batch pos"] | None,
) -> Iterator[tuple[Site, Edit]]:
    by_layer = keep.view(len(keep), graph.n_layers, graph.n_heads + 1)
    for layer in range(graph.n_layers):
        heads, mlp = by_layer[:, layer, :-1], by_layer[:, layer, -1:]
        if not heads.all():
            site = Site("z", layer)
            yield site, partial(_replaced, site, heads[:, :, None], donor, prompts, where)
        if not mlp.all():
            site = Site("mlp", layer)
            yield site, partial(_replaced, site, mlp, donor, prompts, where)


def _replaced(
    site: Site,
    keep: Bool[Tensor, "row *unit"],
    donor: Donor,
    prompts: int,
    where: Bool[Tensor, "batch pos"] | None,
    value: Tensor,
) -> Tensor:
    """What passes at the site, the units that a row does not keep replaced by the donor's."""
    split = value.view(len(keep), prompts, *value.shape[1:])
    stays = keep[:, None, None]
    if where is not None:
        stays = stays | ~where.view(1, *where.shape, *[1] * (keep.dim() - 1))
    return torch.where(stays, split, donor(site, split[0])).view_as(value)
