"""Steering: a learned direction as a knob between two answers, with the source's value left out.

The one idea: a direction that carries a decision can be set by hand, h' = h - u (u.h) + u c at one token of a prompt
whose own run says nothing of the decision or says it wrong; a large c on one side should give the one answer, on the
other side the other. c is chosen for either side on the prompts that u was learned on, then judged on others.

    PairAcc: share of prompts on which c+ gives the clean answer (memory) and c- the other (context)
    MR, memory ratio: number of clean answers / number of either answer

Source: Minder et al. 2024 (arXiv 2411.07404). Our definitions: what an intent is (see `agreeing`); the values of c,
so many times the mean length of what clean and corrupt prompts differ by, around the mean of u.h; chance is random
directions, whose c+ and c- are chosen in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.batches import make_batches
from circuits.errors import CircuitError
from circuits.evaluation.faithfulness import Estimate, mean_estimate
from circuits.memory import in_chunks
from circuits.metrics import correct, logit_difference
from circuits.model import Model
from circuits.prompts import PromptPair
from circuits.subspaces.directions import random_frames
from circuits.subspaces.swaps import AT_ONCE, Swap

TIMES = (-2.0, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""From half of what all of the difference is, which is where a direction that carries it all has its two sides."""

DRAWS = 20

Direction = Float[Tensor, "width"]


@dataclass(frozen=True)
class Steered:
    """One value of c on judged clean prompts. times: of the mean length of the difference; c: of u.h itself.

    memory, context: share of prompts on which the most likely token of all is the clean answer, the other one.
    difference: mean logit difference of the clean answer over the other.
    """

    times: float
    c: float
    memory: Estimate
    context: Estimate
    difference: Estimate

    @property
    def other(self) -> float:
        return 1 - self.memory.value - self.context.value

    @property
    def memory_ratio(self) -> float | None:
        """None where neither answer is ever given."""
        both = self.memory.value + self.context.value
        return self.memory.value / both if both else None


@dataclass(frozen=True)
class Steering:
    """sweep: by rising c. up, down: places in it of c+ and c-, chosen on other prompts. own: nothing done (times 0 is
    not that). random: PairAcc of random directions. direction: towards the clean answer."""

    direction: Direction
    sweep: tuple[Steered, ...]
    up: int
    down: int
    pair_accuracy: Estimate
    own: tuple[float, float]
    random: tuple[float, ...]

    @property
    def monotone(self) -> bool:
        """Whether the logit difference never falls while c rises, but by rounding."""
        values = [each.difference.value for each in self.sweep]
        return all(b >= a - 1e-3 for a, b in pairwise(values))

    @property
    def works(self) -> bool:
        """Whether it steers more prompts both ways than any random direction does, interval included."""
        return self.pair_accuracy.low > max(self.random)


def agreeing(model: Model, pairs: Sequence[PromptPair]) -> tuple[PromptPair, ...]:
    """The pairs of opposite intent: after the clean prompt the model's most likely token is an answer, after the
    corrupt one a distractor. Two forward passes a pair.

    In prompts with an instruction clean and corrupt are one text under two instructions. In factual-recall's
    counterfactual-context there is none: clean holds a false capital and is answered from memory, in corrupt memory
    and text agree on the distractor. Raises CircuitError where fewer than four pairs are left.
    """
    kept = []
    for batch in make_batches(model, pairs):
        sides = ((batch.clean, batch.answers), (batch.corrupt, batch.distractors))
        hits = torch.stack([correct(model.run(tokens).logits, side) for tokens, side in sides]).all(0)
        kept += [batch.index[row] for row in hits.nonzero()[:, 0].tolist()]
    if len(kept) < 4:
        raise CircuitError(
            f"{model.name} answers both prompts of a pair as it should in {len(kept)} of {len(pairs)} pairs; a knob "
            "needs 4. Ask for more with --pairs, or choose a task or a corruption that makes the model say the "
            "distractor."
        )
    return tuple(pairs[i] for i in sorted(kept))


def steer(direction: Direction, learned: Sequence[Swap], judged: Sequence[Swap], seed: int = 0) -> Steering:
    """Sweeps c on clean prompts: 13 passes of the layers above, a prompt and direction, of which there are 21."""
    tuning, test = ([swap for swap in part if swap.of_clean] for part in (learned, judged))
    u = _toward_clean(direction, tuning)
    size = torch.cat([swap.difference for swap in tuning]).norm(dim=1).mean()
    tried = [u, *(frame[:, 0].to(u.device) for frame in random_frames(len(u), 1, DRAWS, seed))]
    knobs = [(v, _middle(v, tuning) + float(size) * times) for v in tried for times in TIMES]
    tuned, said = (_swept(part, knobs).reshape(3, len(tried), len(TIMES), -1) for part in (tuning, test))
    up, down = (tuned[side].mean(-1).argmax(-1) for side in (0, 1))
    rows = np.arange(len(tried))
    pairs = np.minimum(said[0][rows, up], said[1][rows, down])
    sweep = tuple(
        Steered(times, knobs[i][1], *(mean_estimate(said[side][0, i], seed) for side in range(3)))
        for i, times in enumerate(TIMES)
    )
    return Steering(
        u,
        sweep,
        int(up[0]),
        int(down[0]),
        mean_estimate(pairs[0], seed),
        _unsteered(test),
        tuple(pairs[1:].mean(-1).tolist()),
    )


def _toward_clean(direction: Direction, some: Sequence[Swap]) -> Direction:
    away = torch.cat([swap.difference for swap in some]).mean(0) @ direction
    return -direction if away > 0 else direction


def _middle(direction: Direction, some: Sequence[Swap]) -> float:
    """Mean of u.h over both intents."""
    values = torch.cat([swap.value + swap.difference / 2 for swap in some])
    return float((values @ direction).mean())


def _swept(
    some: Sequence[Swap], knobs: Sequence[tuple[Direction, float]]
) -> Float[np.ndarray, "3 knob prompt"]:
    """Clean answer first, the other first, logit difference; in the order of the prompt set."""
    parts = []
    for swap in some:

        def work(rows: slice, swap: Swap = swap) -> Tensor:
            moved = [swap.value + (c - swap.value @ u)[:, None] * u for u, c in knobs[rows]]
            return _answers(swap, swap.logits(torch.stack(moved)))

        with torch.no_grad():
            parts.append(torch.cat(in_chunks(len(knobs), AT_ONCE, work), 1).double().cpu())
    order = np.argsort([index for swap in some for index in swap.index])
    found: Float[np.ndarray, "3 knob prompt"] = torch.cat(parts, 2).numpy()[:, :, order]
    return found


def _answers(swap: Swap, logits: Float[Tensor, "row prompt vocab"]) -> Float[Tensor, "3 row prompt"]:
    sides = swap.right, swap.counterfactual
    return torch.stack([*(correct(logits, side).float() for side in sides), logit_difference(logits, *sides)])


def _unsteered(some: Sequence[Swap]) -> tuple[float, float]:
    said = torch.cat([_answers(swap, swap.unpatched[None]) for swap in some], 2)[:2, 0]
    memory, context = said.mean(1).tolist()
    return memory, context
