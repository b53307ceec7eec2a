"""Reading a run: from last logits to the metric, and whether the model still prefers the answer.

The one idea: most metrics read the logits of answers and distractors alone, so nothing else is unembedded unless
the metric, or the question whether the answer is the most likely token of all, needs the whole vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.batches import Batch, by_prompt
from circuits.engine.weights import Weights
from circuits.errors import CircuitError
from circuits.metrics import (
    READS_ANSWERS_ALONE,
    READS_SINGLE_TOKENS,
    Closeness,
    Metric,
    Tokens,
    correct,
    preferred,
)


@dataclass(frozen=True)
class Outcome:
    """What a set of rows gave, one value a prompt: [row, prompt], on the CPU.

    metric: of the clean answers; some read several numbers. preferred, correct: see circuits.metrics; correct is None
    where not asked for.
    """

    metric: Float[Tensor, "row prompt *reading"]
    preferred: Bool[Tensor, "row prompt"]
    correct: Bool[Tensor, "row prompt"] | None = None

    @property
    def accurate(self) -> Bool[Tensor, "row prompt"]:
        """correct, for who asked for it."""
        assert self.correct is not None, "accuracy was not asked for"
        return self.correct


@dataclass(frozen=True)
class Readout:
    """How to read the rows of a batch. accuracy: whether to ask which prompts are answered correctly."""

    batch: Batch
    metric: Metric
    accuracy: bool = False

    def __post_init__(self) -> None:
        if self.metric in READS_SINGLE_TOKENS and self.batch.has_strings:
            raise CircuitError(
                "Answers that are scored as whole strings take the metric log-probability-difference: logits of "
                "several tokens do not add up to one number. Use it, or --answers first-token."
            )

    @property
    def reads_vocabulary(self) -> bool:
        return self.accuracy or self.metric not in READS_ANSWERS_ALONE

    def of_prompts(self, part: slice) -> Readout:
        """The same for some of the prompts."""
        metric = self.metric.of_prompts(part) if isinstance(self.metric, Closeness) else self.metric
        return replace(self, batch=self.batch.of_rows(range(len(self.batch))[part]), metric=metric)

    @cached_property
    def tokens(self) -> Int[Tensor, "token"]:
        """Answers and distractors of all prompts, each once."""
        both = (*self.batch.answers, *self.batch.distractors)
        return torch.tensor(sorted({t for ids in both for t in ids}), device=self.batch.clean.device)

    def of_all(self, logits: Float[Tensor, "row prompt vocab"]) -> Outcome:
        """From logits of the whole vocabulary."""
        answers, distractors = self.batch.answers, self.batch.distractors
        return Outcome(
            self.metric(logits, answers, distractors).cpu(),
            preferred(logits, answers, distractors).cpu(),
            correct(logits, answers).cpu() if self.accuracy else None,
        )

    def of_some(self, logits: Float[Tensor, "row prompt token"]) -> Outcome:
        """From logits of self.tokens; for metrics that read no others."""
        answers, distractors = self.renumbered
        return Outcome(
            self.metric(logits, answers, distractors).cpu(), preferred(logits, answers, distractors).cpu()
        )

    def of_residual(self, weights: Weights, x: Float[Tensor, "row prompt d_model"]) -> Outcome:
        """From the last residual stream; unembeds no more than is read."""
        if self.reads_vocabulary:
            return self.of_all(weights.logits(x))
        return self.of_some(weights.logits(x, self.tokens))

    @cached_property
    def renumbered(self) -> tuple[Tokens, Tokens]:
        """Answers and distractors as places in self.tokens."""
        place = {token: i for i, token in enumerate(self.tokens.tolist())}
        return (
            tuple(tuple(place[t] for t in ids) for ids in self.batch.answers),
            tuple(tuple(place[t] for t in ids) for ids in self.batch.distractors),
        )


def concatenate(parts: Sequence[Outcome], dim: int) -> Outcome:
    """Outcomes joined along rows (0) or prompts (1)."""
    return Outcome(
        torch.cat([p.metric for p in parts], dim),
        torch.cat([p.preferred for p in parts], dim),
        None if parts[0].correct is None else torch.cat([p.accurate for p in parts], dim),
    )


def in_prompt_order(batches: Sequence[Batch], parts: Sequence[Outcome]) -> Outcome:
    """Outcomes of all batches joined, prompts in the order of the prompt set."""
    rows = concatenate(parts, dim=1)
    if any(batch.has_strings for batch in batches):
        return _of_strings(batches, rows)
    order = torch.argsort(torch.tensor([i for batch in batches for i in batch.index]))
    return reordered(rows, (slice(None), order))


def _of_strings(batches: Sequence[Batch], rows: Outcome) -> Outcome:
    """A string's log-probability is the sum of its rows'; it is what the model says where each token is its first."""
    places: dict[int, dict[int | None, list[int]]] = defaultdict(lambda: defaultdict(list))
    pairs = [pair for batch in batches for pair in batch.pairs]
    index = [i for batch in batches for i in batch.index]
    for row, (i, pair) in enumerate(zip(index, pairs, strict=True)):
        places[i][pair.string].append(row)

    def columns(values: Tensor, strings: dict[int | None, list[int]], right: bool) -> list[Tensor]:
        return [values[:, some] for some in strings.values() if bool(pairs[some[0]].answers) == right]

    prefers, says = [], []
    for _, strings in sorted(places.items()):
        if None in strings:  # a pair of single tokens among those of strings
            prefers.append(rows.preferred[:, strings[None][0]])
            says += [] if rows.correct is None else [rows.correct[:, strings[None][0]]]
            continue
        answers = torch.stack([v.sum(1) for v in columns(rows.metric, strings, True)])
        others = torch.stack([-v.sum(1) for v in columns(rows.metric, strings, False)])
        prefers.append(answers.amax(0) > others.amax(0))
        if rows.correct is not None:
            says.append(torch.stack([v.all(1) for v in columns(rows.correct, strings, True)]).any(0))
    metric = by_prompt(batches, rows.metric)
    return Outcome(metric, torch.stack(prefers, 1), torch.stack(says, 1) if says else None)


def reordered(outcome: Outcome, index: tuple[slice | Tensor, ...]) -> Outcome:
    """The rows and prompts that `index` names, in its order."""
    right = None if outcome.correct is None else outcome.correct[index]
    return Outcome(outcome.metric[index], outcome.preferred[index], right)
