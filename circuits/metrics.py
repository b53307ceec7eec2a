"""Metrics: what the model's last logits say of the behaviour, one value a row and prompt, larger is better.

Logit difference after Wang et al. 2022 (IOI); probability difference after Hanna et al. 2023 (greater-than).
A metric sees answers and distractors as tuples of tokens, so one-to-one and many-to-many tasks are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.errors import UnknownNameError

Tokens = Sequence[tuple[int, ...]]
Metric = Callable[[Float[Tensor, "*rows batch vocab"], Tokens, Tokens], Float[Tensor, "*rows batch"]]


def _pooled(values: Float[Tensor, "*rows batch vocab"], tokens: Tokens, how: Callable[..., Tensor]) -> Tensor:
    if len({len(ids) for ids in tokens}) == 1:
        index = torch.tensor(list(map(list, tokens)), dtype=torch.long, device=values.device)
        return how(values.gather(-1, index.expand(*values.shape[:-1], -1)), dim=-1)
    return torch.stack(
        [how(values[..., row, list(ids)], dim=-1) for row, ids in enumerate(tokens)],
        dim=-1,
    )


def logit_difference(
    logits: Float[Tensor, "*rows batch vocab"], answers: Tokens, distractors: Tokens
) -> Float[Tensor, "*rows batch"]:
    """Mean logit of the answers minus mean logit of the distractors, in logits."""
    return _pooled(logits, answers, torch.mean) - _pooled(logits, distractors, torch.mean)


def answer_probability(
    logits: Float[Tensor, "*rows batch vocab"], answers: Tokens
) -> Float[Tensor, "*rows batch"]:
    """Probability of all tokens of a side together."""
    return _pooled(logits.softmax(-1), answers, torch.sum)


def probability_difference(
    logits: Float[Tensor, "*rows batch vocab"], answers: Tokens, distractors: Tokens
) -> Float[Tensor, "*rows batch"]:
    """Probability of the answers minus probability of the distractors, in -1..1."""
    probabilities = logits.softmax(-1)
    return _pooled(probabilities, answers, torch.sum) - _pooled(probabilities, distractors, torch.sum)


def log_probability_difference(
    logits: Float[Tensor, "*rows batch vocab"], answers: Tokens, distractors: Tokens
) -> Float[Tensor, "*rows batch"]:
    """Mean log-probability of the answers minus that of the distractors, in nats; a side that is empty counts 0.

    With answers and distractors of one token it is their logit difference.
    """
    values = logits.log_softmax(-1)
    return _pooled(values, answers, _mean_or_zero) - _pooled(values, distractors, _mean_or_zero)


def label_log_probability(
    logits: Float[Tensor, "*rows batch vocab"], answers: Tokens, distractors: Tokens
) -> Float[Tensor, "*rows batch"]:
    """Log-probability of the answers where nothing but answers and distractors can be said, in nats."""
    labels = [(*right, *wrong) for right, wrong in zip(answers, distractors, strict=True)]
    return _pooled(logits, answers, torch.logsumexp) - _pooled(logits, labels, torch.logsumexp)


def _mean_or_zero(values: Tensor, dim: int) -> Tensor:
    return values.mean(dim) if values.shape[dim] else values.sum(dim)


def _best(values: Tensor, dim: int) -> Tensor:
    """The largest; minus infinity of none."""
    return values.amax(dim) if values.shape[dim] else values.sum(dim) - torch.inf


def preferred(
    logits: Float[Tensor, "*rows batch vocab"], answers: Tokens, distractors: Tokens
) -> Bool[Tensor, "*rows batch"]:
    """Whether the best answer has a higher logit than every distractor."""
    return _pooled(logits, answers, _best) > _pooled(logits, distractors, _best)


def correct(logits: Float[Tensor, "*rows batch vocab"], answers: Tokens) -> Bool[Tensor, "*rows batch"]:
    """Whether the most likely token of the whole vocabulary is an answer."""
    best = logits.argmax(-1)
    hits = [(best[..., row, None] == best.new_tensor(ids)).any(-1) for row, ids in enumerate(answers)]
    return torch.stack(hits, dim=-1)


@dataclass(frozen=True, eq=False)
class Closeness:
    """A metric of how near a run's next-token distribution is to the model's own: minus KL(own || run), in nats.

    own: last logits of the model itself, of the prompts that it is asked about.
    """

    own: Float[Tensor, "prompt vocab"]

    def __call__(
        self, logits: Float[Tensor, "*rows batch vocab"], answers: Tokens, distractors: Tokens
    ) -> Float[Tensor, "*rows batch"]:
        own = self.own.log_softmax(-1)
        return (own.exp() * (logits.log_softmax(-1) - own)).sum(-1)

    def of_prompts(self, part: slice) -> Closeness:
        """The same for some of the prompts."""
        return Closeness(self.own[part])


METRICS: dict[str, Metric] = {
    "logit-difference": logit_difference,
    "probability-difference": probability_difference,
    "log-probability-difference": log_probability_difference,
}

READS_SINGLE_TOKENS: frozenset[Metric] = frozenset(
    {logit_difference, probability_difference, label_log_probability}
)
"""Metrics that are no sum over the tokens of a string."""

READS_ANSWERS_ALONE: frozenset[Metric] = frozenset({logit_difference, label_log_probability})
"""Metrics that are the same where the rest of the vocabulary is left out."""


def metric_named(name: str) -> Metric:
    """The metric called `name`. Raises UnknownNameError."""
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    return METRICS[name]
