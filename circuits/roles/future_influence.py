"""Future influence (FAI) of a head: whether it keeps one token in view from everywhere behind it.

Score: the largest mean attention that a token, but for the first, gets from all that stand ten tokens behind it or
more (a quarter of the prompt, where that is less); 1 for a vertical stripe. Chance: the same of even attention.
Source: Attention Illuminates LLM Reasoning (arXiv 2510.13554): there a number by token, of global heads together;
the largest over tokens, without the first, which `sink` has, is ours, and so is the horizon of short prompts.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from circuits.roles.role import Evidence, Measured, Role
from circuits.roles.statistics import Pattern, influence, over_patterns


def _most(pattern: Pattern) -> Float[Tensor, "prompt head"]:
    """0 where the prompt is too short for any token to be seen from so far."""
    return pad(influence(pattern)[..., 1:], (0, 1)).amax(-1).clamp(0, 1)


def measure(evidence: Evidence) -> Measured:
    return over_patterns(evidence, _most)


ROLE = Role(
    name="future-influence",
    definition="the most that one token, not the first, gets of the attention of all that stand well behind it (FAI)",
    paper="Attention Illuminates LLM Reasoning, arXiv 2510.13554",
    measure=measure,
)
