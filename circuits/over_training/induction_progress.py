"""Progress measures of induction: how far each piece of the mechanism is, before the whole of it works.

The one idea: an induction circuit is two looks and a read-out. A label looks back at its item (ILA1), the target
looks at the label of the matching item (TILA2), of all that it gives to labels (TLA2), and what is said is one of the
labels of the context (CLA), in the end the right one (ICA). Each is measured by itself, so one sees what comes first.

Source: Reddy 2023 (The mechanistic basis of data dependence and abrupt learning in an in-context classification task,
arXiv 2312.03002), section 3, where a model has two layers of one head and a sequence is x1 l1 ... x8 l8 x.
Ours: items and labels are random tokens of any vocabulary, all different, the target one of the items; of several
layers and heads those count that do it most, chosen on one half of the sequences and measured on the other: for ILA1
in any layer but the last, for TILA2 in any but the first, and TLA2 is of the same head as TILA2. CLA is probability
over the whole vocabulary; ICA is the share of sequences where the right label is the most likely of their labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.engine.forward import steps
from circuits.errors import CircuitError
from circuits.evaluation.faithfulness import Estimate, mean_estimate
from circuits.roles.attention import pattern
from circuits.roles.role import Evidence

PAIRS, SEQUENCES = 8, 256
"""Items of a sequence, as in the paper, where the context allows; half of the sequences choose the heads."""

MEANING: Mapping[str, str] = {
    "ILA1": "attention from each label to its item",
    "TILA2": "attention from the target to the label of the matching item",
    "TLA2": "attention from the target to all labels",
    "CLA": "probability of the labels of the context",
    "ICA": "share of sequences whose likeliest label of the context is the right one",
}


class Sequences(NamedTuple):
    """Opening, then item and label in turn, then the target. items: where they stand; labels stand right behind.

    asked: which pair the target's item is of.
    """

    tokens: Int[Tensor, "sequence pos"]
    items: Int[Tensor, "pair"]
    asked: Int[Tensor, "sequence"]

    @property
    def labels(self) -> Int[Tensor, "pair"]:
        return self.items + 1


@dataclass(frozen=True)
class Measure:
    """The mean over sequences, and what even attention, or even probabilities, give."""

    found: Estimate
    chance: float


@dataclass(frozen=True)
class InductionProgress:
    """first: the head of ILA1. second: that of TILA2 and TLA2. n: sequences measured. measures: see MEANING."""

    first: str
    second: str
    n: int
    measures: Mapping[str, Measure]


def sequences(evidence: Evidence, n: int = SEQUENCES) -> Sequences:
    """Raises CircuitError where two pairs and a target do not fit the model."""
    start, room = len(evidence.opening), evidence.weights.longest - len(evidence.opening) - 1
    pairs = min(PAIRS, room // 2, len(evidence.tokens) // 2)
    if pairs < 2:
        raise CircuitError(
            f"Progress of induction needs two items, two labels and a target: {evidence.model.name} has room for "
            f"{max(room + 1, 0)} tokens, and {len(evidence.tokens)} that stand for text. Choose another model."
        )
    draw = np.random.default_rng([evidence.seed, PAIRS])
    blocks = np.stack([draw.permutation(evidence.tokens)[: 2 * pairs] for _ in range(n)])
    asked = draw.integers(pairs, size=n)
    targets = blocks[np.arange(n), 2 * asked][:, None]
    opening = np.tile(np.array(evidence.opening, dtype=blocks.dtype), (n, 1))
    device = evidence.model.device
    return Sequences(
        torch.tensor(np.hstack([opening, blocks, targets]), device=device),
        torch.arange(start, start + 2 * pairs, 2, device=device),
        torch.tensor(asked, device=device),
    )


@torch.inference_mode()
def induction_progress(evidence: Evidence, n: int = SEQUENCES) -> InductionProgress:
    """One forward pass of n sequences, queries and keys a second time.

    Raises CircuitError for a model of one layer or too short a context, ModelError where the engine does not serve.
    """
    graph, weights = evidence.model.graph, evidence.weights
    if graph.n_layers < 2:
        raise CircuitError(
            f"Induction takes a head in each of two layers, and {evidence.model.name} has one. Choose another model."
        )
    drawn = sequences(evidence, n)
    paid, last = [], torch.empty(0)
    for depth, step in enumerate(steps(weights, weights.embed(drawn.tokens))):
        paid.append(looks(pattern(weights, depth, step.before), drawn))
        last = step.after[:, -1]
    ila, tila, tla = (torch.stack(part, 1).double().cpu().numpy() for part in zip(*paid, strict=True))
    half = n // 2
    one, two = _best(ila[:half, :-1]), _best(tila[:half, 1:], first_layer=1)
    cla, ica = said(weights.logits(last).double().softmax(-1), drawn)
    samples = {
        "ILA1": ila[half:, one[0], one[1]],
        "TILA2": tila[half:, two[0], two[1]],
        "TLA2": tla[half:, two[0], two[1]],
        "CLA": cla[half:],
        "ICA": ica[half:],
    }
    chance = _chance(drawn, weights.vocab_size)
    measures = {k: Measure(mean_estimate(v, evidence.seed), chance[k]) for k, v in samples.items()}
    first, second = (f"a{layer}.h{head}" for layer, head in (one, two))
    return InductionProgress(first, second, n - half, measures)


def looks(
    found: Float[Tensor, "sequence head query source"], drawn: Sequences
) -> tuple[Float[Tensor, "sequence head"], ...]:
    """ILA, TILA and TLA of one layer."""
    from_target = found[:, :, -1]
    matching = drawn.labels[drawn.asked][:, None, None].expand(-1, found.shape[1], 1)
    return (
        found[:, :, drawn.labels, drawn.items].mean(-1),
        from_target.gather(2, matching)[..., 0],
        from_target[:, :, drawn.labels].sum(-1),
    )


def _best(samples: Float[np.ndarray, "sequence layer head"], first_layer: int = 0) -> tuple[int, int]:
    """Layer and head of the largest mean. first_layer: of the samples."""
    means = samples.mean(0)
    layer, head = np.unravel_index(int(means.argmax()), means.shape)
    return int(layer) + first_layer, int(head)


def said(
    shares: Float[Tensor, "sequence vocab"], drawn: Sequences
) -> tuple[Float[np.ndarray, "sequence"], Float[np.ndarray, "sequence"]]:
    """Probability of the labels together; and whether the right one is the likeliest of them, its share in a tie."""
    labels = shares.gather(1, drawn.tokens[:, drawn.labels])
    likeliest = labels == labels.max(1, keepdim=True).values
    right = likeliest.gather(1, drawn.asked[:, None])[:, 0] / likeliest.sum(1)
    return labels.sum(1).cpu().numpy(), right.double().cpu().numpy()


def _chance(drawn: Sequences, vocabulary: int) -> dict[str, float]:
    pairs, length = len(drawn.items), drawn.tokens.shape[1]
    return {
        "ILA1": float((1 / (drawn.labels.double() + 1)).mean()),
        "TILA2": 1 / length,
        "TLA2": pairs / length,
        "CLA": pairs / vocabulary,
        "ICA": 1 / pairs,
    }
