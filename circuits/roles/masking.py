"""The masking test of a role: what a model still gets right when the heads that have it most look evenly.

The one idea: a score says where a head looks; whether the model needs it is said by taking the look away, and by
doing the same to as many random heads of the same layers, none of which is among those.
Source: Wu et al. 2024 (arXiv 2404.15574), section 4: top heads masked, against random others. Heads are masked as in
circuits.head_masking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from circuits.batches import by_prompt
from circuits.errors import CircuitError
from circuits.evaluation.faithfulness import Estimate
from circuits.head_masking import Mask, mask_of, masked_residual, random_sets
from circuits.metrics import correct
from circuits.progress import Progress, silent
from circuits.roles.needles import needles
from circuits.roles.role import Evidence
from circuits.statistics import bootstrap_interval

DRAWS = 20


@dataclass(frozen=True)
class Masking:
    """Share of tokens that are right: of the model, with the heads masked, with each random set masked.

    n: prompts. same_layers: whether random sets have as many heads in each layer; they are of any layer where one has
    too few others. p_value: of a random set that loses as much, with the +1 correction; None where there is nothing
    to draw from.
    """

    heads: tuple[str, ...]
    n: int
    whole: Estimate
    masked: Estimate
    drawn: tuple[tuple[str, ...], ...]
    random: tuple[float, ...]
    same_layers: bool

    @property
    def p_value(self) -> float | None:
        reached = sum(value <= self.masked.value + 1e-9 for value in self.random)
        return (1 + reached) / (1 + len(self.random)) if self.random else None


def masking_test(
    evidence: Evidence, heads: Sequence[str], draws: int = DRAWS, progress: Progress = silent
) -> Masking:
    """Accuracy on the task's prompts, or on needles where there is no task; a forward pass a prompt and draw.

    Raises CircuitError where every head is masked: there would be nothing to hold it against.
    """
    graph = evidence.model.graph
    if len(heads) >= len(graph.heads):
        raise CircuitError(
            f"{evidence.model.name} has {len(graph.heads)} heads, so the first {len(heads)} cannot be masked and "
            "others held against them. Give a smaller --mask-top."
        )
    drawn, same_layers = random_sets(graph, heads, draws, evidence.seed)
    random = []
    for done, some in enumerate(drawn):
        random.append(float(accuracy(evidence, mask_of(graph, some)).mean()))
        progress("masking", done + 1, len(drawn))
    own = (accuracy(evidence), accuracy(evidence, mask_of(graph, heads)))
    whole, masked = (_estimate(each, evidence.seed) for each in own)
    return Masking(tuple(heads), len(own[0]), whole, masked, drawn, tuple(random), same_layers)


@torch.inference_mode()
def accuracy(evidence: Evidence, mask: Mask | None = None) -> Float[np.ndarray, "prompt"]:
    """By prompt, the share of tokens that are the most likely ones: the answer, or the needle, spelled out."""
    weights = evidence.weights
    if evidence.batches:
        hits = []
        for batch in evidence.batches:
            last = masked_residual(weights, batch.clean, mask)[:, -1]
            hits.append(correct(weights.logits(last), batch.answers))
        return np.asarray(by_prompt(evidence.batches, torch.cat(hits).double()).cpu().numpy())
    rows = []
    for one in needles(evidence):
        m = one.needle.shape[1]
        spelled = torch.cat([one.prompts, one.needle[:, :-1]], 1)
        said = weights.logits(masked_residual(weights, spelled, mask)[:, -m:]).argmax(-1)
        rows.append((said == one.needle).double().mean(1))
    return np.asarray(torch.cat(rows).cpu().numpy())


def _estimate(values: Float[np.ndarray, "prompt"], seed: int) -> Estimate:
    interval = bootstrap_interval(values, seed=seed)
    return Estimate(float(values.mean()), float(interval.low), float(interval.high))
