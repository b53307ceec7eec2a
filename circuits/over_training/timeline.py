"""A timeline: the behaviour, the circuit and the heads of a model at every checkpoint of its training.

The one idea: at each checkpoint the same is done as for one model (circuits.discovery, circuits.roles), on the same
prompts; and the circuit of the last checkpoint is taken back in time: how much of the behaviour it carries there, and
how much of it each checkpoint's own circuit shares, beside chance.

Where a model does not tell clean from corrupt prompts (the 95% interval of the difference holds 0, or lies below),
there is no behaviour to explain: it has no circuit there, and faithfulness and overlap no meaning. That is ours.
Sources: Olsson et al. 2022 (heads over training), Tigges et al. 2024 (arXiv 2407.10827, circuits over training).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.batches import Batch, make_batches
from circuits.comparison.overlap import Overlap, overlap
from circuits.discovery import Finding, Ground, Plan, discover, lay_ground, prompt_names
from circuits.errors import CircuitError, ModelError
from circuits.evaluation.faithfulness import (
    Baseline,
    Estimate,
    Granularity,
    Verdict,
    judge,
    mean_estimate,
)
from circuits.model import Model
from circuits.over_training.checkpoints import Checkpoint, Training
from circuits.over_training.induction_progress import InductionProgress, induction_progress
from circuits.progress import Progress, silent
from circuits.prompts import PromptPair
from circuits.readout import Readout
from circuits.roles.role import Evidence, Role, RoleScores, score_all

ROLE_PROMPTS = 64
"""Prompts that roles are measured on, as many as `circuit heads` takes."""

Load = Callable[[Checkpoint], Model]


@dataclass(frozen=True)
class Moment:
    """One checkpoint. told_apart: metric of clean less that of corrupt prompts, over judged ones.

    circuit: its own; final: the last checkpoint's circuit judged here; shared: what the two share. All three None
    where there is no behaviour to explain. induction: None where the model has no room for it.
    """

    step: int
    baseline: Baseline
    told_apart: Estimate
    circuit: Finding | None
    final: Verdict | None
    shared: Overlap | None
    roles: tuple[RoleScores, ...]
    induction: InductionProgress | None


@dataclass(frozen=True)
class Timeline:
    """final: the last checkpoint's circuit. chance: how often an answer is preferred, and said first, by chance.

    left_out: what could not be measured, and why.
    """

    training: Training
    moments: tuple[Moment, ...]
    final: Finding
    chance: Mapping[str, float]
    left_out: Mapping[str, str]

    @property
    def steps(self) -> tuple[int, ...]:
        return self.training.steps


@dataclass(frozen=True)
class Question:
    """What is asked at every checkpoint: prompts, a plan of one method and one ablation, and roles of heads."""

    prompts: tuple[PromptPair, ...]
    plan: Plan
    roles: tuple[Role, ...] = ()
    task: str = ""


def timeline(training: Training, load: Load, asked: Question, progress: Progress = silent) -> Timeline:
    """At each checkpoint a discovery, a judgement of the final circuit, the roles, and 256 sequences.

    Raises CircuitError where the last checkpoint does not tell clean from corrupt, or the models differ in shape.
    """
    last = training.checkpoints[-1]
    model = load(last)
    ground = lay_ground(model, asked.prompts, asked.plan)
    if not (apart := _told_apart(ground)).low > 0:
        raise CircuitError(
            f"{last.directory} does not tell clean from corrupt prompts: the metric differs by "
            f"{apart.value:.3g}, so there is no circuit to look back from. Choose another task."
        )
    final, chance = _discovered(ground, asked, progress), _chances(ground)
    moments: list[Moment] = []
    left_out: dict[str, str] = {}
    for n, checkpoint in enumerate(training.checkpoints):
        here = ground if checkpoint is last else lay_ground(load(checkpoint), asked.prompts, asked.plan)
        _require_shape(here.model, model, checkpoint, last)
        found = final if checkpoint is last else None
        moment, missing = _moment(checkpoint.step, here, asked, final, found)
        moments.append(moment)
        left_out |= missing
        progress("checkpoints", n + 1, len(training.checkpoints))
    return Timeline(training, tuple(moments), final, chance, left_out)


def _require_shape(model: Model, other: Model, checkpoint: Checkpoint, last: Checkpoint) -> None:
    if model.graph != other.graph:
        raise CircuitError(
            f"{checkpoint.directory} and {last.directory} differ in shape, so they are no checkpoints of one "
            "training. Keep those of one training in the folder."
        )


def _told_apart(ground: Ground) -> Estimate:
    """Metric of clean less that of corrupt prompts, over judged ones."""
    clean, corrupt = (
        np.concatenate([_metric(ground, batch, side) for batch in ground.judged_on])
        for side in ("clean", "corrupt")
    )
    return mean_estimate(clean - corrupt, 0)


def _metric(ground: Ground, batch: Batch, side: str) -> Float[np.ndarray, "prompt"]:
    logits = ground.model.run(getattr(batch, side)).logits[None]
    return Readout(batch, ground.metric).of_all(logits).metric[0].double().numpy()


def _discovered(ground: Ground, asked: Question, progress: Progress = silent) -> Finding:
    found = discover(ground.model, asked.prompts, asked.plan, progress, stand=lambda *_: ground)
    return found.findings[0]


def _moment(
    step: int, ground: Ground, asked: Question, final: Finding, found: Finding | None
) -> tuple[Moment, dict[str, str]]:
    """found: the circuit here, where it is known already. And what could not be measured, with the reason."""
    apart = _told_apart(ground)
    judged = shared = None
    if apart.low > 0:
        found = found or _discovered(ground, asked)
        judged = _judged(ground, final, asked.plan)
        shared = overlap(found.circuit.kept, final.circuit.kept, final.ranked.components)
    names = prompt_names(range(ROLE_PROMPTS))
    batches = make_batches(ground.model, asked.prompts[:ROLE_PROMPTS], names=names[: len(asked.prompts)])
    evidence = Evidence(ground.model, batches, asked.task, asked.plan.seed)
    roles, missing = _roles(evidence, asked.roles)
    induction, why = _induction(evidence)
    if why:
        missing["progress of induction"] = why
    return Moment(step, ground.baseline, apart, found, judged, shared, roles, induction), missing


def _judged(ground: Ground, final: Finding, plan: Plan) -> Verdict:
    granularity: Granularity = "node" if final.scores.edges is None else "edge"
    at = ground.bench("judged", plan.ablations[0], final.ranked.components, granularity)
    return judge(at, final.circuit, seed=plan.seed, n_random=plan.n_random)


def _roles(evidence: Evidence, roles: Sequence[Role]) -> tuple[tuple[RoleScores, ...], dict[str, str]]:
    try:
        return score_all(roles, evidence)
    except ModelError as problem:
        return (), {role.name: str(problem) for role in roles}


def _induction(evidence: Evidence) -> tuple[InductionProgress | None, str]:
    try:
        return induction_progress(evidence), ""
    except CircuitError as problem:
        return None, str(problem)


def _chances(ground: Ground) -> Mapping[str, float]:
    """What chance prefers, and says first: shares of answers among the asked tokens, and among all."""
    asked = [(len(b.answers[i]), len(b.distractors[i])) for b in ground.judged_on for i in range(len(b))]
    answers, distractors = np.array(asked, dtype=float).T
    vocabulary = ground.model.run(ground.judged_on[0].clean[:1]).logits.shape[-1]
    return {
        "preferred": float((answers / (answers + distractors)).mean()),
        "correct": float((answers / vocabulary).mean()),
    }
