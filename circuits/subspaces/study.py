"""A study of subspaces: prompts in two halves, a place given or searched, subspaces learned on one half and judged.

The one idea: one function is the table of contents of what `circuit subspace` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from circuits.batches import make_batches
from circuits.errors import CircuitError
from circuits.halves import JudgeOn
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.prompts import PromptPair
from circuits.subspaces.alignment import Alignment, Prompted, align, halved, prompted
from circuits.subspaces.layer_search import Search, pulls, search
from circuits.subspaces.place import Place, width
from circuits.subspaces.steering import DRAWS, TIMES, Steering, agreeing, steer
from circuits.subspaces.swaps import require_counterfactual
from circuits.subspaces.training import Recipe, require_rank

Intent = Literal["context", "memory"]
"""Whose answer the source has: the corrupt prompt's, or the clean one's."""


@dataclass(frozen=True)
class Passes:
    """Prompts run forward. whole: through all layers; above: those above the place alone; backward: and back."""

    whole: int
    above: int
    backward: int


@dataclass(frozen=True)
class Study:
    """alignments: one a rank. own: share of judged runs, both ways, that prefer their own side's answer. left_out:
    pairs that a knob cannot use. searches, steering: of a knob alone."""

    place: Place
    width: int
    n_learned: int
    n_judged: int
    new: JudgeOn
    own: float
    alignments: tuple[Alignment, ...]
    passes: Passes
    left_out: int = 0
    searches: dict[Intent, Search] | None = None
    steering: Steering | None = None


@dataclass(frozen=True)
class Asked:
    """place: None where a search shall find it, which a knob alone can do."""

    place: Place | None
    ranks: tuple[int, ...] = (1,)
    readers: tuple[str, ...] = ()
    knob: bool = False
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)


def study(model: Model, pairs: Sequence[PromptPair], asked: Asked, progress: Progress = silent) -> Study:
    """Raises CircuitError where the prompts, the place, a rank or a reader cannot be used."""
    if asked.place:
        _require_ranks(model, asked.ranks, asked.place)
    used = agreeing(model, pairs) if asked.knob else tuple(pairs)
    searches = _searched(model, used, asked.seed) if asked.knob and not asked.place else None
    place = asked.place or _found(model, searches or {})
    prompts = prompted(model, used, place, asked.seed)
    learned = tuple(
        align(
            model,
            prompts,
            rank,
            readers=asked.readers,
            seed=asked.seed,
            recipe=asked.recipe,
            progress=progress,
        )
        for rank in asked.ranks
    )
    assert model.weights is not None
    turned = (
        steer(learned[0].frame[:, 0], prompts.learned, prompts.judged, asked.seed) if asked.knob else None
    )
    return Study(
        place,
        width(model.weights, place),
        len(prompts.halves.discovery),
        len(prompts.halves.judged),
        prompts.new,
        require_counterfactual(prompts.judged),
        learned,
        _passes(len(pairs), prompts, asked, learned, searches),
        len(pairs) - len(used),
        searches,
        turned,
    )


def _require_ranks(model: Model, ranks: Sequence[int], place: Place) -> None:
    if model.weights is not None:
        for rank in ranks:
            require_rank(rank, width(model.weights, place), str(place))


def _searched(model: Model, pairs: Sequence[PromptPair], seed: int) -> dict[Intent, Search]:
    half = [pairs[i] for i in halved(pairs, seed)[0].discovery]
    batches = make_batches(model, half)
    ways: tuple[tuple[Intent, bool], ...] = (("context", False), ("memory", True))
    return {intent: search(pulls(model, batches, to_clean)) for intent, to_clean in ways}


def _found(model: Model, searches: dict[Intent, Search]) -> Place:
    """Behind the last layer of either search. Raises CircuitError where neither found any."""
    layers = [layer for found in searches.values() for layer in found.layers]
    if not layers:
        raise CircuitError(
            f"No set of layers of {model.name} brings the other answer by the last token's attention alone, so there "
            "is no place to learn a knob at. Name one with --at, such as resid_post.1/END."
        )
    return Place("resid_post", max(layers))


def _passes(
    n_pairs: int,
    prompts: Prompted,
    asked: Asked,
    found: Sequence[Alignment],
    searches: dict[Intent, Search] | None,
) -> Passes:
    learned, judged = len(prompts.halves.discovery), len(prompts.halves.judged)
    seeks = not asked.readers and prompts.judged[0].place.in_stream
    epochs = asked.recipe.epochs
    whole = 2 * (learned + judged) + (2 * n_pairs if asked.knob else 0)
    if searches:
        whole += 2 * learned * len(searches)
    trials = sum(1 + len(each.effects) + len(each.random) + len(each.split.random) for each in found)
    above = 2 * learned * (epochs + 1 + 2 * seeks) * len(found) + 2 * judged * trials
    swept = (learned + judged) * len(TIMES) * (1 + DRAWS) if asked.knob else 0
    return Passes(whole, above + swept, 2 * learned * (epochs + 1 + seeks) * len(found))
