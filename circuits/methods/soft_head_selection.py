"""Soft head selection: the share of each head that must be injected at the last token for the answers to come.

The one idea: see circuits.tuning.shares. A score is 2 x share - 1: 1 where what a head puts out on the other run is
needed, -1 where it must be kept out, 0 where it makes no difference (the share never leaves a half).
Source: SITE (arXiv 2507.20906; SNU-DRL/Soft_Injection): step size 0.2, 400 steps of one prompt, no penalty. There a
task is injected: t is the mean over 50 prompts of ten examples each, into prompts without any (option `shots`).

**Without examples** (our definition). The corrupt prompt runs, and what its clean twin put out is injected, its own
or the mean over prompts (option `vectors`); what is learned is what carries the answer to the last token.

**Check by a threshold, and chance** (ours). Adam takes steps as large for heads that hardly matter, so their shares
saturate as well, unless its epsilon is raised (option `floor`), as it is here. Heads of a share of 0.9 or more are
injected whole and no others, beside random sets of as many; and shares are learned once more for answers of other
prompts.
Cost: one forward pass a prompt and run, 50 of long prompts with `shots`, and one column there and back a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from circuits.batches import Batch
from circuits.engine.weights import Weights
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.interventions.effect import DRAWS, random_heads
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.removal import require, weights_of
from circuits.scores import Scores
from circuits.tuning.shares import Injected, Shares, Vectors, last_outputs, learned_shares
from circuits.tuning.training import Schedule, examples, shuffled
from circuits.work import Rehearsal, Work, Workload

FEW_SHOT_PROMPTS = 50
"""Of which the injected vectors are the mean, as in the paper."""

CHOSEN = 0.9
"""The share from which a head counts as chosen in the check."""


class SoftHeadSelectionOptions(Options):
    shots: int = Field(0, ge=0, description="examples in front of each prompt that vectors are taken from")
    vectors: Literal["twin", "mean"] = Field(
        "twin", description="without shots: inject what the own clean twin puts out, or the mean over all"
    )
    learning_rate: float = Field(0.2, gt=0, description="step size of Adam")
    steps: int = Field(400, ge=1, description="steps of training")
    floor: float = Field(
        1e-2, gt=0, description="gradients well below this move no share (Adam's epsilon; the paper: 1e-8)"
    )
    batch_size: int = Field(1, ge=1, description="prompts in a step of training")
    trials: int = Field(1, ge=1, description="trainings with another order of prompts")


def score(model: Model, problem: Problem, options: SoftHeadSelectionOptions) -> Scores:
    """2 x share - 1 of every head, one sample a trial: positive where injecting it brings the answer.

    Raises ModelError where the engine does not cover the model, CircuitError where answers are whole strings or
    prompts of so many shots are too long.
    """
    require(model, problem.batches, METHOD.name)
    weights, taught = weights_of(model, problem.batches), examples(problem.batches)
    schedule = Schedule(
        options.learning_rate, options.steps, options.batch_size, options.steps, options.floor
    )
    injected = _injected(model, weights, problem, options)
    learn = partial(learned_shares, injected, schedule=schedule)
    found, chance = [], []
    for trial in range(options.trials):
        seed = problem.seed + trial
        found.append(learn(taught, seed=seed, progress=problem.progress))
        chance.append(learn(shuffled(taught, seed), seed=seed, progress=problem.progress))
    values, control = (torch.stack(side).flatten(1).cpu().double().numpy() for side in (found, chance))
    details = {
        "options": options.model_dump(),
        "unit": "2 x share - 1",
        "chance": (2 * control - 1).mean(0).tolist(),
        "verdict": [
            _check(model.graph, injected, problem, torch.stack(found).mean(0)),
            _trained(values, control),
        ],
    }
    return Scores(METHOD.name, model.graph.heads, 2 * values - 1, unit="trial", details=details)


def _injected(
    model: Model, weights: Weights, problem: Problem, options: SoftHeadSelectionOptions
) -> list[Injected]:
    """Every batch as it runs, with what is injected into it."""
    if options.shots:
        prompts = few_shot(model, problem.batches, options.shots, problem.seed)
        vectors = torch.cat([last_outputs(weights, torch.tensor([p], device=model.device)) for p in prompts])
        return [Injected.of(weights, b.clean, _mean(vectors, len(b))) for b in problem.batches]
    own = [last_outputs(weights, batch.clean) for batch in problem.batches]
    if options.vectors == "mean":
        own = [_mean(torch.cat(own), len(batch)) for batch in problem.batches]
    return [Injected.of(weights, b.corrupt, z) for b, z in zip(problem.batches, own, strict=True)]


def _mean(vectors: Vectors, n: int) -> Vectors:
    return vectors.mean(0, keepdim=True).expand(n, -1, -1, -1)


def few_shot(model: Model, batches: Sequence[Batch], shots: int, seed: int) -> list[list[int]]:
    """Tokens of up to 50 prompts with `shots` others and their answers in front, side by side without a separator.

    Raises CircuitError where there are too few prompts, or where one becomes too long.
    """
    pairs = [pair for batch in batches for pair in batch.pairs]
    if shots >= len(pairs):
        raise CircuitError(
            f"soft-head-selection.shots {shots} needs {shots + 1} prompts to discover on, and there are "
            f"{len(pairs)}. Choose fewer shots, or give more pairs."
        )
    start = 1 if model.tokenize("a")[1][0] == (0, 0) else 0
    draw, found = np.random.default_rng([seed, 0x51]), []
    for place in draw.permutation(len(pairs))[:FEW_SHOT_PROMPTS].tolist():
        others = [pairs[other] for other in draw.permutation(len(pairs)).tolist() if other != place][:shots]
        shown = [token for pair in others for token in (*pair.clean[start:], pair.answers[0])]
        found.append([*pairs[place].clean[:start], *shown, *pairs[place].clean[start:]])
    longest, most = max(map(len, found)), weights_of(model, batches).longest
    if longest > most:
        raise CircuitError(
            f"soft-head-selection.shots {shots} makes prompts of {longest} tokens, and {model.name} takes {most}. "
            "Choose fewer shots."
        )
    return found


def _measured(injected: Sequence[Injected], problem: Problem, shares: Shares) -> float:
    """Mean metric with these shares."""
    with torch.no_grad():
        parts = [
            problem.metric(part.logits(shares), batch.answers, batch.distractors)
            for part, batch in zip(injected, problem.batches, strict=True)
        ]
    return float(torch.cat(parts).mean())


def _check(graph: Graph, injected: Sequence[Injected], problem: Problem, shares: Shares) -> str:
    """What chosen heads alone bring, injected whole, beside random ones."""
    chosen = [
        head for head, share in zip(graph.heads, shares.flatten().tolist(), strict=True) if share >= CHOSEN
    ]

    def whole(heads: Sequence[str]) -> float:
        mask = torch.tensor([float(head in heads) for head in graph.heads])
        return _measured(injected, problem, mask.view_as(shares).to(shares))

    none, every, soft = whole(()), whole(graph.heads), _measured(injected, problem, shares)
    start = f"Metric with nothing injected {none:.2f}, all heads {every:.2f}, learned shares {soft:.2f}"
    if not chosen:
        return f"{start}; no head has a share of {CHOSEN:g} or more."
    others = random_heads(graph, chosen, (), DRAWS, problem.seed)
    random = [whole(tuple(other.values())) for other in others]
    spread = (
        f"give {min(random):.2f} to {max(random):.2f}"
        if random
        else "cannot be drawn: too few heads are left"
    )
    return (
        f"{start}; the {len(chosen)} heads of a share of {CHOSEN:g} or more, whole and alone, {whole(chosen):.2f}; "
        f"random sets of as many {spread}."
    )


def _trained(values: np.ndarray, control: np.ndarray) -> str:
    near = (values.mean(0) >= CHOSEN).sum(), (control.mean(0) >= CHOSEN).sum()
    return (
        f"Trained on the answers of other prompts {near[1]} heads reach a share of {CHOSEN:g}, on their own "
        f"{near[0]}."
    )


REHEARSED = 10
"""Steps of training that tell the price of all."""


def work(model: Model, problem: Problem, options: SoftHeadSelectionOptions) -> Workload:
    """Told by trying a few steps."""
    few = options.model_copy(update={"steps": min(REHEARSED, options.steps), "trials": 1})
    tried = Rehearsal(partial(score, model, problem, few), options.trials * options.steps / few.steps)
    return Workload(model.graph.heads, Work(), (tried,), unit="trial")


METHOD = Method(
    name="soft-head-selection",
    summary="learned share of each head's output that must be injected at the last token for the answer",
    paper="SITE, arXiv 2507.20906",
    options=SoftHeadSelectionOptions,
    score=score,
    work=work,
)
