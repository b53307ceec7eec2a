"""What is known of every head of a model on given prompts: its roles, and its effect on each prompt.

The one idea: two models can be held against each other head by head only where both were asked the same, so prompts
that one of them cannot read are left out for both. Effects are those of activation patching (noising, the other
prompt's output), in units of what the corruption does to that model's metric, so that models of unlike confidence
compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.batches import make_batches, tokenize_pair, unknown_words
from circuits.comparison.alignment import HeadProfiles
from circuits.errors import CircuitError, PromptError
from circuits.methods.activation_patching import METHOD
from circuits.methods.method import Problem
from circuits.metrics import metric_named
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.prompts import PromptPair
from circuits.readout import Readout, in_prompt_order
from circuits.roles import ROLES
from circuits.roles.role import Evidence, score_all

FEWEST = 8
"""Prompts below which profiles say next to nothing."""


@dataclass(frozen=True)
class Asked:
    """Prompts of one run, and the metric that reads their answers."""

    pairs: tuple[PromptPair, ...]
    metric: str


def readable_by_all(models: Sequence[Model], sets: Sequence[Asked]) -> tuple[Asked, ...]:
    """The prompts that every model can read, each once; sets that are left empty are dropped.

    Raises CircuitError where fewer than `FEWEST` are left.
    """
    seen: set[tuple[str, str]] = set()
    kept = []
    for asked in sets:
        pairs = [pair for pair in asked.pairs if (pair.clean, pair.corrupt) not in seen]
        seen |= {(pair.clean, pair.corrupt) for pair in pairs}
        kept.append(Asked(tuple(p for p in pairs if all(_reads(m, p) for m in models)), asked.metric))
    n, whole = sum(len(asked.pairs) for asked in kept), len(seen)
    if n < FEWEST:
        names = " and ".join(model.name for model in models)
        raise CircuitError(
            f"{n} of {whole} prompts can be read by both {names}; heads are aligned on {FEWEST} or more of the same. "
            "Discover on prompts whose words both models know, or compare by index."
        )
    return tuple(asked for asked in kept if asked.pairs)


def _reads(model: Model, pair: PromptPair) -> bool:
    try:
        tokenize_pair(model, pair, "")
    except PromptError:
        return False
    return not unknown_words(model, [pair])


def head_profiles(
    model: Model,
    sets: Sequence[Asked],
    *,
    task: str = "",
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress = silent,
) -> HeadProfiles:
    """Roles of every head, all that can be measured, and its effect on each prompt of all sets, in their order.

    A forward pass for each head and prompt, less what the exact engine skips. Raises ModelError where that does not
    serve the model, which roles need; CircuitError where a metric tells clean and corrupt prompts nowhere apart.
    """
    pairs = [pair for asked in sets for pair in asked.pairs]
    evidence = Evidence(model, make_batches(model, pairs, batch_size=batch_size), task, seed)
    found, _ = score_all([ROLES.load(name) for name in ROLES.names()], evidence, progress)
    graph = model.graph
    return HeadProfiles(
        graph.heads,
        np.array([graph.node(name).layer for name in graph.heads]),
        graph.n_layers,
        tuple(scored.role.name for scored in found),
        np.stack([scored.scores.values for scored in found]),
        np.concatenate([_effects(model, asked, seed, batch_size, progress) for asked in sets]),
    )


def _effects(
    model: Model, asked: Asked, seed: int, batch_size: int, progress: Progress
) -> Float[np.ndarray, "prompt head"]:
    batches = make_batches(model, asked.pairs, batch_size=batch_size)
    problem = Problem(batches, metric_named(asked.metric), seed, progress=progress)
    scores = METHOD.score(model, problem, METHOD.configure({"components": "heads"}))
    whole = np.sqrt((_differences(model, problem) ** 2).mean())
    if not np.isfinite(whole) or whole == 0 or not np.isfinite(scores.samples).all():
        raise CircuitError(
            f"{asked.metric} of {model.name} on {len(asked.pairs)} prompts does not tell clean from corrupt, or is "
            "no number, so its heads have no effects to align by. Compare by index, or load in float32."
        )
    return np.asarray(scores.samples / whole)


def _differences(model: Model, problem: Problem) -> Float[np.ndarray, " prompt"]:
    """What the corruption takes off the metric of each prompt."""

    clean, corrupt = (
        in_prompt_order(
            problem.batches,
            [
                Readout(b, problem.metric).of_all(model.run(getattr(b, side)).logits[None])
                for b in problem.batches
            ],
        )
        for side in ("clean", "corrupt")
    )
    return np.asarray((clean.metric - corrupt.metric)[0].double().numpy())
