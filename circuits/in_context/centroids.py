"""The centroid classifier: whether a hidden state lies nearest to the mean of its own class.

The one idea: nothing is trained but means over calibration prompts, so what it reads is there to be read; the class
is the answer. Chance is the same with the calibration prompts' classes shuffled.
Source: Cho et al. 2024 (arXiv 2410.04468): class means of 256 prompts, nearest by L2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.evaluation.faithfulness import Estimate
from circuits.statistics import wilson_interval

DRAWS = 20


@dataclass(frozen=True)
class Classified:
    """accuracy: on prompts that no mean is of, with Wilson's interval. shuffled: the mean over shuffled classes."""

    accuracy: Estimate
    shuffled: float


def classify(
    states: Float[Tensor, "sample d_model"],
    classes: Int[np.ndarray, "sample"],
    calibrating: Sequence[int],
    judged: Sequence[int],
    seed: int,
) -> Classified:
    own = _hits(states, classes[list(calibrating)], classes, calibrating, judged)
    rng = np.random.default_rng(seed)
    drawn = [
        _hits(states, rng.permutation(classes[list(calibrating)]), classes, calibrating, judged)
        for _ in range(DRAWS)
    ]
    return Classified(share_of(own, len(judged)), sum(drawn) / DRAWS / len(judged))


def _hits(
    states: Float[Tensor, "sample d_model"],
    taught: Int[np.ndarray, "calibrated"],
    classes: Int[np.ndarray, "sample"],
    calibrating: Sequence[int],
    judged: Sequence[int],
) -> int:
    known = np.unique(taught)
    from_these = states[list(calibrating)].double()
    means = torch.stack([from_these[torch.from_numpy(taught == each)].mean(0) for each in known])
    said = known[torch.cdist(states[list(judged)].double(), means).argmin(1).numpy()]
    return int((said == classes[list(judged)]).sum())


def share_of(hits: int, n: int) -> Estimate:
    """hits / n with Wilson's interval."""
    low, high = wilson_interval(hits, n)
    return Estimate(hits / n, float(low), float(high))
