"""DuoAttention: how much of its full attention each KV group needs, as a gate that is trained.

The one idea: a gate mixes full attention with streaming attention (sinks and recent tokens alone); gates start at 1,
and are trained to be small while the last token's state stays what it is. A group whose gate stays up looks at the
middle of the prompt for something that matters.

    h = final norm(x)      loss = mean (h_full - h_mixed)^2 / mean h_full^2 + sparsity * mean |gate|

Where this is ours: the paper's ten passkeys in books of 1,000 to 32,000 tokens fit no small model, so prompts are the
task's, the labelled token is the last, and sinks and window are a token and a few instead of 128 and 256. The gap is
taken relative to the state's own size, so one sparsity means the same for models whose last norms differ.
**The score is a gate**, from 0 to 1 and without a sign: it does not say whether what a head fetches supports the
answer. Heads of a KV group share theirs; MLPs have none.
Source: Xiao et al. 2024 (arXiv 2410.10819), section 2; mit-han-lab/duo-attention for AdamW and its schedule.
Cost: two forward passes and a backward of some prompts for each step and trial.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from circuits.batches import Batch, n_prompts
from circuits.errors import CircuitError
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.patching import engine_weights, require_engine
from circuits.scores import Scores
from circuits.streaming import Gates, Window, full_outputs, mixed_residual
from circuits.work import Workload, batch_passes

FULL = 0.5
"""Gates above this keep their full attention when deployed."""

DRAWS = 20


class DuoAttentionOptions(Options):
    sink: int = Field(1, ge=0, description="first tokens that streaming attention sees (the paper: 128)")
    recent: int = Field(4, ge=1, description="last tokens that it sees, itself among them (the paper: 256)")
    sparsity: float = Field(
        1.0, ge=0, description="weight of the mean gate (the paper: 0.05, of an absolute gap)"
    )
    learning_rate: float = Field(0.02, gt=0, description="of AdamW; it rises and falls over a fifth each")
    steps: int = Field(200, ge=1, description="of training (the paper: 2000)")
    prompts: int = Field(16, ge=1, description="drawn for each step (the paper: 1)")
    trials: int = Field(3, ge=1, description="trainings on other draws of prompts")

    @property
    def window(self) -> Window:
        return Window(self.sink, self.recent)


def score(model: Model, problem: Problem, options: DuoAttentionOptions) -> Scores:
    """Gates of all heads, a row a trial. details.deployed: the metric with gates rounded, and random ones as many.

    Raises ModelError where the engine does not serve, CircuitError where streaming attention sees whole prompts.
    """
    _require(model, problem, options)
    gates = []
    for trial in range(options.trials):
        gates.append(train(model, problem, options, trial))
        problem.progress(METHOD.name, trial + 1, options.trials)
    found = torch.stack(gates)
    heads = found.repeat_interleave(model.graph.n_heads // model.graph.n_kv_heads, 2).flatten(1)
    details = {
        "options": options.model_dump(),
        "unit": "gate: 1 is full attention, 0 sinks and recent tokens alone",
        "signed": False,
        "gates": found.mean(0).tolist(),
        "deployed": deployed(model, problem, options, found.mean(0)),
        "notes": [
            "a gate has no sign: it says that a head looks far off, not whether that supports the answer"
        ],
    }
    return Scores(METHOD.name, model.graph.heads, heads.double().numpy(), unit="trial", details=details)


def _require(model: Model, problem: Problem, options: DuoAttentionOptions) -> None:
    require_engine(model, problem.batches, METHOD.name)
    longest = max(batch.clean.shape[1] for batch in problem.batches)
    if longest <= options.sink + options.recent:
        raise CircuitError(
            f"The longest prompt has {longest} tokens, and streaming attention sees {options.sink} first and "
            f"{options.recent} last ones, so nothing is left out. "
            "Give a smaller duo-attention.recent, or longer prompts."
        )


def train(model: Model, problem: Problem, options: DuoAttentionOptions, trial: int = 0) -> Gates:
    """Gates after training, on the CPU. Each trial has its own stream of random numbers."""
    weights = engine_weights(model, 1)
    assert weights is not None, "see _require"
    draw = np.random.default_rng([problem.seed, trial])
    with torch.enable_grad():
        gates = torch.ones(
            model.graph.n_layers, model.graph.n_kv_heads, device=model.device, requires_grad=True
        )
        adam = torch.optim.AdamW([gates], lr=options.learning_rate, weight_decay=0)
        for step in range(options.steps):
            for group in adam.param_groups:
                group["lr"] = options.learning_rate * pace(step, options.steps)
            tokens = _some(problem.batches, options.prompts, draw)
            full, end = full_outputs(weights, tokens)
            mixed = mixed_residual(weights, tokens, full, gates, options.window)
            own = weights.final_norm(end)
            gap = (weights.final_norm(mixed) - own) / own.pow(2).mean().sqrt()
            (gradient,) = torch.autograd.grad(
                gap.pow(2).mean() + options.sparsity * gates.abs().mean(), gates
            )
            gates.grad = gradient
            adam.step()
            with torch.no_grad():
                gates.clamp_(0, 1)
    return gates.detach().cpu()


def pace(step: int, steps: int) -> float:
    """Of the learning rate: from a tenth up over the first fifth, down to a tenth over the last."""
    fifth = max(1, steps // 5)
    return min(1.0, 0.1 + 0.9 * step / fifth, 0.1 + 0.9 * (steps - 1 - step) / fifth)


def _some(batches: Sequence[Batch], n: int, draw: np.random.Generator) -> Tensor:
    """Up to n prompts of one length, which is drawn as often as it occurs."""
    sizes = np.array([len(batch) for batch in batches])
    tokens = batches[int(draw.choice(len(batches), p=sizes / sizes.sum()))].clean
    return tokens[draw.permutation(len(tokens))[:n]]


def deployed(model: Model, problem: Problem, options: DuoAttentionOptions, gates: Gates) -> dict[str, object]:
    """The mean metric of the model, with its gates rounded, and with as many full groups in each layer at random."""
    whole = gates > FULL
    draw = np.random.default_rng([problem.seed, 0xD0])
    others = [_shuffled(whole, draw) for _ in range(DRAWS)] if 0 < whole.sum() < whole.numel() else []
    return {
        "full_groups": int(whole.sum()),
        "groups": whole.numel(),
        "metric_full": _metric(model, problem, options, torch.ones_like(gates)),
        "metric": _metric(model, problem, options, whole.float()),
        "metric_random": [_metric(model, problem, options, other.float()) for other in others],
    }


def _shuffled(whole: Tensor, draw: np.random.Generator) -> Tensor:
    return torch.stack([row[torch.from_numpy(draw.permutation(len(row)))] for row in whole])


@torch.no_grad()
def _metric(model: Model, problem: Problem, options: DuoAttentionOptions, gates: Gates) -> float:
    weights, values = engine_weights(model, 1), []
    assert weights is not None, "see _require"
    for batch in problem.batches:
        full, _ = full_outputs(weights, batch.clean)
        last = mixed_residual(weights, batch.clean, full, gates.to(model.device), options.window)
        values.append(problem.metric(weights.logits(last), batch.answers, batch.distractors))
    return float(torch.cat(values).double().mean())


def work(model: Model, problem: Problem, options: DuoAttentionOptions) -> Workload:
    """A step as two passes there and one back, which is two more; deployment beside it."""
    _require(model, problem, options)
    whole, n = batch_passes(model, problem.batches), n_prompts(problem.batches)
    share = options.trials * options.steps * min(options.prompts, n) / n
    return Workload(model.graph.heads, whole * round(4 * share + 2 * (DRAWS + 2)), unit="trial")


METHOD = Method(
    name="duo-attention",
    summary="gates, trained, that say which KV groups need more than the first and the last few tokens",
    paper="Xiao et al. 2024, DuoAttention, arXiv 2410.10819",
    options=DuoAttentionOptions,
    score=score,
    work=work,
)
