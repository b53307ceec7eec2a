"""Greedy search for a set of heads: what does most beside what was chosen already joins, round by round.

The one idea: what two heads do together is not the sum of what they do alone, so each round asks every head anew,
with the set so far in place; a copy of a chosen head then has nothing to add, and is not chosen.
Sources: Zhou et al. 2024 (Sahara, arXiv 2410.13708); Ahn et al. 2025 (HeadHunter, arXiv 2506.10978).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LEAST = 1e-6
"""How much a set must be worth more than before: less is rounding."""


@dataclass(frozen=True)
class Round:
    """each: head -> worth of the set so far with it. added: the best of those that add anything. worth: with them."""

    each: Mapping[str, float]
    added: tuple[str, ...]
    worth: float


def greedy(
    names: Sequence[str],
    worth: Callable[[Sequence[str]], float],
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    at_once: int = 1,
) -> list[Round]:
    """Up to `rounds` rounds, `at_once` heads each; ends early where no head adds anything. worth([]) counts as 0."""
    found: list[Round] = []
    chosen: tuple[str, ...] = ()
    reached = 0.0
    for turn in range(rounds):
        each: dict[str, float] = {}
        for name in (free := [name for name in names if name not in chosen]):
            each[name] = worth((*chosen, name))
            progress(turn * len(names) + len(each), rounds * len(names))
        better = [name for name in free if each[name] > reached + LEAST]
        added = tuple(sorted(better, key=lambda name: -each[name])[:at_once])
        chosen = (*chosen, *added)
        reached = (each[added[0]] if len(added) == 1 else worth(chosen)) if added else reached
        found.append(Round(each, added, reached))
        if not added:
            break
    return found
