"""Metrics: what the model's last logits say of the behaviour, one value a prompt, larger is better.

Logit difference after Wang et al. 2022 (IOI); probability difference after Hanna et al. 2023 (greater-than).
A metric sees answers and distractors as tuples of tokens, so one-to-one and many-to-many tasks are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.errors import UnknownNameError

Tokens = Sequence[tuple[int, ...]]
Metric = Callable[[Float[Tensor, "batch vocab"], Tokens, Tokens], Float[Tensor, "batch"]]


def _pooled(values: Float[Tensor, "batch vocab"], tokens: Tokens, how: Callable[..., Tensor]) -> Tensor:
    if len({len(ids) for ids in tokens}) == 1:
        index = torch.tensor(list(map(list, tokens)), device=values.device)
        return how(values.gather(1, index), dim=1)
    return torch.stack([how(row[list(ids)], dim=0) for row, ids in zip(values, tokens, strict=True)])


def logit_difference(
    logits: Float[Tensor, "batch vocab"], answers: Tokens, distractors: Tokens
) -> Float[Tensor, "batch"]:
    """Mean logit of the answers minus mean logit of the distractors, in logits."""
    return _pooled(logits, answers, torch.mean) - _pooled(logits, distractors, torch.mean)


def probability_difference(
    logits: Float[Tensor, "batch vocab"], answers: Tokens, distractors: Tokens
) -> Float[Tensor, "batch"]:
    """Probability of the answers minus probability of the distractors, in -1..1."""
    probabilities = logits.softmax(-1)
    return _pooled(probabilities, answers, torch.sum) - _pooled(probabilities, distractors, torch.sum)


def preferred(
    logits: Float[Tensor, "batch vocab"], answers: Tokens, distractors: Tokens
) -> Bool[Tensor, "batch"]:
    """Whether the best answer has a higher logit than every distractor."""
    return _pooled(logits, answers, torch.amax) > _pooled(logits, distractors, torch.amax)


def correct(logits: Float[Tensor, "batch vocab"], answers: Tokens) -> Bool[Tensor, "batch"]:
    """Whether the most likely token of the whole vocabulary is an answer."""
    best = logits.argmax(-1).tolist()
    return torch.tensor([b in ids for b, ids in zip(best, answers, strict=True)], device=logits.device)


METRICS: dict[str, Metric] = {
    "logit-difference": logit_difference,
    "probability-difference": probability_difference,
}


def metric_named(name: str) -> Metric:
    """The metric called `name`. Raises UnknownNameError."""
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    return METRICS[name]
