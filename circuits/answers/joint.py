"""A set of nodes patched together: how much of the answer comes back, beside random sets of its size.

The one idea: on the corrupted prompt x' the nodes put out at the last token what they put out on x, and
    recovered = (loss(x') - loss(set)) / (loss(x') - loss(x)),
loss the mean of -log p(right label) among the labels alone. The last token alone, for what nodes write there is what
they were chosen by.
Source: Lieberum et al. 2023 (arXiv 2307.09458); the tokens patched and the loss over labels are our definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from circuits.answers.effects import wrong_share
from circuits.answers.labels import Labels, labels_of
from circuits.batches import Batch, n_prompts
from circuits.behaviour import share_estimate
from circuits.circuit import Circuit
from circuits.donors import keep_masks, resample_donor
from circuits.evaluation.faithfulness import Estimate, mean_estimate, random_circuits, ratio_estimate
from circuits.metrics import label_log_probability, logit_difference
from circuits.model import Model
from circuits.patching import base_run
from circuits.readout import Outcome, Readout, concatenate, in_prompt_order

ENOUGH = 0.8
RANDOM = 25


@dataclass(frozen=True)
class Rows:
    """x', x, the set, and random sets: by row and prompt. net: the right label's; loss: -log p; first: it is it."""

    net: Float[np.ndarray, "row prompt"]
    loss: Float[np.ndarray, "row prompt"]
    first: Float[np.ndarray, "row prompt"]

    @property
    def brought(self) -> Float[np.ndarray, "set prompt"]:
        """What each set adds to the net logit of the corrupted prompt: the set, then random ones."""
        return np.asarray(self.net[2:] - self.net[0])

    @property
    def lost(self) -> Float[np.ndarray, "prompt"]:
        """What the corrupted prompt costs."""
        return np.asarray(self.loss[0] - self.loss[1])

    def recovered(self, row: int) -> float:
        corrupt, clean, part = (self.loss[i].mean() for i in (0, 1, 2 + row))
        return float((corrupt - part) / (corrupt - clean))


@dataclass(frozen=True)
class Joint:
    """accuracy, chance: among the labels. net, loss: on clean and corrupt prompts; with: with the set patched in.

    recovered: of the loss, None where that is not clearly higher on corrupted prompts. random: what 95% of the random
    sets recover, and their median; p_value: that one does as well. brought: what the set, and random ones on average,
    add to the net logit.
    """

    n_prompts: int
    accuracy: Estimate
    chance: float
    net_clean: Estimate
    net_corrupt: Estimate
    loss_clean: float
    loss_corrupt: float
    loss_with: float
    accuracy_with: Estimate
    recovered: Estimate | None
    random: tuple[float, float, float] | None
    p_value: float | None
    brought: Estimate
    brought_random: float


def smallest_set(scores: dict[str, float], share: float = ENOUGH) -> tuple[str, ...]:
    """The fewest nodes that hold so much of the positive score, the highest first."""
    positive = sorted(((s, name) for name, s in scores.items() if s > 0), key=lambda one: (-one[0], one[1]))
    if not positive:
        return ()
    held = np.cumsum([score for score, _ in positive])
    n = int(np.argmax(held >= share * held[-1] - 1e-12)) + 1
    return tuple(name for _, name in positive[:n])


def sets_beside(model: Model, nodes: Sequence[str], seed: int, n: int = RANDOM) -> list[tuple[str, ...]]:
    """The set, then random ones of as many heads and MLPs."""
    graph = model.graph
    circuit = Circuit(tuple(c for c in graph.components if c in set(nodes)), "", "")
    return [circuit.nodes, *random_circuits(graph, graph.components, circuit, n, seed)]


def patched_in(model: Model, batches: Sequence[Batch], sets: Sequence[Iterable[str]]) -> Rows:
    """A forward pass of x and x', and two a set for net logit and loss."""
    graph = model.graph
    keep = ~keep_masks(graph, sets)
    metrics = (logit_difference, label_log_probability)
    found: dict[object, list[Outcome]] = {metric: [] for metric in metrics}
    for batch in batches:
        last = torch.zeros_like(batch.clean, dtype=torch.bool)
        last[:, -1] = True
        runs = base_run(model, batch.corrupt, resample_donor(batch.clean))
        clean = base_run(model, batch.clean, resample_donor(batch.corrupt))
        for metric in metrics:
            read = Readout(batch, metric)
            rows = [runs.unpatched(read), clean.unpatched(read), runs.measure(keep, read, last)]
            found[metric].append(concatenate(rows, 0))
    one, two = (in_prompt_order(batches, found[metric]) for metric in metrics)
    labels = labels_of(model, batches)
    return Rows(
        one.metric.double().numpy() * wrong_share(labels),
        -two.metric.double().numpy(),
        one.preferred.double().numpy(),
    )


def joint(rows: Rows, labels: Labels, batches: Sequence[Batch], seed: int) -> Joint:
    apart = clearly_positive(rows.lost, seed)
    random = [rows.recovered(n) for n in range(1, len(rows.brought))] if apart else []
    return Joint(
        n_prompts=n_prompts(batches),
        accuracy=share_estimate(rows.first[1] > 0),
        chance=labels.chance,
        net_clean=mean_estimate(rows.net[1], seed),
        net_corrupt=mean_estimate(rows.net[0], seed),
        loss_clean=float(rows.loss[1].mean()),
        loss_corrupt=float(rows.loss[0].mean()),
        loss_with=float(rows.loss[2].mean()),
        accuracy_with=share_estimate(rows.first[2] > 0),
        recovered=ratio_estimate(rows.loss[0] - rows.loss[2], rows.lost, seed) if apart else None,
        random=_band(random),
        p_value=(1 + sum(r >= rows.recovered(0) for r in random)) / (1 + len(random)) if random else None,
        brought=mean_estimate(rows.brought[0], seed),
        brought_random=float(rows.brought[1:].mean()),
    )


def clearly_positive(values: Float[np.ndarray, "prompt"], seed: int) -> bool:
    """Whether the mean is, by its interval, so that it can be divided by."""
    return mean_estimate(values, seed).low > 0


def _band(values: list[float]) -> tuple[float, float, float] | None:
    return tuple(np.quantile(values, [0.025, 0.5, 0.975]).tolist()) if values else None
