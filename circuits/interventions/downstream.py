"""Downstream: what an intervention does to heads that it does not touch, against what the circuit predicts.

The one idea: if a circuit is right, later heads that it holds for important are those that feel an intervention on
it: their attention from the last token moves, and what they write onto the logit difference changes. Sizes of change
and sizes of score should then rank heads alike (Merullo et al. 2023, arXiv 2310.08744, section 5).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from circuits.batches import Batch
from circuits.engine.weights import Weights
from circuits.interventions.effect import Shift, shifts
from circuits.interventions.intervention import Intervention, edits
from circuits.interventions.positions import common_names
from circuits.methods.logit_attribution import attribute
from circuits.model import Model, Site
from circuits.patching import engine_weights
from circuits.roles.attention import pattern
from circuits.statistics import Correlation, rank_correlation

LEVEL = 0.05


@dataclass(frozen=True)
class Head:
    """A later head. attention: from the last token to each named position; attribution: direct, in logits.

    member: whether the run's circuit keeps it. score: what the run says of it, None where it says nothing.
    """

    name: str
    attention: Mapping[str, Shift]
    attribution: Shift
    member: bool
    score: float | None


@dataclass(frozen=True)
class Downstream:
    """sizes: Spearman between the sizes of score and of change in logit attribution, over heads; signed: of the
    scores and changes themselves. None where fewer than three heads are scored, or all alike."""

    n_prompts: int
    heads: tuple[Head, ...]
    sizes: Correlation | None
    signed: Correlation | None

    @property
    def members(self) -> tuple[Head, ...]:
        """Those that the circuit keeps."""
        return tuple(head for head in self.heads if head.member)

    @property
    def predicted(self) -> bool | None:
        """Whether heads with larger scores clearly change more; None where that cannot be asked."""
        return None if self.sizes is None else self.sizes.rho > 0 and self.sizes.p_value < LEVEL


def downstream(
    model: Model,
    batches: Sequence[Batch],
    interventions: Sequence[Intervention],
    scores: Mapping[str, float],
    seed: int,
    circuit: Collection[str] = (),
) -> Downstream | None:
    """Heads of the layers behind the first that is changed, without those that are. Four forward passes a prompt.

    None where there are no such heads, or where the engine does not serve the model.
    """
    touched = [model.graph.node(head) for i in interventions for head in i.heads]
    first, named = min(node.layer for node in touched), {node.name for node in touched}
    heads = [h for h in model.graph.heads if model.graph.node(h).layer > first and h not in named]
    longest = max(batch.clean.shape[1] for batch in batches)
    weights = engine_weights(model, longest)
    if not heads or weights is None:
        return None
    names = common_names(batches)
    with torch.inference_mode():
        before, after = (_read(model, weights, batches, heads, names, i) for i in ((), interventions))
    found = shifts(before, after, seed)
    n = len(heads)
    each = tuple(
        Head(
            head,
            {name: found[n * (1 + place) + column] for place, name in enumerate(names)},
            found[column],
            head in circuit,
            scores.get(head),
        )
        for column, head in enumerate(heads)
    )
    scored = [head for head in each if head.score is not None]
    values = np.array([head.score for head in scored], dtype=float)
    changes = np.array([head.attribution.change.value for head in scored])
    sizes, signed = rank_correlation(abs(values), abs(changes)), rank_correlation(values, changes)
    return Downstream(len(before), each, sizes, signed)


def _read(
    model: Model,
    weights: Weights,
    batches: Sequence[Batch],
    heads: Sequence[str],
    names: Sequence[str],
    interventions: Sequence[Intervention],
) -> Float[np.ndarray, "prompt column"]:
    """Logit attribution of each head, then its attention to each name; prompts in the order of the set."""
    columns = [model.graph.components.index(head) for head in heads]
    parts = []
    for batch in batches:
        # Through hooks both times: two ways to round would look like a change.
        changed = edits(model, batch, interventions) or {Site("final"): lambda value: value}
        wrote = attribute(model, batch, batch.clean, changed)[:, columns]
        paid = at_names(attention(model, weights, batch, heads, interventions), batch, names)
        parts.append(torch.cat([wrote.cpu(), paid.transpose(1, 2).flatten(1)], 1).double())
    order = np.argsort([index for batch in batches for index in batch.index])
    return np.asarray(torch.cat(parts).numpy()[order])


def attention(
    model: Model,
    weights: Weights,
    batch: Batch,
    heads: Sequence[str],
    interventions: Sequence[Intervention] = (),
) -> Float[torch.Tensor, "prompt head pos"]:
    """From the last token to every position."""
    nodes = [model.graph.node(head) for head in heads]
    layers = sorted({node.layer for node in nodes})
    streams = model.run(
        batch.clean,
        capture=[Site("input", layer) for layer in layers],
        edit=edits(model, batch, interventions),
    ).captured
    rows = {layer: pattern(weights, layer, streams[Site("input", layer)])[:, :, -1] for layer in layers}
    return torch.stack([rows[node.layer][:, node.index] for node in nodes], 1)


def at_names(
    paid: Float[torch.Tensor, "prompt head pos"], batch: Batch, names: Sequence[str]
) -> Float[torch.Tensor, "prompt head name"]:
    """Attention to each of `names`, which every prompt has."""
    places = torch.tensor(
        [[pair.positions[name] for name in names] for pair in batch.pairs], dtype=torch.long
    )
    return paid.cpu().gather(2, places[:, None].expand(-1, paid.shape[1], -1))
