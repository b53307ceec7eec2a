"""LoFiT: heads by how much a training that may only scale their outputs makes use of them.

The one idea: every number that a head puts out is multiplied by a learned one, 1 + A_h, all heads at once, and a
penalty keeps A small; where the answers need a head, its A grows. The score is the length of A_h. It says where the
model can be moved towards these answers, which need not be where it computes them.
Source: Yin et al. 2024 (LoFiT, arXiv 2406.01563), section 3.1; step sizes and penalty of fc2869/lo-fit for
TruthfulQA. Its second step, offsets of the chosen heads, is `circuit intervene --offsets`.

**Chance level.** Ours: the same training with the answers of other prompts. What it scales too are heads by which
these answers can be moved at all, right or wrong.
Cost: for each trial and its control epochs passes there and back a prompt: 2 x 5 x 3 passes for one trial.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field

from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.rehearsal import rehearsed
from circuits.removal import require, weights_of
from circuits.scores import Scores
from circuits.statistics import rank_correlation
from circuits.tuning.scales import learned_scales
from circuits.tuning.training import Schedule, examples, shuffled
from circuits.work import Workload


class LofitOptions(Options):
    learning_rate: float = Field(5e-3, gt=0, description="step size of Adam")
    l1: float = Field(5e-4, ge=0, description="weight of the sum of sizes of all scales")
    epochs: int = Field(5, ge=1, description="times that every prompt is seen")
    batch_size: int = Field(8, ge=1, description="prompts in a step of training")
    trials: int = Field(3, ge=1, description="trainings with another start and order")

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.learning_rate, self.epochs, self.batch_size)


def score(model: Model, problem: Problem, options: LofitOptions) -> Scores:
    """Norms of the learned scales, one sample a trial; they have no sign. MLPs are not scored.

    artifacts: the first trial's scales. Raises ModelError where the engine does not cover the model, CircuitError
    where answers are whole strings.
    """
    require(model, problem.batches, METHOD.name)
    weights, taught = weights_of(model, problem.batches), examples(problem.batches)
    learn = partial(learned_scales, weights, schedule=options.schedule, l1=options.l1)
    found, chance = [], []
    for trial in range(options.trials):
        seed = problem.seed + trial
        found.append(learn(taught, seed=seed, progress=problem.progress))
        chance.append(learn(shuffled(taught, seed), seed=seed, progress=problem.progress))
    norms, control = (
        torch.stack(side).norm(dim=-1).flatten(1).cpu().double().numpy() for side in (found, chance)
    )
    details = {
        "options": options.model_dump(),
        "unit": "length of the learned scales",
        "signed": False,
        "chance": control.mean(0).tolist(),
        "verdict": _verdict(model.graph.heads, norms, control),
    }
    artifacts = {"lofit": {"scales": found[0].cpu().numpy()}}
    return Scores(METHOD.name, model.graph.heads, norms, unit="trial", details=details, artifacts=artifacts)


def _verdict(
    heads: tuple[str, ...], norms: Float[np.ndarray, "trial head"], control: Float[np.ndarray, "trial head"]
) -> list[str]:
    means, random = norms.mean(0), control.mean(0)
    top, other = int(means.argmax()), int(random.argmax())
    alike = rank_correlation(means, random)
    return [
        f"{heads[top]} is scaled most, by {means[top]:.3g} (the median head by {np.median(means):.3g}). Trained on "
        f"the answers of other prompts it is {heads[other]}, by {random[other]:.3g}"
        + ("." if alike is None else f"; the two rankings of heads correlate by {alike.rho:.2f} (Spearman).")
    ]


def work(model: Model, problem: Problem, options: LofitOptions) -> Workload:
    """Told by trying, on one small batch."""
    return rehearsed(score, model, problem, options, model.graph.heads, prompts=options.batch_size)


METHOD = Method(
    name="lofit",
    summary="how much a training that may only scale head outputs makes use of each head",
    paper="Yin et al. 2024, LoFiT, arXiv 2406.01563",
    options=LofitOptions,
    score=score,
    work=work,
)
