"""Statistics of attention: how far back a head looks, and who is looked at from afar.

The one idea: each is a number by head and prompt that a pattern alone gives, on the prompts of a task, or on repeated
random tokens where there is none.
Source: Attention Illuminates LLM Reasoning (arXiv 2510.13554): mean distance, WAAD with its window of 10, FAI. There
they are means over a response and over the first or last 30 % of heads by distance; here each head has its own, over
a whole prompt, and `circuits.roles.rhythm` has the means over heads by token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.roles.attention import patterns
from circuits.roles.role import Evidence, Measured

WINDOW = 10
"""W of the paper: a look further back than this counts as this far."""

Pattern = Float[Tensor, "prompt head query source"]


def over_patterns(
    evidence: Evidence, measure: Callable[[Pattern], Float[Tensor, "prompt head"]], unit: str = "prompt"
) -> Measured:
    """`measure` of every pattern, and of an even one for chance."""
    samples, chances = [], []
    for tokens in prompts(evidence):
        found = [measure(seen.pattern) for seen in patterns(evidence.weights, tokens)]
        samples.append(torch.cat(found, 1))
        chances += [float(measure(even(tokens.shape[1]))[0, 0])] * len(tokens)
    return Measured(torch.cat(samples), unit, sum(chances) / len(chances))


def prompts(evidence: Evidence) -> tuple[Tensor, ...]:
    """Those of the task, of one length each; repeated random tokens where there is none."""
    return tuple(batch.clean for batch in evidence.batches) or (evidence.repeated,)


def even(length: int) -> Pattern:
    """Each query looks alike at all that it sees."""
    return (torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None])[None, None]


def back(length: int) -> Float[Tensor, "query source"]:
    """How many tokens each source lies behind its query."""
    place = torch.arange(length, dtype=torch.float32)
    return (place[:, None] - place[None]).clamp(min=0)


def distance(pattern: Pattern, window: float | int = torch.inf) -> Float[Tensor, "prompt head later"]:
    """Mean distance of a query's looks, in tokens; none is further than `window`. Without the first query."""
    far = back(pattern.shape[-1]).clamp(max=window).to(pattern)
    return torch.einsum("phqs,qs->phq", pattern, far)[..., 1:]


def horizon(length: int) -> int:
    """H_lo of the paper, 10, where prompts are long enough: how far off a token has to be to be influenced."""
    return max(1, min(WINDOW, length // 4))


def influence(pattern: Pattern) -> Float[Tensor, "prompt head earlier"]:
    """Mean attention that each token gets from all that stand `horizon` behind it or more."""
    length = pattern.shape[-1]
    far = (back(length) >= horizon(length)).to(pattern)
    reached = far.sum(0)
    return ((pattern * far).sum(-2) / reached.clamp(min=1))[..., : length - horizon(length)]
