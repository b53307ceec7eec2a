"""The evaluation of a run, the table of contents: read -> judge under each ablation -> elsewhere -> draw again.

The one idea: a run's circuits are asked on the half of its prompts that nothing was found on, and on the prompts of
other tasks; only stability looks at the discovery half, for it asks what other discoveries would have found.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from itertools import product

import numpy as np

from circuits.batches import Batch, make_batches
from circuits.discovery import ABLATIONS
from circuits.errors import CircuitError, RunFolderError
from circuits.evaluation.appraisal import PARTS, Appraisal, appraise, require_difference, require_numbers
from circuits.evaluation.faithfulness import (
    Ablation,
    Baseline,
    Bench,
    baseline,
    bench,
    edge_bench,
)
from circuits.evaluation.recorded import Recorded, recorded
from circuits.evaluation.stability import Stability, stability
from circuits.halves import NEW, SOLVED
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import metric_named
from circuits.model import Model
from circuits.patching import require_engine
from circuits.progress import Progress, silent
from circuits.prompts import PromptPair
from circuits.runs import RunFolder
from circuits.scores import Scores

ALL_ABLATIONS: tuple[Ablation, ...] = (*ABLATIONS, "zero")
ALL_PARTS = (*PARTS, "stability")


@dataclass(frozen=True)
class PromptSet:
    """Prompts to judge on. task: their name; about: what they are, in words; names: what errors call each.

    means_from: the prompts over which mean ablation takes its means; these themselves where None.
    """

    task: str
    pairs: tuple[PromptPair, ...]
    names: tuple[str, ...]
    metric: str
    about: str
    means_from: tuple[PromptPair, ...] | None = None


@dataclass(frozen=True)
class Redrawn:
    """Stability, or why there is none. gap: how far scores that were made again are from the run's, at most."""

    stability: Stability | None = None
    note: str = ""
    gap: float | None = None


@dataclass(frozen=True)
class Judged:
    """One method's circuit: an appraisal for each ablation, and for each other task and ablation."""

    recorded: Recorded
    appraisals: tuple[Appraisal, ...]
    elsewhere: tuple[tuple[str, Appraisal], ...] = ()
    redrawn: Redrawn = field(default_factory=Redrawn)


@dataclass(frozen=True)
class Asked:
    """What to ask of a run. own: the prompts of the run's task; others: those of other tasks.

    same_model: whether the model is the one that the run scored; else its scores cannot be made again.
    """

    methods: tuple[str, ...]
    own: PromptSet
    others: tuple[PromptSet, ...] = ()
    ablations: tuple[Ablation, ...] = ("resample",)
    seed: int = 0
    batch_size: int = 64
    skip: frozenset[str] = frozenset()
    same_model: bool = True


def evaluate_run(
    model: Model, run: RunFolder, asked: Asked, progress: Progress = silent
) -> tuple[tuple[tuple[str, Baseline], ...], tuple[Judged, ...]]:
    """How the model itself does on each prompt set, and what all that is asked says of each method's circuit.

    Raises CircuitError where a circuit does not fit the model, or where a metric is no number or tells nothing.
    """
    every = [recorded(run, method, model.graph) for method in asked.methods]
    places = (asked.own, *asked.others)

    @cache
    def judged_on(place: int) -> tuple[Batch, ...]:
        prompts = places[place]
        return make_batches(model, prompts.pairs, batch_size=asked.batch_size, names=prompts.names)

    @cache
    def means_from(place: int) -> tuple[Batch, ...]:
        pairs = places[place].means_from
        return make_batches(model, pairs, batch_size=asked.batch_size) if pairs else judged_on(place)

    @cache  # circuits of the same components share a bench, and with it both ends of its scale
    def at(place: int, ablation: Ablation, played: tuple[str, ...], edges: bool) -> Bench:
        metric, means = metric_named(places[place].metric), means_from(place) if ablation == "mean" else ()
        found = bench(model, judged_on(place), metric, ablation, played=played, means_from=means)
        return edge_bench(found, played) if edges else found

    def appraised(entry: Recorded, place: int, ablation: Ablation, skip: Collection[str]) -> Appraisal:
        return appraise(
            at(place, ablation, entry.played, entry.edges),
            entry.circuit,
            entry.scores,
            prompts=places[place].about,
            seed=asked.seed,
            skip=skip,
            progress=progress,
        )

    # All that can be refused is refused before the long work begins.
    for entry, (place, prompts), ablation in product(every, enumerate(places), asked.ablations):
        if entry.edges:
            require_engine(model, judged_on(place), "Judging a circuit of edges")
        asks = at(place, ablation, entry.played, entry.edges)
        require_numbers(asks, entry.circuit, prompts.names)
        require_difference(asks, prompts.about, asked.seed)
    before = tuple(
        (prompts.task, baseline(model, judged_on(i), metric_named(prompts.metric), seed=asked.seed))
        for i, prompts in enumerate(places)
    )
    judged = tuple(
        Judged(
            entry,
            tuple(appraised(entry, 0, ablation, asked.skip) for ablation in asked.ablations),
            tuple(
                (other.task, appraised(entry, place, ablation, PARTS))
                for place, other in enumerate(asked.others, start=1)
                for ablation in asked.ablations
            ),
            redraw(model, run, entry, asked, progress),
        )
        for entry in every
    )
    return before, judged


def redraw(model: Model, run: RunFolder, entry: Recorded, asked: Asked, progress: Progress) -> Redrawn:
    """The stability of a method's circuit; its per-prompt scores are made again, for the run keeps their means."""
    if "stability" in asked.skip:
        return Redrawn(note="left out by --skip stability")
    if not asked.same_model:
        return Redrawn(note="the run's scores are of another model, so nothing can be drawn again")
    discovery = prompts_of(run, "discovery")
    method = entry.circuit.method
    if not discovery or method not in METHODS.names() or method not in _options(run):
        return Redrawn(note="the run does not say how its scores can be made again, as where it was imported")
    scores = score_again(model, run, method, asked.batch_size, progress)
    whole = scores.edges if entry.edges else scores
    if whole is None:
        return Redrawn(note=f"{method} no longer scores edges")
    size = len(entry.circuit.kept)
    found = stability(model.graph, whole, size, edges=entry.edges, seed=asked.seed)
    note = "" if found else "there is no score for each prompt that could be drawn again"
    return Redrawn(found, note, _gap(entry.scores, whole))


def _gap(before: Scores | None, after: Scores) -> float | None:
    if before is None or before.components != tuple(c for c in after.components if c in before.components):
        return None
    places = {c: i for i, c in enumerate(after.components)}
    return float(
        np.abs(before.values - after.values[[places[c] for c in before.components]]).max(initial=0.0)
    )


def score_again(
    model: Model, run: RunFolder, method: str, batch_size: int, progress: Progress = silent
) -> Scores:
    """The scores of a run's method on the run's discovery prompts, made as they were then."""
    entry = METHODS.load(method)
    pairs = prompts_of(run, "discovery")
    references = {name: frozenset(heads) for name, heads in (run.run.get("references") or {}).items()}
    config = run.run["config"]
    problem = Problem(
        make_batches(model, pairs, batch_size=batch_size),
        metric_named(config["metric"]),
        config["seed"],
        references,
        progress,
    )
    scores = entry.score(model, problem, entry.configure(_options(run)[method]))
    assert isinstance(scores, Scores)
    return scores


def _options(run: RunFolder) -> dict[str, dict[str, object]]:
    found = (run.run.get("config") or {}).get("methods")
    return found if isinstance(found, dict) else {}


def prompts_of(run: RunFolder, half: str) -> tuple[PromptPair, ...]:
    """The discovery or the judged prompts of a run; none where it was imported without prompts."""
    return tuple(run.prompts[i] for i in prompt_numbers(run, half))


def prompt_numbers(run: RunFolder, half: str) -> tuple[int, ...]:
    """Where those prompts stand in prompts.jsonl. Raises RunFolderError where they do not."""
    numbers = (run.run.get("prompts") or {}).get(half) or []
    good = isinstance(numbers, list) and all(
        isinstance(i, int) and 0 <= i < len(run.prompts) for i in numbers
    )
    if not good:
        raise RunFolderError(
            f"{run.path / 'run.json'} is damaged: its {half} prompts are not those of prompts.jsonl. "
            "Make the run again."
        )
    return tuple(numbers)


def own_prompts(run: RunFolder, n: int | None) -> PromptSet | None:
    """The judged prompts of a run, or the first n of them; None where it has none."""
    numbers = prompt_numbers(run, "judged")[:n]
    if not numbers:
        return None
    config = run.run.get("config") or {}
    try:
        task, metric = str(config["task"]), str(config["metric"])
    except (KeyError, TypeError) as problem:
        raise RunFolderError(
            f"{run.path / 'run.json'} is damaged: its config lacks {problem}. Make the run again."
        ) from None
    return PromptSet(
        task,
        tuple(run.prompts[i] for i in numbers),
        tuple(f"prompt {i + 1}" for i in numbers),
        metric,
        f"judged prompts of {task}, {_said_of(run)}",
        prompts_of(run, "discovery") or None,
    )


def _said_of(run: RunFolder) -> str:
    """What makes the judged prompts new, and whether the model solves all of them by choice."""
    new = NEW["templates" if run.run["config"].get("judge_on") == "templates" else "prompts"]
    screening = run.run["prompts"].get("screening") or {}
    return new + (SOLVED if screening.get("keep_solved") else "")


def check_parts(skip: Collection[str]) -> frozenset[str]:
    """Raises CircuitError for a part that there is none of."""
    for part in skip:
        if part not in ALL_PARTS:
            raise CircuitError(
                f"--skip {part} names no part of the evaluation. Parts: {', '.join(ALL_PARTS)}."
            )
    return frozenset(skip)
