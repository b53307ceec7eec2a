"""In-context learning measured: three phases, their heads, and what is lost without their edges.

The one idea: one pass for what is seen, and runs with edges forbidden for what is needed; looking is not needing.
Source: Cho et al. 2024 (arXiv 2410.04468).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circuits.batches import Batch
from circuits.errors import PromptError
from circuits.evaluation.faithfulness import Estimate, mean_estimate
from circuits.halves import split
from circuits.in_context.ablation import Ablation, ablate
from circuits.in_context.centroids import Classified, classify
from circuits.in_context.kernel_alignment import LEAST, SHARE, Alignment
from circuits.in_context.layout import few_shot
from circuits.in_context.phases import (
    Level,
    Merged,
    Merger,
    Retriever,
    level_of,
    merged,
    mergers,
    retrievers,
    summarised,
    text_features,
)
from circuits.in_context.states import States, read_states
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.prompts import PromptPair
from circuits.weight_reading.heads import require_weights


@dataclass(frozen=True)
class Stream:
    """One place of the residual stream at s_q; layers: how many lie behind it.

    nearest: share of prompts whose most similar forerunner has the answer's label behind it.
    """

    layers: int
    text: Alignment
    answer: Classified
    nearest: Estimate


@dataclass(frozen=True)
class Study:
    """accuracy: of the model over the prompt's labels. neighbours: k of kernel alignment."""

    n: int
    neighbours: int
    level: Level
    accuracy: Estimate
    streams: tuple[Stream, ...]
    merged: tuple[Merged, ...]
    mergers: tuple[Merger, ...]
    retrievers: tuple[Retriever, ...]
    ablations: tuple[Ablation, ...]

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / self.level.labels

    @property
    def solves(self) -> bool:
        return self.accuracy.low > self.chance


def study(
    model: Model,
    pairs: Sequence[PromptPair],
    batches: Sequence[Batch],
    *,
    draws: int,
    seed: int,
    progress: Progress = silent,
) -> Study:
    """Raises PromptError where prompts are too few or show no examples, ModelError without the engine."""
    if len(pairs) < LEAST:
        raise PromptError(f"{len(pairs)} prompts are too few to have neighbours; give {LEAST} or more.")
    weights = require_weights(model, "in-context")
    prompts = few_shot(model, pairs, batches)
    level, states = level_of(prompts), read_states(weights, prompts)
    text = summarised(states, text_features(weights, prompts), seed)
    accuracy, ablations = ablate(weights, prompts, draws, seed, progress)
    return Study(
        len(pairs),
        len(pairs) // SHARE,
        level,
        accuracy,
        tuple(_streams(states, text, pairs, seed)),
        merged(states, seed),
        mergers(states, model.graph, level, seed),
        retrievers(states, model.graph, level, seed),
        ablations,
    )


def _streams(
    states: States, text: Sequence[Alignment], pairs: Sequence[PromptPair], seed: int
) -> list[Stream]:
    halves = split(pairs, seed)
    classes = np.unique([pair.answers[0] for pair in pairs], return_inverse=True)[1]
    return [
        Stream(
            layers,
            alignment,
            classify(states.query[:, layers], classes, halves.discovery, halves.judged, seed),
            mean_estimate(states.nearest[:, layers].double().numpy(), seed),
        )
        for layers, alignment in enumerate(text)
    ]
