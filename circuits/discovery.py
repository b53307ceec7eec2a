"""Discovery, the table of contents: score -> select -> judge -> compare.

The one idea: scores are found on one half of the prompts and the circuits that they choose are judged on the
other half, so that no figure is a circuit's word about itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Float

from circuits.audit import Audit, verify
from circuits.batches import Batch, make_batches
from circuits.circuit import Circuit
from circuits.comparison.overlap import PairOverlap, pairwise_overlaps
from circuits.evaluation.by_size import Prefix, by_size
from circuits.evaluation.faithfulness import (
    Ablation,
    Baseline,
    Bench,
    DonorMaker,
    Granularity,
    Verdict,
    baseline,
    donor_maker,
    edge_bench,
    judge,
)
from circuits.graph import Graph
from circuits.halves import Halves, JudgeOn, split
from circuits.methods.method import Method, Options, Problem
from circuits.metrics import Metric, metric_named
from circuits.missed import Missed, bound_missed
from circuits.model import Model
from circuits.precision import Rounding, rounding
from circuits.progress import Progress, silent
from circuits.prompts import PromptPair
from circuits.scores import Scores
from circuits.selection import Choice, Selection, select
from circuits.statistics import auroc, balanced_harmonic_score, f1, precision, true_positive_rate

SELECTION_PROMPTS = 64
"""Discovery prompts that a selection rule asks again and again."""

ABLATIONS: tuple[Ablation, ...] = ("resample", "mean")


@dataclass(frozen=True)
class Plan:
    """What to do, apart from the model and the prompts.

    references: name -> heads of a known circuit, to state how well each method finds it.
    direct_references: name -> those that write to the logits, which is all that a direct method can see.
    edge_references: name -> edges of a known circuit, for methods that score edges.
    memory: bytes that the work may take on top of the model; None leaves it to what is free.
    verify: how many of a method's largest edges are measured again exactly.
    missed: how many random subsets of what a method's circuit leaves out are patched, see circuits.missed.
    ablations: what circuits are judged under, the first of which they are chosen under too.
    judge_on: what is new in the judged half, see circuits.halves.
    """

    methods: tuple[tuple[Method, Options], ...]
    metric: str = "logit-difference"
    selection: Selection = field(default_factory=Selection)
    seed: int = 0
    batch_size: int = 64
    n_random: int = 25
    references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    direct_references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    edge_references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    memory: int | None = None
    verify: int | None = None
    missed: int | None = None
    ablations: tuple[Ablation, ...] = ABLATIONS
    judge_on: JudgeOn = "prompts"


@dataclass(frozen=True)
class Match:
    """A method's scores and circuit against a known circuit: its heads, or its edges (see `of`).

    auroc: of the size of the scores; None where the reference holds none of the model's, or all of them.
    f1: of precision and recall of the chosen circuit. balanced_harmonic_score: of its sensitivity and
    specificity, which the code of O'Neill & Bui 2024 calls F1.
    """

    reference: str
    auroc: float | None
    precision: float
    recall: float
    f1: float
    balanced_harmonic_score: float
    of: Literal["heads", "edges"] = "heads"


@dataclass(frozen=True)
class Finding:
    """What one method found: its scores, the circuit they choose, the verdicts on it by ablation, and how well
    scores and circuit match what is known.

    sizes: what the first of the ranking do on the judged prompts, under the first ablation.
    """

    scores: Scores
    choice: Choice
    verdicts: tuple[Verdict, ...]
    matches: tuple[Match, ...]
    seconds: float
    audit: Audit | None = None
    missed: Missed | None = None
    sizes: tuple[Prefix, ...] = ()

    @property
    def circuit(self) -> Circuit:
        return self.choice.circuit

    @property
    def ranked(self) -> Scores:
        """Scores of what the circuit was chosen from: edges where the method scores them, else components."""
        return self.scores.edges or self.scores


@dataclass(frozen=True)
class Discovery:
    """Everything that a run writes. findings: in the order of the plan; the first one's circuit is the run's."""

    model: str
    graph: Graph
    plan: Plan
    prompts: tuple[PromptPair, ...]
    halves: Halves
    baseline: Baseline
    findings: tuple[Finding, ...]
    overlaps: tuple[PairOverlap, ...]
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Ground:
    """What no method changes: halves and batches of the prompts, the model's own figures, and the benches.

    donors: what replaces outputs, by ablation. Methods that score the same components share a bench, and with it both
    ends of its scale.
    """

    model: Model
    halves: Halves
    found_on: tuple[Batch, ...]
    judged_on: tuple[Batch, ...]
    metric: Metric
    baseline: Baseline
    donors: Mapping[Ablation, DonorMaker]
    benches: dict[object, Bench] = field(default_factory=dict)

    def bench(
        self, half: str, ablation: Ablation, played: tuple[str, ...], granularity: Granularity
    ) -> Bench:
        """half: discovery or judged. played: what a circuit may leave out."""
        asked = (half, ablation, played, granularity)
        if asked not in self.benches:
            where = self.judged_on if half == "judged" else self.found_on
            bench = Bench(self.model, where, self.metric, ablation, played, self.donors[ablation])
            self.benches[asked] = edge_bench(bench, played) if granularity == "edge" else bench
        return self.benches[asked]


Stand = Callable[[Model, Sequence[PromptPair], Plan], Ground]


def lay_ground(model: Model, prompts: Sequence[PromptPair], plan: Plan) -> Ground:
    """Of the plan, its methods, selection and references do not matter. Raises as `discover` does."""
    halves = split(prompts, plan.seed, plan.judge_on)
    found_on, judged_on = (
        batches_of(model, prompts, half, plan) for half in (halves.discovery, halves.judged)
    )
    metric = metric_named(plan.metric)
    before = baseline(model, judged_on, metric, seed=plan.seed, names=prompt_names(halves.judged))
    donors = {ablation: donor_maker(model, ablation, found_on) for ablation in ABLATIONS}
    return Ground(model, halves, found_on, judged_on, metric, before, donors)


def discover(
    model: Model,
    prompts: Sequence[PromptPair],
    plan: Plan,
    progress: Progress = silent,
    on_baseline: Callable[[Baseline], None] = lambda baseline: None,
    stand: Stand | None = None,
) -> Discovery:
    """Runs every method of the plan on the prompts and judges what it finds.

    on_baseline: told first of all how the model itself does on the judged prompts.
    stand: gives the ground, where another discovery may have laid it; laid anew where None.
    Raises PromptError for prompts that do not fit the model, ModelError where a method cannot work on it, and
    CircuitError where the metric does not tell clean from corrupt.
    """
    ground = (stand or lay_ground)(model, prompts, plan)
    on_baseline(ground.baseline)
    problem = Problem(ground.found_on, ground.metric, plan.seed, plan.references, progress)
    findings = []
    for method, options in plan.methods:
        start = time.perf_counter()
        scores = method.score(model, problem, options)
        choice = _choose(
            ground.bench("discovery", plan.ablations[0], *_played(scores)), scores, plan, progress
        )
        judged = [ground.bench("judged", ablation, *_played(scores)) for ablation in plan.ablations]
        verdicts = tuple(
            judge(at, choice.circuit, seed=plan.seed, n_random=plan.n_random, progress=progress)
            for at in judged
        )
        ranked = scores.edges or scores
        sizes = by_size(judged[0], ranked, choice.own_sizes, seed=plan.seed, progress=progress)
        matches = tuple(_matches(method, scores, choice.circuit, plan))
        audit = verify(model, problem, scores, plan.verify) if plan.verify and scores.edges else None
        missed = None
        if plan.missed and scores.edges is None:
            missed = bound_missed(model, problem, scores, choice.circuit.nodes, plan.missed)
        seconds = time.perf_counter() - start
        findings.append(Finding(scores, choice, verdicts, matches, seconds, audit, missed, sizes))
    size = len(findings[0].circuit) if findings else 0
    overlaps = tuple(_overlap(a, b, size) for a, b in combinations(findings, 2))
    return Discovery(
        model.name,
        model.graph,
        plan,
        tuple(prompts),
        ground.halves,
        ground.baseline,
        tuple(findings),
        overlaps,
        rounding(model, ground.found_on[0], ground.metric),
    )


def _played(scores: Scores) -> tuple[tuple[str, ...], Granularity]:
    """What a circuit may leave out: what was scored."""
    return (scores.components, "node") if scores.edges is None else (scores.edges.components, "edge")


def _overlap(one: Finding, other: Finding, size: int) -> PairOverlap:
    """What the largest scores of two methods share, as many as the run's circuit has, among what both score.

    Scores are compared, not the selected circuits: pruning could lead two methods to one circuit.
    """
    common = set(one.scores.components) & set(other.scores.components)
    n = min(size, len(common))
    tops = [[c for c in finding.scores.ranking() if c in common][:n] for finding in (one, other)]
    named = [
        (finding.scores.method, finding.scores, Circuit(tuple(top), finding.scores.method, f"top {n}"))
        for finding, top in zip((one, other), tops, strict=True)
    ]
    return pairwise_overlaps(named)[0]


def _matches(method: Method, scores: Scores, circuit: Circuit, plan: Plan) -> Iterator[Match]:
    known = {**plan.references, **(plan.direct_references if method.direct else {})}
    for reference in known.items():
        yield match(scores, circuit, *reference)
    if scores.edges is not None:
        for reference in plan.edge_references.items():
            yield match_edges(scores.edges, circuit, *reference)


def match(scores: Scores, circuit: Circuit, reference: str, known: frozenset[str]) -> Match:
    """How well `scores` rank, and `circuit` holds, the heads that are `known`."""
    heads = [c for c in scores.components if c[0] == "a"]
    sizes = np.abs([scores.of(head) for head in heads])
    return _match(heads, sizes, circuit.heads, reference, known, "heads")


def match_edges(edges: Scores, circuit: Circuit, reference: str, known: frozenset[str]) -> Match:
    """The same of edges."""
    return _match(edges.components, np.abs(edges.values), circuit.kept, reference, known, "edges")


def _match(
    names: Sequence[str],
    sizes: Float[np.ndarray, "name"],
    kept: Sequence[str],
    reference: str,
    known: frozenset[str],
    of: Literal["heads", "edges"],
) -> Match:
    inside = known & set(names)
    return Match(
        reference=reference,
        auroc=auroc(sizes, np.array([name in inside for name in names])),
        precision=precision(kept, inside),
        recall=true_positive_rate(kept, inside),
        f1=f1(kept, inside),
        balanced_harmonic_score=balanced_harmonic_score(kept, inside, names),
        of=of,
    )


def batches_of(
    model: Model, prompts: Sequence[PromptPair], half: Sequence[int], plan: Plan
) -> tuple[Batch, ...]:
    """One half of the prompts, by the names that errors call them."""
    some = [prompts[i] for i in half]
    return make_batches(model, some, batch_size=plan.batch_size, names=prompt_names(half))


def prompt_names(half: Sequence[int]) -> list[str]:
    """What errors call the prompts."""
    return [f"prompt {i + 1}" for i in half]


def _choose(bench: Bench, scores: Scores, plan: Plan, progress: Progress) -> Choice:
    at = bench.first(SELECTION_PROMPTS).remembering()
    return select(
        scores,
        plan.selection,
        graph=bench.model.graph,
        seed=plan.seed,
        faithfulness=lambda circuits: at.faithfulness(circuits).tolist(),
        progress=progress,
    )
