"""HeadHunter: heads whose broken attention is what an answer should be pushed away from; and a greedy set of them.

The one idea: a share u of a head's attention goes to each token itself, A' = (1 - u) A + u I (SoftPAG), which makes
the model worse at what the head is for; guidance then steps away from that model, logits' = (1 + w) logits - w logits
of the broken one. A head scores what guidance by it alone adds to the metric; where the metric is linear in the
logits, as their difference is, that is w times what breaking the head takes away. Round by round the heads that add
most beside those chosen join a set, and are broken together.
Source: Ahn et al. 2025 (HeadHunter and SoftPAG, arXiv 2506.10978), for diffusion models; by notes, its listing of the
algorithm was not read. Logits, the task's metric, u = 1, w = 1, three rounds of one head are our definition.

**Chance level.** Ours: random sets of as many heads, in the same layers where those have enough.
Cost: one forward pass a prompt, and for each round and head one of the layers from the set's lowest on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from circuits.batches import Batch, by_prompt
from circuits.engine.head_runs import HeadRuns, look
from circuits.engine.patterns import itself
from circuits.graph import Node
from circuits.greedy import Round, greedy
from circuits.interventions.effect import DRAWS, random_heads
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.rehearsal import rehearsed
from circuits.removal import head_runs, require
from circuits.scores import Scores


class HeadhunterOptions(Options):
    share: float = Field(
        1.0, ge=0, le=1, description="u: how much of a head's attention goes to the token itself"
    )
    guidance: float = Field(1.0, gt=0, description="w: how far logits step away from the broken model's")
    rounds: int = Field(3, ge=1, description="rounds of the greedy search")
    at_once: int = Field(1, ge=1, description="heads that join in a round")


def score(model: Model, problem: Problem, options: HeadhunterOptions) -> Scores:
    """What guidance by each head alone adds to the metric, one sample a prompt; positive where the head supports.

    details: the greedy set, what guidance by it adds after each round, and what random sets of as many give.
    Raises ModelError where the engine does not cover the model, CircuitError where answers are whole strings.
    """
    require(model, problem.batches, METHOD.name)
    graph, runs = model.graph, [head_runs(model, batch) for batch in problem.batches]
    alone: dict[str, Tensor] = {}

    def worth(heads: Sequence[str]) -> float:
        values = gains(runs, problem, [graph.node(head) for head in heads], options)
        alone.update({heads[0]: values} if len(heads) == 1 else {})
        return float(values.double().mean())

    tell = partial(problem.progress, METHOD.name)
    turns = greedy(graph.heads, worth, options.rounds, tell, options.at_once)
    found = [head for turn in turns for head in turn.added]
    random = [worth(tuple(other.values())) for other in random_heads(graph, found, (), DRAWS, problem.seed)]
    details = {
        "options": options.model_dump(),
        "unit": "gain of the metric by guidance",
        "greedy_set": {", ".join(turn.added): turn.worth for turn in turns if turn.added},
        "random_sets": random if found else [],
        "verdict": [_verdict(turns, random)],
    }
    samples = torch.stack([alone[head] for head in graph.heads], 1).double().cpu().numpy()
    return Scores(METHOD.name, graph.heads, samples, details=details)


def gains(
    runs: Sequence[HeadRuns], problem: Problem, heads: Sequence[Node], options: HeadhunterOptions
) -> Float[Tensor, "prompt"]:
    """Metric of guided logits minus that of the model's own, in the order of the prompt set."""

    def of_batch(run: HeadRuns, batch: Batch) -> Float[Tensor, "prompt"]:
        own = run.weights.logits(run.base.after[:, -1])
        broken = run.weights.logits(run.final(heads, look(itself, options.share)))
        guided = own + options.guidance * (own - broken)
        sides = batch.answers, batch.distractors
        return problem.metric(guided, *sides) - problem.metric(own, *sides)

    parts = [of_batch(run, batch) for run, batch in zip(runs, problem.batches, strict=True)]
    return by_prompt(problem.batches, torch.cat(parts))


def _verdict(turns: Sequence[Round], random: Sequence[float]) -> str:
    grown = ", then ".join(f"{', '.join(turn.added)} (+{turn.worth:.3g})" for turn in turns if turn.added)
    if not grown:
        return "No head adds to the metric when logits step away from the model in which it is broken."
    if not random:
        return f"Guidance by {grown}. There are too few other heads to draw sets from."
    reached = sum(value >= turns[-1].worth for value in random)
    return (
        f"Guidance by {grown}. {len(random)} random sets of as many heads, in the same layers where those have "
        f"enough, add {min(random):.3g} to {max(random):.3g}; {reached} of them as much."
    )


METHOD = Method(
    name="headhunter",
    summary="what stepping away from the model in which a head looks at itself alone adds to the metric",
    paper="Ahn et al. 2025, HeadHunter, arXiv 2506.10978",
    options=HeadhunterOptions,
    score=score,
    work=lambda model, problem, options: rehearsed(score, model, problem, options, model.graph.heads),
)
