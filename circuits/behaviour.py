"""Behaviour: what the model does with the prompts before anything is patched, and what it says where it fails.

The one idea: a circuit explains a behaviour that is there. Shares have Wilson intervals, which hold at 0% and 100%
too, where a bootstrap would claim certainty; logit differences have bootstrap intervals over prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.batches import Batch, make_batches, require_single_tokens
from circuits.evaluation.faithfulness import Estimate, mean_estimate
from circuits.metrics import correct, log_probability_difference, logit_difference, preferred
from circuits.model import Model
from circuits.prompts import PromptPair
from circuits.readout import Readout, in_prompt_order
from circuits.statistics import wilson_interval

SAID = 3
"""Most likely tokens that a failure shows."""


@dataclass(frozen=True)
class Figures:
    """preferred: share of prompts on which an answer beats all distractors; correct: on which it is the most likely
    token of all. clean, corrupt: logit difference."""

    n: int
    preferred: Estimate
    correct: Estimate
    clean: Estimate
    corrupt: Estimate


@dataclass(frozen=True)
class Failure:
    """A prompt on which the model is wrong. index: of the pair.

    preferred: whether it prefers the answer to the distractors at least. answer, distractor: the probability of the
    best of them. rank: of the answer among all tokens, 1 the first. says: its most likely tokens with their
    probabilities.
    """

    index: int
    preferred: bool
    difference: float
    answer: float
    distractor: float
    rank: int
    says: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Behaviour:
    """failures: those that prefer a distractor first, by how much."""

    whole: Figures
    by_template: Mapping[str, Figures]
    failures: tuple[Failure, ...]


def share_estimate(hits: Bool[np.ndarray, "prompt"]) -> Estimate:
    """The share of prompts, with its 95% Wilson interval."""
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return Estimate(float(hits.mean()), float(low), float(high))


def prefers_answer(
    model: Model, pairs: Sequence[PromptPair], batch_size: int = 64
) -> Bool[np.ndarray, "prompt"]:
    """Whether the model prefers an answer to all distractors, one forward pass a prompt (whole strings: a row).

    Raises as make_batches.
    """
    batches = make_batches(model, pairs, batch_size=batch_size)
    read = [
        Readout(batch, log_probability_difference, accuracy=True).of_all(model.run(batch.clean).logits[None])
        for batch in batches
    ]
    return np.asarray(in_prompt_order(batches, read).preferred[0].numpy(), dtype=bool)


def behaviour(
    model: Model,
    pairs: Sequence[PromptPair],
    index: Sequence[int] | None = None,
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> Behaviour:
    """What the model does with the pairs, two forward passes a prompt. index: what failures call each; their order
    where None. Raises as make_batches, and CircuitError where answers are whole strings."""
    names = list(index or range(len(pairs)))
    values = np.zeros((4, len(pairs)))
    failures: list[Failure] = []
    batches = make_batches(model, pairs, batch_size=batch_size)
    require_single_tokens(batches, "What the model says where it fails")
    for batch in batches:
        clean, corrupt = (model.run(tokens).logits.float() for tokens in (batch.clean, batch.corrupt))
        read = (
            preferred(clean, batch.answers, batch.distractors),
            correct(clean, batch.answers),
            logit_difference(clean, batch.answers, batch.distractors),
            logit_difference(corrupt, batch.answers, batch.distractors),
        )
        values[:, list(batch.index)] = torch.stack([row.double().cpu() for row in read]).numpy()
        failures += [
            _failure(model, batch, row, clean[row], names[batch.index[row]])
            for row in range(len(batch))
            if not (read[0][row] and read[1][row])
        ]
    templates = dict.fromkeys(pair.template for pair in pairs)
    rows = {t: [i for i, pair in enumerate(pairs) if pair.template == t] for t in templates}
    return Behaviour(
        _figures(values, seed),
        {template: _figures(values[:, those], seed) for template, those in rows.items()},
        tuple(sorted(failures, key=lambda failure: (failure.preferred, failure.difference))),
    )


def _figures(values: Float[np.ndarray, "figure prompt"], seed: int) -> Figures:
    return Figures(
        values.shape[1],
        share_estimate(values[0] > 0),
        share_estimate(values[1] > 0),
        mean_estimate(values[2], seed),
        mean_estimate(values[3], seed),
    )


def _failure(model: Model, batch: Batch, row: int, logits: Float[Tensor, "vocab"], index: int) -> Failure:
    answers, distractors = list(batch.answers[row]), list(batch.distractors[row])
    probabilities = logits.softmax(-1)
    best = logits[answers].max()
    top = probabilities.topk(min(SAID, len(logits)))
    said = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return Failure(
        index,
        bool(best > logits[distractors].max()),
        float(logits[answers].mean() - logits[distractors].mean()),
        float(probabilities[answers].max()),
        float(probabilities[distractors].max()),
        1 + int((logits > best).sum()),
        tuple((model.token_string(token), probability) for token, probability in said),
    )
