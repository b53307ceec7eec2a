"""Alignment: what a learned subspace does when it is taken from the source, and whether it is what the model uses.

The one idea: a subspace that flips the answer may do so through a pathway that the model does not use. Its directions
then join a part that differs between prompts, but that nothing reads, with a part that is read, but that never
differs: patching moves the one by the other's difference. So the part that the readers see is patched alone, brought
to unit length; what is genuine keeps its effect, and an illusion loses it.

    FLDD = 100 (1 - mean LD(patched) / mean LD(as it is)) %: 0 nothing, 100 no preference is left, 200 turned around
    interchange accuracy: share of prompts whose most likely token of all becomes the counterfactual answer

Source: Makelov et al. 2023 (arXiv 2311.17030). Our definition: the verdict, see `Alignment.verdict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from circuits.batches import make_batches
from circuits.errors import CircuitError, PromptError
from circuits.evaluation.faithfulness import FLAT, Estimate, mean_estimate, ratio_estimate
from circuits.graph import LOGITS
from circuits.halves import Halves, JudgeOn, split
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.prompts import PromptPair
from circuits.subspaces.directions import (
    main_differences,
    main_gradients,
    mean_difference,
    random_frames,
    spanned,
)
from circuits.subspaces.place import Place, width
from circuits.subspaces.readers import answers_of, likely_readers, require_readers, row_space
from circuits.subspaces.swaps import (
    Said,
    Swap,
    nothing,
    require_counterfactual,
    said,
    swaps,
    taken,
    whole,
)
from circuits.subspaces.training import BATCH, Recipe, learn, require_rank

DRAWS = 20
"""Random subspaces of the same rank."""

LEAST = 5
"""Of so many percent FLDD is an effect at all."""

MOST_SEEN = 0.9
"""Of a space that is seen further than that, nothing is left for an illusion to hide in."""

Verdict = Literal["genuine", "mixed", "illusion", "no effect", "other readers", "untested"]


@dataclass(frozen=True)
class Effect:
    """fldd: in percent; accuracy: interchange accuracy. Each with its 95% bootstrap interval over judged prompts."""

    fldd: Estimate
    accuracy: Estimate


@dataclass(frozen=True)
class Split:
    """The directions as what the readers see and what they do not.

    readers: empty for an MLP's output matrix. seen: share of the directions' squared length that they see; chance:
    of a random direction's. kept: effect on LD of the seen part alone, as a share of that of all; None where that is
    nothing. random: FLDD and accuracy of the seen parts of random subspaces, if any is seen.
    """

    readers: tuple[str, ...]
    seen: float
    chance: float
    kept: Estimate | None
    random: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Alignment:
    """effects: by what is patched, the learned subspace first. random: FLDD and accuracy of each random subspace.
    own: LD of the runs as they are.
    """

    place: Place
    frame: Float[Tensor, "width rank"]
    effects: dict[str, Effect]
    random: tuple[tuple[float, float], ...]
    split: Split
    own: Estimate

    @property
    def rank(self) -> int:
        return int(self.frame.shape[1])

    @property
    def verdict(self) -> Verdict:
        """no effect: random subspaces do as much, or it is under 5% FLDD. untested: no reader is known, they see over
        nine tenths of the space, or so little that the seen parts of random subspaces do as much. other readers: the
        unseen part alone has over half of the effect. Else by the share of the effect that the seen part keeps, with
        its interval: genuine over three quarters, an illusion under a half, mixed between."""
        fldd = self.effects["learned"].fldd
        if fldd.value <= max(LEAST, *(each for each, _ in self.random)):
            return "no effect"
        kept = self.split.kept
        if kept is None or not 0 < self.split.chance <= MOST_SEEN:
            return "untested"
        if self.effects["unseen part"].fldd.value > fldd.value / 2:
            return "other readers"
        if kept.high < 0.5:
            return "illusion"
        if self.effects["seen part"].fldd.value <= max(each for each, _ in self.split.random):
            return "untested"
        return "genuine" if kept.low > 0.75 else "mixed"


class Prompted(NamedTuple):
    """Prompts to learn on and to be judged on, and what is new to the latter."""

    learned: tuple[Swap, ...]
    judged: tuple[Swap, ...]
    halves: Halves
    new: JudgeOn


def prompted(model: Model, pairs: Sequence[PromptPair], place: Place, seed: int) -> Prompted:
    """Halves of other templates where there are several, else of other prompts; each run both ways at the place.

    Raises CircuitError as circuits.subspaces.swaps and circuits.halves do.
    """
    halves, new = halved(pairs, seed)
    learned, judged = (
        swaps(model, make_batches(model, [pairs[i] for i in half], batch_size=BATCH), place)
        for half in (halves.discovery, halves.judged)
    )
    require_counterfactual(learned)
    return Prompted(learned, judged, halves, new)


def halved(pairs: Sequence[PromptPair], seed: int) -> tuple[Halves, JudgeOn]:
    try:
        return split(pairs, seed, "templates"), "templates"
    except PromptError:
        return split(pairs, seed), "prompts"


def align(
    model: Model,
    prompts: Prompted,
    rank: int,
    *,
    readers: Sequence[str] = (),
    seed: int = 0,
    recipe: Recipe | None = None,
    progress: Progress = silent,
) -> Alignment:
    """Learns a subspace of `rank` dimensions on the one half and judges it on the other.

    Raises CircuitError for a rank or readers that there are not.
    """
    assert model.weights is not None
    place = prompts.judged[0].place
    require_rank(rank, width(model.weights, place), str(place))
    named = require_readers(readers, place, model.graph)
    if LOGITS in named and not all(swap.at_last for swap in (*prompts.learned, *prompts.judged)):
        raise CircuitError(
            f"--reader {LOGITS} reads the last token alone, and {place} is not always that. Name heads of later "
            "layers."
        )
    named = named or likely_readers(prompts.learned, model.graph)
    frame = learn(prompts.learned, rank, seed, recipe, progress)
    tokens = answers_of((*prompts.learned, *prompts.judged))
    return judge(prompts, frame, row_space(model.weights, place, named, tokens), named, seed)


def judge(
    prompts: Prompted,
    frame: Float[Tensor, "width rank"],
    seen: Float[Tensor, "width seen"],
    readers: tuple[str, ...] = (),
    seed: int = 0,
) -> Alignment:
    """What `frame` does on judged prompts, whole and in parts, beside the whole place, others and chance."""
    (size, rank), judged = frame.shape, prompts.judged
    known = seen.shape[1] > 0
    parts = {"seen part": within(frame, seen), "unseen part": within(frame, seen, False)} if known else {}
    tried = {"learned": taken(frame)} | {name: taken(part) for name, part in parts.items()}
    tried |= {"whole site": whole} | {name: taken(f) for name, f in _untrained(prompts.learned, rank).items()}
    drawn = [each.to(frame.device) for each in random_frames(size, rank, DRAWS, seed)]
    chance = [taken(each) for each in (*drawn, *(within(each, seen) for each in drawn if known))]
    found = said(judged, [nothing, *tried.values(), *chance])
    before = found.difference[0]
    effects = {name: _effect(found, 1 + row, before, seed) for row, name in enumerate(tried)}
    means = [_means(found, row, before) for row in range(1 + len(tried), len(found.difference))]
    done, kept_of = (
        before - found.difference[row] for row in (1, 2)
    )  # the learned, and its seen part if any
    kept = ratio_estimate(kept_of, done, seed) if known and abs(done.mean()) > FLAT else None
    share = float((seen.T @ frame).pow(2).sum()) / rank
    split = Split(readers, share, seen.shape[1] / size, kept, tuple(means[DRAWS:]))
    own = mean_estimate(before, seed)
    return Alignment(judged[0].place, frame, effects, tuple(means[:DRAWS]), split, own)


def _untrained(learned: Sequence[Swap], rank: int) -> dict[str, Float[Tensor, "width _"]]:
    return {
        "mean difference": mean_difference(learned),
        "main differences": main_differences(learned, rank),
        "gradients": main_gradients(learned, rank),
    }


def within(
    frame: Float[Tensor, "width rank"], seen: Float[Tensor, "width seen"], inside: bool = True
) -> Float[Tensor, "width part"]:
    """The part of the directions that is seen, or is not, brought to unit length: orthonormal anew."""
    part = seen @ (seen.T @ frame)
    return spanned(part if inside else frame - part)


def _effect(found: Said, row: int, before: Float[np.ndarray, "prompt"], seed: int) -> Effect:
    left = ratio_estimate(found.difference[row], before, seed)
    fldd = Estimate(*(100 * (1 - x) for x in (left.value, left.high, left.low)))
    return Effect(fldd, mean_estimate(found.flipped[row], seed))


def _means(found: Said, row: int, before: Float[np.ndarray, "prompt"]) -> tuple[float, float]:
    return float(100 * (1 - found.difference[row].mean() / before.mean())), float(found.flipped[row].mean())
