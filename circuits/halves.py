"""Halves: which prompts a circuit is discovered on and which it is judged on.

The one idea: what is judged is new. Copies of one text stay together; half of each template's prompts goes to either
side, so that the two differ by chance in no template; or whole templates go, so that even the sentences are new.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from circuits.errors import PromptError
from circuits.prompts import PromptPair

JudgeOn = Literal["prompts", "templates"]
"""What is new to a circuit in the judged half."""

NEW: dict[JudgeOn, str] = {
    "prompts": "none of them discovered on",
    "templates": "none of them nor of their templates discovered on",
}
"""What is said of judged prompts."""

SOLVED = ", the model's failures left out"
"""What is said of them beside that where they were chosen so."""


@dataclass(frozen=True)
class Halves:
    """Which prompts were discovered on and which judged on, by index."""

    discovery: tuple[int, ...]
    judged: tuple[int, ...]


def sentence(template: str) -> str:
    """A template without its variant: "3" of "3 | ABBA", as tasks write them."""
    return template.split(" | ")[0]


def split(prompts: Sequence[PromptPair], seed: int, judge_on: JudgeOn = "prompts") -> Halves:
    """Seeded halves, of which the judged one has the odd prompt.

    judge_on: templates: the halves share no sentence, and are as equal as sentences allow.
    Raises PromptError for fewer than two prompts, and where all have one sentence but shall not share it.
    """
    copies: dict[str, list[int]] = {}
    for i, pair in enumerate(prompts):
        copies.setdefault(pair.clean, []).append(i)
    if len(copies) < 2:
        same = ", all of one text," if len(prompts) > 1 else ""
        raise PromptError(
            f"{len(prompts)} prompts{same} cannot be split into a half to discover on and one to judge on; give 2 "
            "or more."
        )
    rng = random.Random(f"halves/{seed}")
    shuffled = rng.sample(list(copies.values()), len(copies))
    chosen = _half_of_each_template(prompts, shuffled) if judge_on == "prompts" else _sentences(prompts, rng)
    return Halves(tuple(sorted(chosen)), tuple(sorted(set(range(len(prompts))) - chosen)))


def _half_of_each_template(prompts: Sequence[PromptPair], units: Sequence[list[int]]) -> set[int]:
    """The first half of each template's units; of the odd ones, as many as are wanting."""
    strata: dict[str, list[list[int]]] = {}
    for unit in units:
        strata.setdefault(prompts[unit[0]].template, []).append(unit)
    chosen = [unit for stratum in strata.values() for unit in stratum[: len(stratum) // 2]]
    odd = [stratum[len(stratum) // 2] for stratum in strata.values() if len(stratum) % 2]
    chosen += odd[: len(units) // 2 - len(chosen)]
    return {i for unit in chosen for i in unit}


def _sentences(prompts: Sequence[PromptPair], rng: random.Random) -> set[int]:
    """Whole sentences, the most frequent first, each to the side that has fewer prompts."""
    together = _sharing_nothing(prompts)
    if len(together) < 2:
        raise PromptError(
            f"All {len(prompts)} prompts have one template ({sentence(prompts[0].template)!r}), so none is left to "
            'judge on. Judge on new prompts alone (--judge-on prompts), or name each line\'s "template" in your file.'
        )
    discovery, judged = set[int](), set[int]()
    for group in sorted(rng.sample(together, len(together)), key=len, reverse=True):
        (discovery if len(discovery) < len(judged) else judged).update(group)
    return discovery


def _sharing_nothing(prompts: Sequence[PromptPair]) -> list[list[int]]:
    """Prompts in groups, of which no two share a sentence or a text."""
    import networkx as nx

    shared: nx.Graph[object] = nx.Graph()
    for i, pair in enumerate(prompts):
        shared.add_edge(i, ("sentence", sentence(pair.template)))
        shared.add_edge(i, ("text", pair.clean))
    groups = (sorted(n for n in group if isinstance(n, int)) for group in nx.connected_components(shared))
    return sorted(groups)
