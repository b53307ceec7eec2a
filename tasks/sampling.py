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

FIRST_LOOK = 8, 400
"""Draws for each template that is known, and at most, before the first pair is given: so few are missed that they
count for little, and they catch up when they are found."""

PATIENCE = 20, 1000
"""Draws for each text of a template (were all templates as likely), and at least, without a new one, after which it
has no more."""

REFUSALS = 200, 2000
"""Pairs on end that are refused: of one template, after which it is given up, and of all, after which all are."""


@dataclass
class Stratum:
    """One template. texts: how many were drawn. newest: the draw that found the last. refused: how many on end."""

    waiting: deque[PromptPair] = field(default_factory=deque)
    texts: int = 0
    given: int = 0
    newest: int = 0
    refused: int = 0


def stratified(
    draw: Callable[[], PromptPair], accept: Callable[[PromptPair], bool] = lambda pair: True
) -> Iterator[PromptPair]:
    """Distinct pairs that `accept` takes, until `draw` makes no new ones; `accept` is asked in their turn."""
    strata: dict[str, Stratum] = {}
    seen = set[str]()
    draws = refused = 0

    def look() -> None:
        nonlocal draws
        draws += 1
        pair = draw()
        if pair.clean not in seen:
            seen.add(pair.clean)
            stratum = strata.setdefault(pair.template, Stratum())
            stratum.waiting.append(pair)
            stratum.texts, stratum.newest = stratum.texts + 1, draws

    def lasts(stratum: Stratum) -> bool:
        for_each, least = PATIENCE
        patience = max(for_each * stratum.texts * len(strata), least)
        return stratum.refused < REFUSALS[0] and bool(stratum.waiting or draws - stratum.newest < patience)

    each, most = FIRST_LOOK
    while draws < min(each * (1 + len(strata)), most):
        look()
    while least := min(filter(lasts, strata.values()), key=lambda stratum: stratum.given, default=None):
        if not least.waiting:
            look()
        elif accept(pair := least.waiting.popleft()):
            least.given, least.refused, refused = least.given + 1, 0, 0
            yield pair
        else:
            least.refused, refused = least.refused + 1, refused + 1
            if refused == REFUSALS[1]:
                return
