"""An intervention on the heads of a run, the table of contents: do it -> what changed -> by chance -> downstream.

The one idea: what is chosen (the factor of a sweep, the heads of a repair) is chosen on prompts that nothing is
judged on: the run's discovery half, or the first half of prompts that no run knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from circuits.batches import Batch, first_prompts, make_batches
from circuits.donors import mean_donor
from circuits.errors import CircuitError, PromptError
from circuits.evaluation.run_evaluation import PromptSet
from circuits.interventions.choice import Choice, choose_heads
from circuits.interventions.downstream import Downstream, downstream
from circuits.interventions.effect import Control, Effect, answers, controls, effect
from circuits.interventions.intervention import (
    Attend,
    Calibrate,
    Channels,
    Interpolate,
    Intervention,
    Mean,
    Offset,
    Onto,
    Scale,
    require_heads,
    require_possible,
)
from circuits.interventions.positions import Named, Side, require_named
from circuits.interventions.repair import (
    RIGHT,
    Repair,
    candidates,
    overrides,
    repair,
    shared_targets,
    told_where,
)
from circuits.interventions.sweep import Sweep, Toward, sweep
from circuits.metrics import metric_named
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.removal import require, weights_of
from circuits.tuning.scales import learned_offsets, merged
from circuits.tuning.training import Schedule, examples
from circuits.weight_reading.channels import n_components, parse_channels
from circuits.weight_reading.heads import require_weights

Kind = Literal[
    "knock-out", "mean", "scale", "attend", "repair", "interpolate", "calibrate", "offsets", "channel"
]

OFFSET_PROMPTS = 64
"""Tuning prompts that offsets are learned from: a training for the heads themselves and for each control."""

OFFSET_SCHEDULE = Schedule(rate=1e-2, epochs=5)


@dataclass(frozen=True)
class Treatment:
    """What is done to `heads`. factors: of "scale", several are a sweep; the share of "interpolate". onto: named
    positions for "attend" and "repair"; the wrong ones where "repair" names none. channels: of "channel", by name,
    such as a1.h4:0. choose: of `heads` those that gain by "calibrate", one at a time, on the tuning prompts."""

    kind: Kind
    heads: tuple[str, ...] = ()
    factors: tuple[float, ...] = ()
    onto: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    choose: bool = False


@dataclass(frozen=True)
class Circuitry:
    """What a run says of heads: those that its circuit keeps, and scores by head, where there are any."""

    heads: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What came of it on one set of prompts. heads: those that were changed (a repair chooses them).

    learned: what each head's output is offset by, and by layer what that makes of the bias of attention.
    """

    prompts: PromptSet
    heads: tuple[str, ...]
    effect: Effect
    controls: tuple[Control, ...]
    downstream: Downstream | None
    sweep: Sweep | None = None
    repair: Repair | None = None
    learned: Mapping[str, Float[Tensor, "_"]] = field(default_factory=dict)
    choice: Choice | None = None


@dataclass(frozen=True)
class Asked:
    """seed: of intervals and controls. toward: what a sweep shall make the model say."""

    circuit: Circuitry
    seed: int = 0
    batch_size: int = 64
    toward: Toward = "answer"


def intervene(
    model: Model, treatment: Treatment, prompts: PromptSet, asked: Asked, progress: Progress = silent
) -> Result:
    """One prompt set. Raises CircuitError for heads that the model lacks, positions that prompts do not name."""
    require_heads(model.graph, treatment.heads)
    choosing = len(treatment.factors) > 1 or treatment.kind == "offsets" or treatment.choose
    tuning, judged = _halves(model, prompts, asked.batch_size, choosing=choosing)
    choice = choose_heads(model, tuning, treatment.heads, progress) if treatment.choose else None
    if choice:
        treatment = replace(treatment, heads=choice.chosen)
    tried = None
    if len(treatment.factors) > 1:
        tried = sweep(
            model,
            treatment.heads,
            treatment.factors,
            metric_named(prompts.metric),
            tuning=tuning,
            judged=judged,
            toward=asked.toward,
            seed=asked.seed,
            progress=progress,
        )
    done = _intervention(
        model, treatment, prompts, tuning, judged, tried.chosen if tried else None, asked.seed
    )
    found = _result(model, [done], prompts, judged, asked, progress, tried=tried)
    return replace(found, choice=choice)


def repair_run(
    model: Model, good: Circuitry, shown: PromptSet, onto: tuple[str, ...], bad: PromptSet, asked: Asked,
    progress: Progress = silent,
) -> Result:  # fmt: skip
    """Gives the prompts `bad` what heads of the circuit `good` do on `shown`, which that circuit is for.

    Raises CircuitError where there is no such head, or where prompts do not say what is wrong.
    """
    metric = metric_named(bad.metric)
    tuning, judged = _halves(model, bad, asked.batch_size, choosing=True)
    for some in (tuning, judged):
        require_named(some, onto, bad.about)
    rule: Onto = Named(onto) if onto else Side(model)
    examples = make_batches(model, shown.pairs, batch_size=asked.batch_size, names=shown.names)
    targets = shared_targets(model, examples, (*tuning, *judged), named=bool(onto))
    if not set(targets) - {RIGHT}:
        raise CircuitError(
            f"The {shown.about} and the {bad.about} share nothing to look at: neither positions that are wrong "
            "(called WRONG..., or holding a distractor) nor a name. Say with --onto which are wrong on the latter, "
            "or choose runs of other tasks."
        )
    found = candidates(model, good.heads, asked.circuit.heads, targets, examples, tuning, rule, asked.seed)
    fixed = repair(
        model, found, rule, metric, tuning=tuning, judged=judged, seed=asked.seed, progress=progress
    )
    done = overrides(told_where(found, rule), fixed.chosen)
    return _result(model, done, bad, judged, asked, progress, fixed=fixed, avoid=good.heads)


def _result(
    model: Model,
    done: Sequence[Intervention],
    prompts: PromptSet,
    judged: tuple[Batch, ...],
    asked: Asked,
    progress: Progress,
    *,
    tried: Sweep | None = None,
    fixed: Repair | None = None,
    avoid: tuple[str, ...] = (),
) -> Result:
    metric = metric_named(prompts.metric)
    before, after = (answers(model, judged, metric, some) for some in ((), done))
    outside = {*asked.circuit.heads, *avoid}
    chance = controls(model, judged, metric, done, circuit=outside, seed=asked.seed, progress=progress)
    later = downstream(model, judged, done, asked.circuit.scores, asked.seed, asked.circuit.heads)
    heads = tuple(head for some in done for head in some.heads)
    learned = {
        name: value for some in done if isinstance(some, Offset) for name, value in _learned(model, some)
    }
    return Result(prompts, heads, effect(before, after, asked.seed), chance, later, tried, fixed, learned)


def _learned(model: Model, offset: Offset) -> Iterator[tuple[str, Float[Tensor, "_"]]]:
    weights = model.weights
    assert weights is not None, "see require_possible"
    yield from zip(offset.heads, offset.vectors, strict=True)
    nodes = [model.graph.node(head) for head in offset.heads]
    for layer, bias in merged(weights, nodes, offset.vectors).items():
        yield f"a{layer}.bias", bias


def _halves(
    model: Model, prompts: PromptSet, batch_size: int, *, choosing: bool
) -> tuple[tuple[Batch, ...], tuple[Batch, ...]]:
    """Prompts to choose on, and prompts to judge on; the same where nothing is chosen and there are no others."""
    pairs, names, other = prompts.pairs, prompts.names, prompts.means_from
    if choosing and other is None:
        half = len(pairs) // 2
        if half < 2:
            raise PromptError(
                f"{len(pairs)} {prompts.about} are too few to choose on one half. Give 4 or more."
            )
        pairs, names, other = pairs[half:], names[half:], pairs[:half]
    judged = make_batches(model, pairs, batch_size=batch_size, names=names)
    return (make_batches(model, other, batch_size=batch_size) if other else judged), judged


def _intervention(
    model: Model,
    treatment: Treatment,
    prompts: PromptSet,
    tuning: tuple[Batch, ...],
    judged: tuple[Batch, ...],
    factor: float | None,
    seed: int,
) -> Intervention:
    """Raises CircuitError where it cannot be done on these prompts."""
    done: Intervention
    if treatment.kind == "mean":
        done = Mean(treatment.heads, mean_donor(model, tuning))
    elif treatment.kind == "attend":
        require_named(judged, treatment.onto, prompts.about)
        done = Attend(treatment.heads, Named(treatment.onto))
    elif treatment.kind == "channel":
        components = n_components(require_weights(model, "A channel"))
        named = parse_channels(treatment.channels, model.graph, components)
        done = Channels(named, (*treatment.factors, 0.0)[0])
    elif treatment.kind == "interpolate":
        done = Interpolate(treatment.heads, *treatment.factors)
    elif treatment.kind == "calibrate":
        done = Calibrate(treatment.heads)
    elif treatment.kind == "offsets":
        require(model, (*tuning, *judged), "--offsets")
        done = Offset(treatment.heads, partial(_learn, model, first_prompts(tuning, OFFSET_PROMPTS), seed))
    else:
        done = Scale(treatment.heads, factor if factor is not None else (*treatment.factors, 0.0)[0])
    require_possible(model, judged, [done])
    return done


def _learn(
    model: Model, tuning: tuple[Batch, ...], seed: int, heads: tuple[str, ...]
) -> Float[Tensor, "head d_head"]:
    nodes = [model.graph.node(head) for head in heads]
    weights = weights_of(model, tuning)
    return learned_offsets(weights, nodes, examples(tuning), OFFSET_SCHEDULE, seed)
