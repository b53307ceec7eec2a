"""Evaluation: what a circuit alone does on prompts that it was not found on, beside random circuits of its size.

The one idea: keep the circuit, replace everything else (by the corrupt run's output, or by the mean), and read
the metric on a scale from nothing kept (0) to everything kept (1):
    faithfulness = (mean m(circuit) - mean m(nothing)) / (mean m(everything) - mean m(nothing)),
a ratio of means over prompts. Sources: Wang et al. 2022, section 4; Hanna et al. 2024 (arXiv 2403.17806) for the
normalised form; Miller et al. 2024 (arXiv 2407.08734) for what must be stated beside the number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.batches import Batch, first_prompts, n_prompts
from circuits.circuit import Circuit
from circuits.donors import Donor, keep_masks, mean_donor, resample_donor, zero_donor
from circuits.edge_selection import edge_order
from circuits.engine.cuts import kept_masks
from circuits.engine.edges import EdgeRun
from circuits.engine.exact import ExactRun
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.metrics import Metric
from circuits.model import Model
from circuits.patching import base_run
from circuits.progress import Progress, silent
from circuits.readout import Outcome, Readout, in_prompt_order
from circuits.scores import Scores
from circuits.statistics import bootstrap_interval, bootstrap_ratio_interval

Ablation = Literal["resample", "mean", "zero"]
Granularity = Literal["node", "edge"]
DonorMaker = Callable[[Batch], Donor]

BAND_PROMPTS = 64
"""Judged prompts that random circuits run on: their spread is wide, so more would not sharpen the band."""

FLAT = 1e-6
"""Below this the full model and the empty circuit do not differ, and faithfulness has no meaning."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% bootstrap interval over prompts."""

    value: float
    low: float
    high: float


def mean_estimate(samples: Float[np.ndarray, "prompt"], seed: int) -> Estimate:
    """The mean over prompts."""
    low, high = bootstrap_interval(samples, seed=seed)
    return Estimate(float(samples.mean()), float(low), float(high))


def ratio_estimate(
    part: Float[np.ndarray, "prompt"], whole: Float[np.ndarray, "prompt"], seed: int
) -> Estimate:
    """The ratio of means over prompts; the interval is unbounded where a resampled denominator is zero."""
    interval = bootstrap_ratio_interval(part, whole, seed=seed)
    low, high = interval or (-np.inf, np.inf)
    return Estimate(float(part.mean() / whole.mean()), float(low), float(high))


@dataclass(frozen=True)
class RandomBand:
    """Faithfulness of random circuits with as many heads and MLPs, or edges, and how the circuit stands to them.

    n_prompts: how many of the judged prompts they ran on; the circuit is compared with them on the same ones.
    """

    n: int
    n_prompts: int
    low: float
    median: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Verdict:
    """A circuit judged under one ablation, with 95% bootstrap intervals over prompts.

    preferred: share of prompts on which an answer beats all distractors; correct: on which it is the most likely
    token of all. circuit/everything/nothing: mean metric of each.
    """

    ablation: Ablation
    n_prompts: int
    faithfulness: Estimate
    circuit: float
    everything: float
    nothing: float
    preferred: Estimate
    correct: Estimate
    random: RandomBand


@runtime_checkable
class Run(Protocol):
    """Prompts that were run once, for rows of what is kept (nodes: BaseRun) or cut (edges: EdgeRun)."""

    def measure(self, mask: Bool[Tensor, "..."], readout: Readout, /) -> Outcome:
        """Every row of `mask`."""


Runs = Callable[[Model, Batch, DonorMaker], Run]


def _node_run(model: Model, batch: Batch, donors: DonorMaker) -> Run:
    return base_run(model, batch.clean, donors(batch))


def _edge_run(model: Model, batch: Batch, donors: DonorMaker) -> Run:
    run = base_run(model, batch.clean, donors(batch))
    assert isinstance(run, ExactRun), "edges need the engine, see require_engine"
    return EdgeRun(run, model.graph)


@dataclass(frozen=True)
class Bench:
    """Prompts to judge on, under one ablation. played: the components, or the edges, that a circuit may leave out.

    granularity: what circuits consist of. For edges `runs` are those of edges, see edge_bench.
    """

    model: Model
    batches: tuple[Batch, ...]
    metric: Metric
    ablation: Ablation
    played: tuple[str, ...]
    donors: DonorMaker
    granularity: Granularity = "node"
    runs: Runs = _node_run

    def masks(self, circuits: Sequence[Iterable[str]]) -> Bool[Tensor, "..."]:
        """A row a circuit, as runs understand it."""
        graph, edges = self.model.graph, self.granularity == "edge"
        free = set(graph.places if edges else graph.components) - set(self.played)
        return (kept_masks if edges else keep_masks)(graph, ({*circuit, *free} for circuit in circuits))

    def outcome(
        self, circuits: Sequence[Iterable[str]], progress: Progress = silent, *, accuracy: bool = False
    ) -> Outcome:
        """What each circuit alone gives: [circuit, prompt]; at most len(circuits) passes over the prompts.

        accuracy: whether to ask which prompts are answered correctly, which takes the whole vocabulary.
        """
        masks, parts = self.masks(circuits), []
        for n, batch in enumerate(self.batches):
            run = self.runs(self.model, batch, self.donors)
            parts.append(run.measure(masks, Readout(batch, self.metric, accuracy)))
            progress(f"judging, {self.ablation} ablation", n + 1, len(self.batches))
        return in_prompt_order(self.batches, parts)

    def first(self, n: int) -> Bench:
        """The same bench with the first n prompts alone."""
        return replace(self, batches=first_prompts(self.batches, n))

    def remembering(self) -> Bench:
        """The same bench, keeping its base runs: for circuits that are asked about one after another."""
        known: dict[int, Run] = {}  # by identity: two batches may hold rows of the same pairs

        def runs(model: Model, batch: Batch, donors: DonorMaker) -> Run:
            if id(batch) not in known:
                known[id(batch)] = self.runs(model, batch, donors)
            return known[id(batch)]

        return replace(self, runs=runs)

    @cached_property
    def ends(self) -> Outcome:
        """Nothing kept and everything kept: rows 0 and 1."""
        return self.outcome([(), self.played])

    def faithfulness(self, circuits: Sequence[Iterable[str]], progress: Progress = silent) -> np.ndarray:
        """Faithfulness of each circuit. Raises CircuitError where the scale has no length."""
        nothing, everything = self.ends.metric.double().mean(1).tolist()
        require_scale(self.ablation, nothing, everything)
        inside = self.outcome(circuits, progress).metric.double().mean(1).numpy()
        return np.asarray((inside - nothing) / (everything - nothing))


def require_scale(ablation: str, nothing: float, everything: float) -> None:
    """Raises CircuitError where the full model and the empty circuit do not differ."""
    if abs(everything - nothing) < FLAT * max(1.0, abs(everything)):
        raise CircuitError(
            f"The metric is {everything:.3g} with all components and {nothing:.3g} with all replaced ({ablation} "
            "ablation), so there is nothing to explain and faithfulness is undefined: the model does not tell clean "
            "from corrupt prompts. Choose another model, task or --corruption."
        )


def edge_bench(at: Bench, played: tuple[str, ...] | None = None) -> Bench:
    """The same bench for circuits of edges. played: those that may be left out, all where None."""
    edges = tuple(at.model.graph.places) if played is None else played
    return replace(at, played=edges, granularity="edge", runs=_edge_run)


def donor_maker(model: Model, ablation: Ablation, means_from: tuple[Batch, ...]) -> DonorMaker:
    """What replaces outputs under `ablation`; means are taken once, over `means_from` (the discovery prompts)."""
    if ablation == "resample":
        return lambda batch: resample_donor(batch.corrupt)
    donor = mean_donor(model, means_from) if ablation == "mean" else zero_donor()
    return lambda batch: donor


def bench(
    model: Model,
    batches: tuple[Batch, ...],
    metric: Metric,
    ablation: Ablation,
    *,
    played: tuple[str, ...],
    means_from: tuple[Batch, ...],
) -> Bench:
    """A bench over `batches`; the means of mean ablation come from `means_from`."""
    return Bench(model, batches, metric, ablation, played, donor_maker(model, ablation, means_from))


def judge(
    at: Bench, circuit: Circuit, *, seed: int, n_random: int = 25, progress: Progress = silent
) -> Verdict:
    """The verdict on `circuit`, beside `n_random` random circuits with as many heads and MLPs, or edges."""
    outcome = at.outcome([circuit.kept], accuracy=True)
    nothing, everything = at.ends.metric.double().numpy()
    require_scale(at.ablation, nothing.mean(), everything.mean())
    inside = outcome.metric[0].double().numpy()
    return Verdict(
        ablation=at.ablation,
        n_prompts=len(inside),
        faithfulness=ratio_estimate(inside - nothing, everything - nothing, seed),
        circuit=float(inside.mean()),
        everything=float(everything.mean()),
        nothing=float(nothing.mean()),
        preferred=mean_estimate(outcome.preferred[0].double().numpy(), seed),
        correct=mean_estimate(outcome.accurate[0].double().numpy(), seed),
        random=_band(at.first(BAND_PROMPTS), circuit, n_random, seed, progress),
    )


def _band(at: Bench, circuit: Circuit, n: int, seed: int, progress: Progress) -> RandomBand:
    drawn = random_edge_circuits if at.granularity == "edge" else random_circuits
    chance = drawn(at.model.graph, at.played, circuit, n, seed)
    values = at.faithfulness([circuit.kept, *chance], progress)
    low, median, high = np.quantile(values[1:], [0.025, 0.5, 0.975])
    p = (1 + int((values[1:] >= values[0]).sum())) / (1 + n)
    return RandomBand(n, n_prompts(at.batches), float(low), float(median), float(high), float(p))


def random_circuits(
    graph: Graph, played: Sequence[str], circuit: Circuit, n: int, seed: int
) -> list[tuple[str, ...]]:
    """n random circuits among `played`, each with as many heads and as many MLPs as `circuit`."""
    rng = np.random.default_rng([seed, 0xC1C])
    heads, mlps = ([c for c in played if c[0] == kind] for kind in "am")
    sizes = len(circuit.heads), len(circuit.mlps)
    return [
        tuple(
            str(c)
            for kind, size in zip((heads, mlps), sizes, strict=True)
            for c in rng.permutation(kind)[:size]
        )
        for _ in range(n)
    ]


def random_edge_circuits(
    graph: Graph, played: Sequence[str], circuit: Circuit, n: int, seed: int
) -> list[tuple[str, ...]]:
    """n random circuits of as many edges as `circuit` has, grown from the logits by random scores.

    Edges drawn anywhere would mostly hang in the air; these are connected as a method's own are.
    """
    rng = np.random.default_rng([seed, 0xED6E])
    draws = (Scores("random", tuple(played), rng.normal(size=(1, len(played)))) for _ in range(n))
    return [edge_order(graph, draw)[: len(circuit.kept)] for draw in draws]


@dataclass(frozen=True)
class Baseline:
    """The model itself on a set of prompts, nothing patched: what there is to explain."""

    n_prompts: int
    metric_clean: Estimate
    metric_corrupt: Estimate
    preferred: Estimate
    correct: Estimate

    @property
    def solves(self) -> bool:
        """Whether the model prefers the answer on clearly more than half of the prompts."""
        return self.preferred.low > 0.5


def require_finite(metric: Float[np.ndarray, "prompt"], names: Sequence[str], when: str) -> None:
    """Raises CircuitError naming the first prompt on which the metric is no finite number. when: in what run."""
    if not (good := np.isfinite(metric)).all():
        first = int(np.argmin(good))
        raise CircuitError(
            f"{names[first]}: the metric is {metric[first]:g} {when}, so nothing can be judged: the model's "
            "activations overflow. Leave the prompt out, or load with --dtype float32."
        )


def baseline(
    model: Model,
    batches: tuple[Batch, ...],
    metric: Metric,
    *,
    seed: int,
    names: Sequence[str] | None = None,
) -> Baseline:
    """Accuracy and metric of the unpatched model, two forward passes a prompt.

    names: what errors call each prompt. Raises CircuitError where the metric is no number.
    """
    clean, corrupt = (
        in_prompt_order(
            batches,
            [
                Readout(b, metric, accuracy=True).of_all(model.run(getattr(b, side)).logits[None])
                for b in batches
            ],
        )
        for side in ("clean", "corrupt")
    )
    called = names or [f"prompt {i + 1}" for i in range(clean.metric.shape[1])]
    for side, outcome in (("clean", clean), ("corrupt", corrupt)):
        require_finite(outcome.metric[0].numpy(), called, f"on the {side} prompt")
    return Baseline(
        n_prompts=clean.metric.shape[1],
        metric_clean=mean_estimate(clean.metric[0].double().numpy(), seed),
        metric_corrupt=mean_estimate(corrupt.metric[0].double().numpy(), seed),
        preferred=mean_estimate(clean.preferred[0].double().numpy(), seed),
        correct=mean_estimate(clean.accurate[0].double().numpy(), seed),
    )


def six_things(verdict: Verdict, played: Sequence[str], graph: Graph, prompts: str) -> Mapping[str, str]:
    """What makes a faithfulness comparable with another (Miller et al. 2024): all six, in words."""
    edges = any("->" in c for c in played)
    heads_only = not edges and not any(c[0] == "m" for c in played)
    return {
        "granularity": "edge (q, k and v inputs apart)" if edges else "node",
        "component set": "attention heads (all MLPs kept)" if heads_only else "attention heads and MLPs",
        "ablation": verdict.ablation,
        "token positions": "all",
        "direction": "clean run with everything outside the circuit replaced (noising the complement)",
        "prompt set": prompts,
    }
