"""Reading the MLPs of a model on a task: the regression of each, and what is answered with the fit in its place.

The one idea: half of the prompts is fitted, the other half answers: with the MLP replaced by the fit, by the fit
without the task's vector, by that vector alone, and by the mean output, which knows nothing of the prompt.
Source: Lv et al. 2024 (arXiv 2403.19521); see circuits.mlp_reading.regression for what is ours.
Cost: a forward pass over all prompts, five over the judged half for each MLP, and one least squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from circuits.batches import Batch
from circuits.evaluation.faithfulness import Estimate, mean_estimate
from circuits.metrics import Metric
from circuits.mlp_reading.outputs import Outputs, last_outputs, with_mlp
from circuits.mlp_reading.regression import Regression, regress
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.readout import Outcome

REPLACEMENTS = {
    "own": "own",
    "fit": "fit",
    "fit without c": "without-task",
    "c alone": "task-alone",
    "mean": "mean",
    "nothing": "nothing",
}
"""What is written in the MLP's place: in words, and by the name in records."""


@dataclass(frozen=True)
class Answered:
    """metric: of the judged prompts; correct: share of them on which the answer is the most likely token."""

    metric: Estimate
    correct: Estimate


@dataclass(frozen=True)
class Reading:
    """One MLP. heads: those that feed it; tokens: what the task's vector writes most, by the unembedding.

    answered: by the names of REPLACEMENTS."""

    mlp: str
    heads: tuple[str, ...]
    regression: Regression
    tokens: tuple[str, ...]
    answered: dict[str, Answered]


def read_mlps(
    model: Model,
    fitted: Sequence[Batch],
    judged: Sequence[Batch],
    metric: Metric,
    layers: Sequence[int],
    *,
    seed: int,
    progress: Progress = silent,
) -> tuple[Reading, ...]:
    """Raises ModelError where what components write does not add up."""
    ours, theirs = last_outputs(model, fitted), last_outputs(model, judged)
    own = _answered(with_mlp(model, judged, metric, 0, None), seed)
    found = []
    for done, layer in enumerate(layers):
        found.append(_read(model, ours, theirs, judged, metric, layer, own, seed))
        progress("reading MLPs", done + 1, len(layers))
    return tuple(found)


def _read(
    model: Model,
    ours: Outputs,
    theirs: Outputs,
    judged: Sequence[Batch],
    metric: Metric,
    layer: int,
    own: Answered,
    seed: int,
) -> Reading:
    heads, a = ours.below(model, layer)
    held = theirs.below(model, layer)[1]
    regression = regress(a, ours.mlps[:, layer], held, theirs.mlps[:, layer], seed=seed)
    fit = regression.fit
    written = {
        "fit": fit.predict(held),
        "without-task": fit.of_heads(held),
        "task-alone": np.broadcast_to(fit.task, (len(held), model.d_model)).copy(),
        "mean": np.broadcast_to(fit.mean, (len(held), model.d_model)).copy(),
        "nothing": np.zeros((len(held), model.d_model)),
    }
    answered = {"own": own} | {
        name: _answered(with_mlp(model, judged, metric, layer, value), seed)
        for name, value in written.items()
    }
    return Reading(f"m{layer}", heads, regression, top_tokens(model, fit.task), answered)


def _answered(outcome: Outcome, seed: int) -> Answered:
    metric, correct = (part[0].double().numpy() for part in (outcome.metric, outcome.accurate))
    return Answered(mean_estimate(metric, seed), mean_estimate(correct, seed))


def top_tokens(model: Model, vector: Float[np.ndarray, "d_model"], n: int = 5) -> tuple[str, ...]:
    """The tokens that a direction of the residual stream raises most. Raises ModelError where logits are capped."""
    logits = torch.from_numpy(vector).float().to(model.device) @ model.unembedding().weight
    return tuple(model.token_string(int(token)) for token in logits.topk(n).indices)
