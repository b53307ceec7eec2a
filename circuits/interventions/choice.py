"""Which heads to calibrate: one head at a time, those are kept that raise the answer's probability.

The one idea: what is good for one head's sinks is bad for another's, so each is tried by itself on prompts that
nothing is judged on, and all that help are then calibrated together on prompts that nothing was chosen on.
Source: Yu et al. 2024 (ACT, arXiv 2406.15765), who try every head on 900 samples a data set, by log accuracy; their
code has the resulting lists alone. **Ours:** the mean log-probability of the answer over the tuning prompts, and all
layers, where they leave out the first two and the last.
Cost: a forward pass a head and tuning prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from circuits.batches import Batch, n_prompts
from circuits.errors import CircuitError
from circuits.interventions.effect import answers
from circuits.interventions.intervention import Calibrate, require_possible
from circuits.metrics import Tokens, log_probability_difference
from circuits.model import Model
from circuits.progress import Progress, silent

LEAST_GAIN = 1e-5
"""Nats: below, a gain is rounding."""


@dataclass(frozen=True)
class Choice:
    """gains: by which the mean log-probability of the answer rises on the tuning prompts, of each head alone, in
    nats. chosen: those that gain, largest first."""

    n_prompts: int
    gains: dict[str, float]

    @property
    def chosen(self) -> tuple[str, ...]:
        ranked = sorted(self.gains, key=lambda head: -self.gains[head])
        return tuple(head for head in ranked if self.gains[head] > LEAST_GAIN)


def answer_log_probability(
    logits: Float[Tensor, "*rows batch vocab"], answers: Tokens, distractors: Tokens
) -> Float[Tensor, "*rows batch"]:
    """Mean over the answers, whatever the distractors."""
    return log_probability_difference(logits, answers, [()] * len(answers))


def choose_heads(
    model: Model, tuning: Sequence[Batch], candidates: Sequence[str], progress: Progress = silent
) -> Choice:
    """Raises CircuitError where no head gains, ModelError where the engine does not serve."""
    require_possible(model, tuning, [Calibrate(tuple(candidates))])
    before = answers(model, tuning, answer_log_probability).metric.mean()
    gains = {}
    for done, head in enumerate(candidates):
        after = answers(model, tuning, answer_log_probability, [Calibrate((head,))]).metric.mean()
        gains[head] = float(after - before)
        progress("trying heads", done + 1, len(candidates))
    choice = Choice(n_prompts(tuning), gains)
    if not choice.chosen:
        best = max(gains, key=gains.__getitem__)
        raise CircuitError(
            f"Of {len(gains)} heads none raises the answer's log-probability when it is calibrated by itself on "
            f"{choice.n_prompts} tuning prompts ({best} comes nearest: {gains[best]:+.2g} nats), so there is nothing "
            "to do. Name heads with --head, without --choose, to see what calibrating them does."
        )
    return choice
