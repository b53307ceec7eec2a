"""Sampling: distinct prompt pairs from a generator that draws with replacement, each template as often as any other.

The one idea: pairs wait in a queue of their template, and the template that was given least is next; so a template is
given as often as any other, to within one, until it has no more, and words are drawn as the generator draws them.
How many pairs are taken decides nothing, so fewer are a prefix of more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from circuits.prompts import PromptPair

FIRST_LOOK = 20, 2000
"""Draws for each template that is known, and at most, before the first pair is given: so few are missed that they
count for nothing (thirty equally likely ones: one time in millions)."""

PATIENCE = 20, 1000
"""Draws for each text that was seen, and at least, without a new pair, after which a template has no more."""


@dataclass
class Stratum:
    """One template. newest: the draw that found its last new pair."""

    waiting: deque[PromptPair] = field(default_factory=deque)
    given: int = 0
    newest: int = 0


def stratified(
    draw: Callable[[], PromptPair], accept: Callable[[PromptPair], bool] = lambda pair: True
) -> Iterator[PromptPair]:
    """Distinct pairs that `accept` takes, until `draw` makes no new ones."""
    strata: dict[str, Stratum] = {}
    seen = set[str]()
    draws = 0

    def look() -> None:
        nonlocal draws
        draws += 1
        pair = draw()
        new = pair.clean not in seen
        seen.add(pair.clean)
        if new and accept(pair):
            stratum = strata.setdefault(pair.template, Stratum())
            stratum.waiting.append(pair)
            stratum.newest = draws

    def patience() -> int:
        each, least = PATIENCE
        return max(each * len(seen), least)

    each, most = FIRST_LOOK
    while draws < min(each * (1 + len(strata)), most):
        look()
    while True:
        lasting = (s for s in strata.values() if s.waiting or draws - s.newest < patience())
        least = min(lasting, key=lambda stratum: stratum.given, default=None)
        if least and least.waiting:
            least.given += 1
            yield least.waiting.popleft()
        elif least or draws < patience():
            look()
        else:
            return
