"""Planning: what a discovery will run, hold and take, told before it does any of it.

The one idea: go through the stages of circuits.discovery with accounts in place of runs, and price what they count
by a short calibration. Rows, passes and FLOPs are counted; two things are not known beforehand and estimated from
what is usual: how many circuits pruning asks about, and how large the circuit is that random ones are drawn like.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from circuits.batches import Batch, first_prompts, n_prompts
from circuits.calibration import CIRCUIT, Clock, Seconds, calibrate
from circuits.circuit import Circuit, edge_circuit
from circuits.discovery import SELECTION_PROMPTS, Discovery, Finding, Plan, batches_of
from circuits.donors import Donor, keep_masks, resample_donor, zero_donor
from circuits.evaluation.by_size import Prefix, stops
from circuits.evaluation.faithfulness import (
    BAND_PROMPTS,
    Ablation,
    Baseline,
    Bench,
    Estimate,
    RandomBand,
    Verdict,
    edge_bench,
    mean_estimate,
    random_circuits,
)
from circuits.halves import split
from circuits.methods.method import Method, Options, Problem
from circuits.metrics import Metric, metric_named
from circuits.model import Model
from circuits.precision import rounding_work
from circuits.prompts import PromptPair
from circuits.readout import Readout
from circuits.scores import Scores
from circuits.selection import STEP, Choice, check, n_permutations
from circuits.statistics import sign_flip_pvalues
from circuits.work import ExactAccount, Rehearsal, Work, Workload, account, batch_passes, full_pass, total

QUESTIONS = 0.8
"""Circuits that pruning asks about beside the prefixes, as a share of the components: 0.2 to 1.25 on the built-in
models, for it starts from the shortest faithful prefix, and that hangs on the ranking."""

REHEARSED_PERMUTATIONS = 1000
REHEARSED_CIRCUITS = 4


@dataclass(frozen=True)
class PromptsAhead:
    """lengths, first_differences: tokens, and the position from which clean and corrupt differ -> how many pairs."""

    discovery: int
    judged: int
    tokens: int
    lengths: Mapping[int, int]
    first_differences: Mapping[int, int]
    batches: int


@dataclass(frozen=True)
class Stage:
    """A stage of a discovery. work, seconds: None where nobody knows."""

    name: str
    work: Work | None
    seconds: Seconds | None


@dataclass(frozen=True)
class Forecast:
    """What a discovery is going to do.

    workloads: of the methods, in the order of the plan; None where a method says nothing. full_flops: of a prompt's
    forward pass in full, on average.
    """

    prompts: PromptsAhead
    stages: tuple[Stage, ...]
    workloads: tuple[Workload | None, ...]
    full_flops: float

    @property
    def work(self) -> Work:
        return total([stage.work for stage in self.stages if stage.work])

    @property
    def seconds(self) -> Seconds:
        return sum((stage.seconds for stage in self.stages if stage.seconds), Seconds())

    @property
    def unknown(self) -> tuple[str, ...]:
        """Stages that are not in the sums."""
        return tuple(stage.name for stage in self.stages if stage.seconds is None)


def plan_discovery(model: Model, prompts: Sequence[PromptPair], plan: Plan) -> Forecast:
    """The forecast of circuits.discovery.discover for the same arguments; raises as it does."""
    halves = split(prompts, plan.seed, plan.judge_on)
    found_on, judged_on = (
        batches_of(model, prompts, half, plan) for half in (halves.discovery, halves.judged)
    )
    problem = Problem(found_on, metric_named(plan.metric), plan.seed, plan.references)
    workloads = tuple(_workload(model, problem, plan, *method) for method in plan.methods)
    jobs = list(_jobs(model, problem, judged_on, plan, workloads))
    clock = calibrate(model, problem)
    ahead = _prompts_ahead(found_on, judged_on)
    in_full = sum(n * full_pass(model, length).flops for length, n in ahead.lengths.items())
    stages = tuple(job.priced(clock) for job in jobs)
    return Forecast(ahead, stages, workloads, in_full / len(prompts))


def stages_of(
    model: Model,
    problem: Problem,
    judged_on: tuple[Batch, ...],
    plan: Plan,
    workloads: Sequence[Workload | None],
) -> Iterator[tuple[str, Work | None]]:
    """The work of every stage, from shapes alone: nothing is timed, so the model need not be there to run."""
    return ((job.name, job.work) for job in _jobs(model, problem, judged_on, plan, workloads))


def _workload(
    model: Model, problem: Problem, plan: Plan, method: Method, options: Options
) -> Workload | None:
    ahead = method.work(model, problem, options)
    if method.granularity == "edge":
        check(
            plan.selection, method.name, len(model.graph.places), ahead.unit if ahead else "prompt", "edges"
        )
    elif ahead:
        check(plan.selection, method.name, len(ahead.components), ahead.unit)
    return ahead


def _prompts_ahead(found_on: Sequence[Batch], judged_on: Sequence[Batch]) -> PromptsAhead:
    batches = (*found_on, *judged_on)
    pairs = [pair for batch in batches for pair in batch.pairs]
    lengths, differences = (
        Counter(each) for each in ([len(p.clean) for p in pairs], [p.first_difference for p in pairs])
    )
    return PromptsAhead(
        discovery=n_prompts(found_on),
        judged=n_prompts(judged_on),
        tokens=sum(length * n for length, n in lengths.items()),
        lengths=dict(sorted(lengths.items())),
        first_differences=dict(sorted(differences.items())),
        batches=len(batches),
    )


@dataclass(frozen=True)
class _Job:
    """A stage without its price. work: None where nobody knows. rehearsed: rehearsals are all that it costs."""

    name: str
    work: Work | None
    rehearsals: tuple[Rehearsal, ...] = ()
    rehearsed: bool = False

    def priced(self, clock: Clock) -> Stage:
        if self.work is None:
            return Stage(self.name, None, None)
        return Stage(
            self.name, self.work, clock.seconds(Work() if self.rehearsed else self.work, self.rehearsals)
        )


def _jobs(
    model: Model,
    problem: Problem,
    judged_on: tuple[Batch, ...],
    plan: Plan,
    workloads: Sequence[Workload | None],
) -> Iterator[_Job]:
    """The stages of a discovery, in its order."""
    values = np.random.default_rng(0).random(n_prompts(judged_on))

    def interval() -> object:
        return mean_estimate(values, 0)

    yield _Job("baseline", batch_passes(model, judged_on, 2), (Rehearsal(interval, 4),))
    yield _Job("mean outputs", batch_passes(model, problem.batches, 2))
    benches: set[tuple[str, ...]] = set()
    for (method, _), ahead in zip(plan.methods, workloads, strict=True):
        played = ahead.components if ahead else model.graph.components
        yield _Job(f"{method.name}: scores", ahead and ahead.work, ahead.rehearsals if ahead else ())
        if method.granularity == "edge":
            yield from _edge_jobs(model, problem, judged_on, plan, method.name)
            continue
        yield _selecting(_Ahead(model, problem.batches, problem.metric, played), plan, method.name)
        at = _Ahead(model, judged_on, problem.metric, played)
        judging = total(
            [at.verdict(plan, ablation, ends=played not in benches) for ablation in plan.ablations]
        )
        yield _Job(f"{method.name}: judging", judging, (Rehearsal(interval, 3 * len(plan.ablations)),))
        chance = total([at.first(BAND_PROMPTS).band(plan, ablation) for ablation in plan.ablations])
        yield _Job(f"{method.name}: random circuits", chance)
        yield _Job(f"{method.name}: sizes", at.sizes(plan), (Rehearsal(interval, 1),))
        benches.add(played)
    if rounding := rounding_work(model, problem.batches[0], problem.metric):
        yield _Job("rounding", rounding)


@dataclass(frozen=True)
class _Ahead:
    """A bench (see circuits.evaluation.faithfulness.Bench) that counts."""

    model: Model
    batches: tuple[Batch, ...]
    metric: Metric
    played: tuple[str, ...]

    def first(self, n: int) -> _Ahead:
        return replace(self, batches=first_prompts(self.batches, n))

    def outcome(
        self,
        circuits: Sequence[Sequence[str]],
        ablation: Ablation,
        *,
        begun: bool = True,
        accuracy: bool = False,
    ) -> Work:
        """begun: whether base runs are made for it."""
        free = set(self.model.graph.components) - set(self.played)
        keep, work = keep_masks(self.model.graph, ({*circuit, *free} for circuit in circuits)), Work()
        for batch in self.batches:
            donor = resample_donor(batch.corrupt) if ablation == "resample" else zero_donor()
            runs = account(self.model, batch.clean, donor)
            work += runs.measure(keep, Readout(batch, self.metric, accuracy))
            work += runs.begun if begun else Work()
        return work

    def ends(self, ablation: Ablation) -> Work:
        return self.outcome([(), self.played], ablation)

    def verdict(self, plan: Plan, ablation: Ablation, *, ends: bool) -> Work:
        """ends: whether both ends of the scale are still to be found."""
        circuit = _usual_circuit(self.played, plan)
        judged = self.outcome([circuit.nodes], ablation, accuracy=True)
        return judged + self.ends(ablation) if ends else judged

    def band(self, plan: Plan, ablation: Ablation) -> Work:
        circuit = _usual_circuit(self.played, plan)
        chance = random_circuits(self.model.graph, self.played, circuit, plan.n_random, plan.seed)
        return self.ends(ablation) + self.outcome([circuit.nodes, *chance], ablation)

    def sizes(self, plan: Plan) -> Work:
        """Of any ranking: how many there are does not depend on it."""
        ranking = np.random.default_rng(plan.seed).permutation(self.played).tolist()
        return self.outcome([ranking[:n] for n in stops(len(self.played))[:-1]], plan.ablations[0])


EDGES, BLOCKS = 0.05, 3.0
"""What a circuit keeps of the edges, as a rule; and how often pruning asks for each edge that is left. On plain-4l it
asks for 0.03 to 0.75 of all edges: for few where the ranking is good and the circuit small."""


def _edge_jobs(
    model: Model, problem: Problem, judged_on: tuple[Batch, ...], plan: Plan, method: str
) -> Iterator[_Job]:
    """Selection, judging and chance of a method that scores edges."""
    few, ends = _EdgesAhead(model, problem.batches, problem.metric).first(SELECTION_PROMPTS), 2
    n_edges = len(model.graph.places)
    if plan.selection.rule in ("smallest", "pruned"):
        most = plan.selection.most if plan.selection.rule == "smallest" else 1.0
        asked = ends + math.ceil(math.log(max(2.0, most * n_edges), STEP))
        if plan.selection.rule == "pruned":
            asked += round(BLOCKS * EDGES * n_edges)
        yield few.job(f"{method}: selection", {plan.ablations[0]: asked})
    else:
        yield _Job(f"{method}: selection", Work())
    at = _EdgesAhead(model, judged_on, problem.metric)
    yield at.job(f"{method}: judging", dict.fromkeys(plan.ablations, 1 + ends))
    chance = dict.fromkeys(plan.ablations, 1 + ends + plan.n_random)
    yield at.first(BAND_PROMPTS).job(f"{method}: random circuits", chance)
    yield at.job(f"{method}: sizes", {plan.ablations[0]: len(stops(n_edges)) - 1})


@dataclass(frozen=True)
class _EdgesAhead:
    """A bench for circuits of edges that counts rows, and tells their time by running a few."""

    model: Model
    batches: tuple[Batch, ...]
    metric: Metric

    def first(self, n: int) -> _EdgesAhead:
        return replace(self, batches=first_prompts(self.batches, n))

    def job(self, name: str, rows: Mapping[Ablation, int]) -> _Job:
        """rows: ablation -> how many circuits are asked about."""
        work = total([self._row(batch, kind) * n for kind, n in rows.items() for batch in self.batches])
        return _Job(name, work, tuple(self._rehearsal(kind, n) for kind, n in rows.items()), rehearsed=True)

    def _row(self, batch: Batch, ablation: Ablation) -> Work:
        """One circuit: a pass over the columns that change, and what its cuts add up to at every reader."""
        runs = account(self.model, batch.clean, self._donor(batch, ablation))
        assert isinstance(runs, ExactAccount), "edges need the engine"
        shape, graph = runs.footprint, self.model.graph
        sums = 2 * len(graph.places) * self.model.d_model * len(batch) * shape.n_columns
        return Work(
            rows=1,
            passes=len(batch),
            flops=shape.trace_flops(shape.n_columns) + sums,
            bytes=runs.begun.bytes
            + 4 * len(graph.sources) * self.model.d_model * len(batch) * shape.n_columns,
        )

    def _donor(self, batch: Batch, ablation: Ablation) -> Donor:
        return resample_donor(batch.corrupt) if ablation == "resample" else zero_donor()

    def _rehearsal(self, ablation: Ablation, rows: int) -> Rehearsal:
        """Some random circuits on the largest batch."""
        batch = max(self.batches, key=lambda b: b.clean.numel())
        at = edge_bench(
            Bench(self.model, (batch,), self.metric, ablation, (), lambda b: self._donor(b, ablation))
        ).remembering()
        draw = np.random.default_rng(0)
        edges = np.array(at.played)
        circuits = [edges[draw.random(len(edges)) < EDGES].tolist() for _ in range(REHEARSED_CIRCUITS)]
        tokens = sum(b.clean.numel() for b in self.batches) / batch.clean.numel()
        return Rehearsal(partial(at.outcome, circuits), rows * tokens / REHEARSED_CIRCUITS)


def _usual_circuit(played: tuple[str, ...], plan: Plan) -> Circuit:
    """As large as circuits are as a rule, of any heads and MLPs; an MLP among them where there are any."""
    share = plan.selection.n / len(played) if plan.selection.rule == "top" else CIRCUIT
    draw, kept = np.random.default_rng(plan.seed), []
    for kind in "am":
        of_kind = [c for c in played if c[0] == kind]
        kept += draw.permutation(of_kind)[: math.ceil(share * len(of_kind))].tolist()
    return Circuit(tuple(kept), "", "")


def _selecting(at: _Ahead, plan: Plan, method: str) -> _Job:
    name, rule, few = f"{method}: selection", plan.selection.rule, at.first(SELECTION_PROMPTS)
    if rule == "significance":
        samples = np.random.default_rng(0).normal(size=(n_prompts(at.batches), len(at.played)))
        times = n_permutations(len(at.played), plan.selection.alpha) / REHEARSED_PERMUTATIONS
        flips = Rehearsal(lambda: sign_flip_pvalues(samples, permutations=REHEARSED_PERMUTATIONS), times)
        return _Job(name, Work(), (flips,))
    if rule not in ("smallest", "pruned"):
        return _Job(name, Work())
    most = max(1, int(plan.selection.most * len(at.played))) if rule == "smallest" else len(at.played)
    asked = few.outcome([at.played[:n] for n in range(1, most + 1)], plan.ablations[0], begun=False)
    if rule == "pruned":
        question = few.outcome([_usual_circuit(at.played, plan).nodes], plan.ablations[0], begun=False)
        asked += question * round(QUESTIONS * len(at.played))
    return _Job(name, few.ends(plan.ablations[0]) + asked)


def made_up(model: Model, prompts: Sequence[PromptPair], plan: Plan, forecast: Forecast) -> Discovery:
    """A discovery of the shape that is forecast, its numbers drawn at random: to rehearse what is made of one."""
    draw, sure = np.random.default_rng(plan.seed), Estimate(0.5, 0.4, 0.6)
    judged, findings = forecast.prompts.judged, []
    for (method, _), ahead in zip(plan.methods, forecast.workloads, strict=True):
        ahead = ahead or Workload(model.graph.components, Work())
        n = len(ahead.components)
        by_position = {label: draw.normal(size=n) for label in ahead.positions}
        samples = draw.normal(size=(forecast.prompts.discovery if ahead.unit != "trial" else 10, n))
        edges = _made_up_edges(model, method, len(samples), draw) if method.granularity == "edge" else None
        scores = Scores(method.name, ahead.components, samples, ahead.unit, by_position, edges=edges)
        band = RandomBand(plan.n_random, min(BAND_PROMPTS, judged), 0.0, 0.1, 0.2, 0.04)
        verdicts = tuple(Verdict(a, judged, sure, 0.5, 1.0, 0.0, sure, sure, band) for a in plan.ablations)
        kept = edges.ranking()[: int(EDGES * len(edges.components))] if edges else ()
        usual = edge_circuit(model.graph, kept, "", "") if edges else _usual_circuit(ahead.components, plan)
        sizes = tuple(Prefix(size, size, sure) for size in stops(len((edges or scores).components)))
        findings.append(Finding(scores, Choice(usual), verdicts, (), 0.0, sizes=sizes))
    before = Baseline(judged, sure, sure, sure, sure)
    halves = split(prompts, plan.seed, plan.judge_on)
    return Discovery(model.name, model.graph, plan, tuple(prompts), halves, before, tuple(findings), ())


def _made_up_edges(model: Model, method: Method, n: int, draw: np.random.Generator) -> Scores:
    names = tuple(model.graph.places)
    return Scores(method.name, names, draw.normal(size=(n, len(names))))
