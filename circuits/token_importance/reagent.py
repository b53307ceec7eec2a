"""ReAGent: a token matters if replacing it, among others at random, lowers the probability of what the model says.

The one idea: each step replaces every token with probability `rate`; what that takes from the probability is credited
to all that were replaced and debited to all that were kept, so that many steps tell tokens apart with no gradient. It
stops when the model still says its token, among its best few, with all but the top tokens replaced.
Source: Zhao & Shan 2024 (arXiv 2402.00794) and its code. Ours: replacements are even over the vocabulary, where the
paper draws from RoBERTa and the code from words of the same part of speech; `top` is a number of tokens; runs that
did not stop count where none of a prompt's did.
Cost: two forward passes a step and run; runs and prompts share passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.token_importance.prediction import Importance, Prediction

MOST_CHANGE = 1 - 1e-4
"""Of a probability: logit((1 + change) / 2) has no value at 1."""


@dataclass(frozen=True)
class Search:
    """runs: of a prompt, averaged. rate: of replacement. steps: most of a run. top: tokens that must do alone.
    best: how far down its list the model may say its token then."""

    runs: int = 5
    rate: float = 0.3
    steps: int = 300
    top: int = 3
    best: int = 3


@dataclass(frozen=True)
class Found:
    """importance: mean over the runs that stopped. stopped, steps: of each run. rationale: tokens that are among the
    top of at least two runs."""

    importance: Importance
    stopped: Bool[Tensor, "prompt run"]
    steps: Int[Tensor, "prompt run"]
    rationale: Bool[Tensor, "prompt pos"]


def reagent(asked: Prediction, search: Search, generator: torch.Generator) -> Found:
    n_prompts, length = asked.tokens.shape
    rows = _Rows(asked, search, generator)
    active = torch.arange(n_prompts * search.runs)
    steps = torch.full((len(active),), search.steps)
    for step in range(search.steps):
        rows.credit(active)
        done = rows.do_alone(active)
        steps[active[done]] = step + 1
        active = active[~done]
        if not len(active):
            break
    stopped = torch.ones(n_prompts * search.runs, dtype=torch.bool)
    stopped[active] = False
    shape = (n_prompts, search.runs)
    return _aggregated(rows, stopped.view(shape), steps.view(shape), length)


class _Rows:
    """Every run of every prompt. scores: s, of which importance is the softmax."""

    def __init__(self, asked: Prediction, search: Search, generator: torch.Generator) -> None:
        self.asked, self.search, self.generator = asked, search, generator
        device, runs = asked.tokens.device, search.runs
        self.tokens, self.said = (x.repeat_interleave(runs, 0) for x in (asked.tokens, asked.said))
        self.probability = asked.probability.repeat_interleave(runs, 0)
        self.scores = torch.rand(self.tokens.shape, generator=generator).to(device)
        self.n_top = min(search.top, asked.n_free - 1)

    def credit(self, active: Int[Tensor, "row"]) -> None:
        """One step of replacements."""
        replaced = (
            torch.rand((len(active), self.tokens.shape[1]), generator=self.generator) < self.search.rate
        )
        replaced = replaced.to(self.tokens.device) & self.asked.free
        now = self._probabilities(active, replaced).gather(1, self.said[active][:, None])[:, 0]
        change = (self.probability[active] - now).clamp(-MOST_CHANGE, MOST_CHANGE)
        signs = torch.where(replaced, 1.0, -1.0) * self.asked.free
        self.scores[active] += signs * ((1 + change) / 2).logit()[:, None]

    def do_alone(self, active: Int[Tensor, "row"]) -> Bool[Tensor, "row"]:
        """Whether the model still says its token where all but the top tokens are replaced."""
        replaced = ~self.top()[active] & self.asked.free
        said = self._probabilities(active, replaced)
        best = said.topk(min(self.search.best, said.shape[1])).indices
        return (best == self.said[active][:, None]).any(1).cpu()

    def top(self) -> Bool[Tensor, "row pos"]:
        scores = self.scores.masked_fill(~self.asked.free, -torch.inf)
        chosen = torch.zeros_like(scores, dtype=torch.bool)
        return chosen.scatter(1, scores.topk(self.n_top).indices, True)

    def _probabilities(
        self, active: Int[Tensor, "row"], replaced: Bool[Tensor, "row pos"]
    ) -> Float[Tensor, "row vocab"]:
        known = self.asked.replacements
        drawn = torch.randint(len(known), replaced.shape, generator=self.generator).to(known.device)
        return self.asked.of(torch.where(replaced, known[drawn], self.tokens[active]))


def _aggregated(
    rows: _Rows, stopped: Bool[Tensor, "prompt run"], steps: Int[Tensor, "prompt run"], length: int
) -> Found:
    masked = rows.scores.masked_fill(~rows.asked.free, -torch.inf)
    importance = masked.softmax(-1).view(*stopped.shape, length)
    counts = torch.where(stopped.any(1, keepdim=True), stopped, True).to(importance)[..., None]
    top = rows.top().view(*stopped.shape, length)
    agreed = (top & (counts > 0)).sum(1) >= min(2, rows.search.runs)
    return Found((importance * counts).sum(1) / counts.sum(1), stopped, steps, agreed)
