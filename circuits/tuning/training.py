"""Training a few numbers inside a frozen model on prompts and their answers.

The one idea: gradients flow through the exact engine, whose matrices take none, to whatever a change of head outputs
or weights is made of; the loss is the surprise at the answers, -log of their probability behind the last token. The
papers train on the first token of one answer; that several answers count together is our definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.batches import Batch
from circuits.engine.forward import Changing, steps
from circuits.engine.weights import Weights
from circuits.progress import Progress, silent

Answers = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Schedule:
    """rate: step size of Adam. epochs: times that every prompt is seen. batch_size: prompts of one length a step.

    steps: where training ends, if that is before the epochs are over. floor: gradients well below it move nothing
    (Adam's epsilon).
    """

    rate: float
    epochs: int
    batch_size: int = 8
    steps: int | None = None
    floor: float = 1e-8


@dataclass(frozen=True)
class Example:
    """Prompts of one length, and what shall be said behind them."""

    prompts: Batch
    answers: Answers

    def of_rows(self, rows: Sequence[int]) -> Example:
        return Example(self.prompts.of_rows(rows), tuple(self.answers[row] for row in rows))


def examples(batches: Sequence[Batch]) -> tuple[Example, ...]:
    return tuple(Example(batch, batch.answers) for batch in batches)


def shuffled(taught: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """The same prompts with each other's answers: what a training learns that cannot be about the prompts."""
    pool = [answer for example in taught for answer in example.answers]
    order = np.random.default_rng([seed, 0x5A]).permutation(len(pool))
    drawn = iter([pool[place] for place in order])
    return tuple(Example(e.prompts, tuple(next(drawn) for _ in e.answers)) for e in taught)


def final_state(
    weights: Weights, example: Example, changing: Changing = lambda layer, z: z
) -> Float[Tensor, "prompt d_model"]:
    """The last token's residual stream behind the last layer. Differentiable."""
    x = weights.embed(example.prompts.clean)
    for step in steps(weights, x, answer_alone=True, changing=changing):
        x = step.after
    return x[:, -1]


def surprise(logits: Float[Tensor, "prompt vocab"], answers: Answers) -> Float[Tensor, "prompt"]:
    """-log of the total probability of the answers, in nats."""
    said = logits.log_softmax(-1)
    return -torch.stack([said[row, list(ids)].logsumexp(-1) for row, ids in enumerate(answers)])


def train(
    parameters: Sequence[Tensor],
    loss: Callable[[Example], Tensor],
    taught: Sequence[Example],
    schedule: Schedule,
    seed: int,
    progress: Progress = silent,
    what: str = "training",
) -> None:
    """Changes `parameters` in place by Adam; the order of prompts is the seed's. One pass there and back a step."""
    optimiser = torch.optim.Adam(parameters, lr=schedule.rate, eps=schedule.floor)
    order = np.random.default_rng([seed, 0x7A])
    left = schedule.steps
    with torch.enable_grad():
        for epoch in range(schedule.epochs):
            for example in islice(in_turn(taught, schedule.batch_size, order), left):
                optimiser.zero_grad()
                torch.autograd.backward(loss(example))
                optimiser.step()
                left = None if left is None else left - 1
            progress(what, epoch + 1, schedule.epochs)


def in_turn(taught: Sequence[Example], size: int, order: np.random.Generator) -> Iterator[Example]:
    """Every prompt once, in small batches of one length, shuffled."""
    parts = []
    for example in taught:
        rows = order.permutation(len(example.answers)).tolist()
        parts += [example.of_rows(rows[start : start + size]) for start in range(0, len(rows), size)]
    yield from (parts[place] for place in order.permutation(len(parts)))
