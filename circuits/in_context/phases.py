"""The three phases in numbers: what forerunners know of the text, what labels take over, what the query finds.

The one idea: each phase has a figure a layer (or a head) and its chance level beside it. Attention counts where it is
five times the even share: 5 / n_t for n_t tokens, and 5 / (n_t * labels) for the excess of right over wrong labels.
Source: Cho et al. 2024 (arXiv 2410.04468) and hc495/ICL_Circuit. Our definitions: the reference features are the
mean of the text's token embeddings by the model's own matrix, tokens that every text has left out (the paper: an
external encoder of sentences); the merge is read at the last example, where it has the most to go on; `previous`;
`random`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.weights import Weights
from circuits.errors import PromptError
from circuits.evaluation.faithfulness import Estimate
from circuits.graph import Graph
from circuits.in_context.kernel_alignment import Alignment, kernel_alignment, near
from circuits.in_context.layout import FewShot
from circuits.in_context.states import States
from circuits.statistics import bootstrap_interval

EVEN_TIMES = 5.0


@dataclass(frozen=True)
class Level:
    """Of how many tokens, examples and labels prompts have, means over prompts; same: share of the answer's label."""

    tokens: float
    examples: float
    labels: float
    same: float

    @property
    def threshold(self) -> float:
        return EVEN_TIMES / self.tokens

    @property
    def even(self) -> float:
        """What labels get together where attention is even."""
        return self.examples / self.tokens


@dataclass(frozen=True)
class Merged:
    """One layer: KA of y behind it with s before it, and of y's embedding, the label alone, with the same."""

    layer: int
    alignment: Alignment
    label_alone: float


@dataclass(frozen=True)
class Merger:
    """attention: mean A[y_i, s_i]; previous: what it pays to the token before where there is no label."""

    head: str
    attention: Estimate
    previous: float
    passes: bool


@dataclass(frozen=True)
class Retriever:
    """magnitude: attention of s_q to all labels; correct: to those of the answer less the others; likelihood: the
    share of the magnitude that goes to the answer's. random: what as many other columns get on average.
    """

    head: str
    magnitude: Estimate
    correct: Estimate
    likelihood: float
    random: float
    passes: bool
    passes_correct: bool


def level_of(prompts: Sequence[FewShot]) -> Level:
    rows = [
        (
            len(pair.clean),
            len(at.labels),
            len({*pair.answers, *pair.distractors}),
            sum(at.right) / len(at.labels),
        )
        for each in prompts
        for pair, at in zip(each.batch.pairs, each.layouts, strict=True)
    ]
    return Level(*(float(column) for column in np.mean(rows, 0)))


def text_features(weights: Weights, prompts: Sequence[FewShot]) -> Float[Tensor, "prompt d_model"]:
    """Of each prompt's x_q, in the order of the prompts. Raises PromptError where all ask about one text."""
    texts = {
        index: [pair.clean[i] for i in at.asked]
        for each in prompts
        for index, pair, at in zip(each.batch.index, each.batch.pairs, each.layouts, strict=True)
    }
    shared = reduce(set.intersection, (set(text) for text in texts.values()))
    rows = [[token for token in texts[index] if token not in shared] for index in sorted(texts)]
    if not any(rows):
        raise PromptError(
            "Every prompt asks about the same text; give prompts that ask about different ones."
        )
    device = prompts[0].batch.clean.device
    return torch.stack([_mean_embedding(weights, row, device) for row in rows])


def _mean_embedding(
    weights: Weights, tokens: Sequence[int], device: torch.device
) -> Float[Tensor, "d_model"]:
    if not tokens:
        return torch.zeros(weights.d_model)
    return weights.token_embedding(torch.tensor(tokens, device=device)).float().mean(0).cpu()


def summarised(states: States, features: Float[Tensor, "prompt d_model"], seed: int) -> tuple[Alignment, ...]:
    """By stream: KA of s_q with the text's features."""
    text = near(features)
    return tuple(kernel_alignment(near(each), text, seed) for each in states.query.unbind(1))


def merged(states: States, seed: int) -> tuple[Merged, ...]:
    label = near(states.label[:, 0])
    found = []
    for layer in range(states.label.shape[1] - 1):
        source = near(states.forerunner[:, layer])
        alignment = kernel_alignment(near(states.label[:, layer + 1]), source, seed)
        found.append(Merged(layer, alignment, kernel_alignment(label, source, seed).value.value))
    return tuple(found)


def mergers(states: States, graph: Graph, level: Level, seed: int) -> tuple[Merger, ...]:
    """Every head, the most attention first."""
    attention, previous = _by_head(states.merging, seed), states.previous.flatten(1).mean(0).tolist()
    found = [
        Merger(head, paid, before, paid.value > level.threshold)
        for head, paid, before in zip(graph.heads, attention, previous, strict=True)
    ]
    return tuple(sorted(found, key=lambda each: -each.attention.value))


def retrievers(states: States, graph: Graph, level: Level, seed: int) -> tuple[Retriever, ...]:
    """Every head, the most attention to labels first."""
    found = _by_head(states.found, seed)
    correct = _by_head(2 * states.right - states.found, seed)
    rows = zip(graph.heads, found, correct, strict=True)
    return tuple(sorted((_retriever(*row, level) for row in rows), key=lambda each: -each.magnitude.value))


def _retriever(head: str, found: Estimate, correct: Estimate, level: Level) -> Retriever:
    others = level.tokens - level.examples
    return Retriever(
        head,
        found,
        correct,
        (found.value + correct.value) / (2 * found.value),
        (1 - found.value) * level.examples / others,
        found.value > level.threshold,
        correct.value > level.threshold / level.labels,
    )


def _by_head(values: Float[Tensor, "prompt layer head"], seed: int) -> list[Estimate]:
    """In the order of the graph; the draws are the same for all."""
    samples = values.flatten(1).double().numpy()
    low, high = bootstrap_interval(samples, seed=seed)
    return [Estimate(*map(float, row)) for row in zip(samples.mean(0), low, high, strict=True)]
