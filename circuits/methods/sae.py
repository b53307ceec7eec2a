"""SAE: heads ranked by the codes that a sparse autoencoder gives them on positives and never on negatives.

The one idea: no patching and no gradient. What each head writes on a prompt becomes one of 200 codes, and a
head scores the number of codes that occur where the behaviour is called for and nowhere else. O'Neill and
Bui 2024, "Sparse autoencoders enable scalable and reliable circuit identification in language models"
(arXiv 2405.12522); circuits/sae.py and circuits/codes.py hold the algorithm.

**The score is a count.** It has no sign, so it does not say whether a head supports the behaviour or works
against it, and it measures no causal effect: a head may score high because what it writes merely varies with
the prompts. Two things follow. The autoencoder sees ten examples, but the counts need every labelled prompt;
and an AUROC means little without the controls, which run in every trial on the same data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field

from circuits import controls, sae
from circuits.batches import n_prompts
from circuits.codes import appearances, node_scores, occurrences, pair_head_scores, pair_scores
from circuits.errors import CircuitError, PromptError
from circuits.graph import Graph
from circuits.head_vectors import HeadVectors, collect, passes
from circuits.judgement import agreement, judge, verdict
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.scores import Scores
from circuits.work import Rehearsal, Work, Workload

PUBLISHED_TRIALS = 10


class SaeOptions(Options):
    position: Literal["mean", "last"] = Field("mean", description="mean over positions, or the last")
    level: Literal["node", "pair"] = Field("node", description="count codes of a head, or of pairs of heads")
    features: int = Field(200, ge=2, description="size of the dictionary, which is the number of codes")
    l1: float = Field(0.02, ge=0, description="weight of the sparsity loss (the paper: 0.05 for docstring)")
    learning_rate: float = Field(1e-3, gt=0, description="step size of Adam")
    epochs: int = Field(500, ge=1, description="full-batch steps of training")
    examples: int = Field(10, ge=1, description="prompts that the autoencoder is trained on, drawn at random")
    trials: int = Field(PUBLISHED_TRIALS, ge=1, description="trainings with other examples and another start")
    normalise: bool = Field(False, description="divide counts by the number of distinct codes")

    @property
    def settings(self) -> sae.Settings:
        return sae.Settings(self.features, self.l1, self.learning_rate, self.epochs)


@dataclass(frozen=True)
class Trial:
    """One training: head scores of both levels, the table of pairs, controls, the autoencoder and its codes."""

    node: Float[np.ndarray, "head"]
    pair: Float[np.ndarray, "head"]
    table: Float[np.ndarray, "head head"]
    controls: Mapping[str, Float[np.ndarray, "head"]]
    trained: sae.SparseAutoencoder
    codes: Int[np.ndarray, "example head"]


def run_trial(data: HeadVectors, options: SaeOptions, seed: int, trial: int) -> Trial:
    """Trains one autoencoder and scores its codes. Every trial has its own stream of random numbers."""
    x, positive = data
    features = options.features
    draw = np.random.default_rng([seed, trial])
    generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
    rows = torch.from_numpy(draw.permutation(len(x))[: options.examples])
    start = sae.untrained(x.shape[-1], features, generator)
    trained = sae.train(start, x[rows], options.settings)
    codes = sae.encode(trained, x)
    table = pair_scores(codes, positive, normalise=options.normalise)
    score = partial(pair_head_scores if options.level == "pair" else node_scores, normalise=options.normalise)
    rivals = {
        "untrained autoencoder": controls.untrained_autoencoder(x, positive, score, start),
        "random projection": controls.random_projection(x, positive, score, features, generator),
        "k-means codes": controls.k_means(x, positive, score, rows, features, draw),
        "code diversity": controls.code_diversity(codes, positive),
        "shuffled labels": controls.shuffled_labels(codes, positive, score, draw),
    }
    node = node_scores(codes, positive, normalise=options.normalise)
    return Trial(node, appearances(table), table, rivals, trained, codes)


REHEARSED_FLOPS = 10**9
"""Enough to time training by, little enough to be done at once."""

REHEARSED_NUMBERS = 10**7


def work(model: Model, problem: Problem, options: SaeOptions) -> Workload:
    """A forward pass a prompt and negative; training and controls are rehearsed on vectors drawn at random."""
    _require_prompts(problem)
    n, heads, d_model = 2 * n_prompts(problem.batches), len(model.graph.heads), model.d_model
    fewer = max(4, min(n, REHEARSED_NUMBERS // (heads * d_model)))
    rows = min(options.examples, n) * heads
    epochs = max(1, min(options.epochs, REHEARSED_FLOPS // (10 * rows * d_model * options.features)))
    generator = torch.Generator().manual_seed(problem.seed)
    some = HeadVectors(torch.randn(fewer, heads, d_model, generator=generator), np.arange(fewer) < fewer // 2)
    one = HeadVectors(torch.randn(n, 1, d_model, generator=generator), np.arange(n) < n // 2)
    few = torch.randn(rows, d_model, generator=generator)
    start = sae.untrained(d_model, options.features, generator)
    training = replace(options.settings, epochs=epochs)
    untrained = options.model_copy(update={"epochs": 0})
    return Workload(
        model.graph.heads,
        passes(model, problem.batches) + Work(bytes=4 * n * heads * d_model),
        (
            Rehearsal(lambda: sae.train(start, few, training), options.trials * options.epochs / epochs),
            Rehearsal(lambda: run_trial(some, untrained, problem.seed, 0), options.trials * n / fewer),
            Rehearsal(lambda: controls.probe_accuracy(*one), heads),
        ),
        unit="trial",
    )


def _require_prompts(problem: Problem) -> None:
    if n_prompts(problem.batches) < 2:
        raise PromptError("sae counts codes over prompts and needs at least 2; give more prompts.")


def _data(model: Model, problem: Problem, options: SaeOptions) -> HeadVectors:
    _require_prompts(problem)
    data = collect(model, problem.batches, options.position)
    if not bool(data.x.isfinite().all()):
        raise CircuitError("sae: the model's activations overflow. Load it with --dtype float32.")
    return data


def _by_trial(trials: list[Trial], data: HeadVectors) -> dict[str, Float[np.ndarray, "trial head"]]:
    """Control -> scores by trial; the last two draw nothing at random, so they have a single row."""
    drawn = {name: np.stack([t.controls[name] for t in trials]) for name in trials[0].controls}
    return {
        **drawn,
        "mean difference": controls.mean_difference(*data)[None],
        "linear probe": controls.probe_accuracy(*data)[None],
    }


def _links(graph: Graph, table: Float[np.ndarray, "head head"]) -> dict[tuple[str, str], float]:
    """Mean pair score of every two heads of which the earlier writes what the later can read."""
    heads = graph.heads
    later = zip(*np.triu_indices(len(heads), 1), strict=True)
    named = ((heads[i], heads[j], float(table[i, j])) for i, j in later)
    return {(source, target): value for source, target, value in named if graph.feeds(source, target)}


def _codes(heads: tuple[str, ...], trial: Trial, data: HeadVectors) -> dict[str, np.ndarray]:
    found = occurrences(trial.codes, data.positive)
    return found._asdict() | {"head": np.array(heads)[found.head]}


def _counts(data: HeadVectors, options: SaeOptions) -> dict[str, int]:
    return {
        "positives": int(data.positive.sum()),
        "negatives": int((~data.positive).sum()),
        "heads": data.x.shape[1],
        "examples": min(options.examples, len(data.x)),
        "trials": options.trials,
        "activation_bytes": data.x.numel() * data.x.element_size(),
    }


def _notes(data: HeadVectors, options: SaeOptions) -> list[str]:
    notes = ["The score is a count of codes: it has no sign and does not measure a causal effect."]
    if options.trials < PUBLISHED_TRIALS:
        notes.append(
            f"{options.trials} of the paper's {PUBLISHED_TRIALS} trials: the spread is poorly known."
        )
    if options.examples > len(data.x):
        notes.append(f"There are {len(data.x)} prompts, so the autoencoder saw them all.")
    return notes


def _details(
    heads: tuple[str, ...],
    levels: Mapping[str, Float[np.ndarray, "trial head"]],
    rivals: Mapping[str, Float[np.ndarray, "trial head"]],
    problem: Problem,
    level: str,
) -> dict[str, object]:
    """Scores by head, and what controls and references make of them; levels and rivals: scores by trial."""
    judged = judge(heads, levels, rivals, problem.references)
    agreements = agreement(levels[level], rivals)
    return {
        "heads": list(heads),
        "levels": {name: rows.mean(0).tolist() for name, rows in levels.items()},
        "controls": {name: rows.mean(0).tolist() for name, rows in rivals.items()},
        "agreement_with_controls": agreements,
        "references": {name: asdict(result) for name, result in judged.items()},
        "verdict": verdict(level, judged, agreements),
    }


def score(model: Model, problem: Problem, options: SaeOptions) -> Scores:
    """Heads by the number of their codes on clean prompts that never occur on the negatives.

    A count (>= 0), one sample a trial: it has no sign and measures no causal effect. MLPs are not scored.
    The head vectors stay in memory, 4 * examples * heads * d_model bytes. links: the mean pair score of heads
    that can feed each other, whatever the level. artifacts: the tensors of the first trial's autoencoder;
    tables: its codes, each with the number of positives and negatives that it is on.
    Raises PromptError for fewer than two prompts, CircuitError where activations are not finite.
    """
    data = _data(model, problem, options)
    trials = []
    for trial in range(options.trials):
        problem.progress("sae trials", trial, options.trials)
        trials.append(run_trial(data, options, problem.seed, trial))
    problem.progress("sae trials", options.trials, options.trials)
    levels = {"node": np.stack([t.node for t in trials]), "pair": np.stack([t.pair for t in trials])}
    heads = model.graph.heads
    return Scores(
        method="sae",
        components=heads,
        samples=levels[options.level],
        unit="trial",
        details={
            "options": options.model_dump(),
            "unit": "codes on positives alone",
            "signed": False,
            "counts": _counts(data, options),
            "notes": _notes(data, options),
            **_details(heads, levels, _by_trial(trials, data), problem, options.level),
        },
        links=_links(model.graph, np.mean([t.table for t in trials], axis=0)),
        artifacts={"sae": trials[0].trained.tensors()},
        tables={"codes": _codes(heads, trials[0], data)},
    )


METHOD = Method(
    name="sae",
    summary="Heads whose sparse-autoencoder codes occur on the task's prompts and never on the negatives.",
    paper="O'Neill and Bui 2024, arXiv 2405.12522",
    options=SaeOptions,
    score=score,
    work=work,
)
