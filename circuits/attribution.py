"""Attribution: what every patch would change to first order, all patches at once.

The one idea: for a small change of one component's output the metric changes by that change times the gradient,
and one backward pass gives the gradient at every component; where a large change bends the metric (a saturated
softmax, a norm), the product is an estimate and no more.
Sources: Nanda 2023 (attribution patching); Syed et al. 2023 (arXiv 2310.10348); Kramár et al. 2024 (AtP*,
arXiv 2403.00745).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.batches import Batch
from circuits.donors import Donor, first_difference
from circuits.engine.footprint import Footprint
from circuits.engine.forward import Outputs
from circuits.engine.linear import Estimate, Linear, engine_linear, joined, portable_linear
from circuits.engine.linear_inputs import input_effects
from circuits.engine.weights import Weights
from circuits.memory import in_chunks
from circuits.metrics import Metric
from circuits.model import Model
from circuits.patches import Changes, Swap
from circuits.patching import engine_weights
from circuits.readout import Readout
from circuits.work import Work, total, whole_passes


@dataclass(frozen=True)
class Approximation:
    """How effects are estimated, beside by the gradient.

    grad_drop: also the mean size of effects without the gradient through one layer, in a second row.
    inputs: also q, k, v and pattern of every head; qk_fix: with softmax as it is rather than its slope.
    rules: what the weights are replaced by before gradients are taken (relevance patching).
    These need the engine.
    """

    grad_drop: bool = False
    inputs: bool = False
    qk_fix: bool = True
    rules: Callable[[Weights], Weights] = lambda weights: weights


PLAIN = Approximation()

BACK = 2
"""What the way back through a layer costs, in calls of its way there: two gradients for each operation."""


def linear_changes(
    model: Model,
    batch: Batch,
    metric: Metric,
    swap: Swap,
    components: Sequence[str],
    how: Approximation = PLAIN,
) -> Changes:
    """Changes to first order, of `components` and then of parts, prompts as memory allows.

    Two forward passes and a backward for all of them; grad_drop takes a backward more for each layer.
    """
    length, n_components = batch.clean.shape[1], len(model.graph.components)

    def work(part: slice) -> Estimate:
        some = batch.of_rows(range(len(batch))[part])
        linear = _linear(model, *swap(some), Readout(some, metric), how)
        return _estimate(model, linear, length, how)

    found = in_chunks(len(batch), max(1, model.memory // prompt_bytes(model, length)), work)
    alone, together = torch.cat([e.alone for e in found], -2), torch.cat([e.together for e in found], -1)
    names = [model.graph.components.index(name) for name in components]
    names += range(n_components, together.shape[-2])

    def changes(where: Bool[Tensor, "prompt pos"] | None) -> Float[Tensor, "*kind name prompt"]:
        """where: one position a prompt at most."""
        everything = together if where is None else (alone * where).sum(-1)
        return everything[..., names, :]

    return changes


def _linear(
    model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor, readout: Readout, how: Approximation
) -> Linear:
    """By the engine where it covers the model, else through hooks."""
    weights = engine_weights(model, tokens.shape[1])
    if weights is None:
        return portable_linear(model, tokens, donor, readout)
    return engine_linear(how.rules(weights), tokens, donor, readout, how.grad_drop)


def _estimate(model: Model, linear: Linear, length: int, how: Approximation) -> Estimate:
    """Effects by the gradient; and with grad_drop, as a second row, their mean size."""
    estimates = (_of_slopes(model, linear, slopes, length, how) for slopes in linear.slopes)
    plain = next(estimates)
    if not how.grad_drop:
        return plain
    alone, together = torch.zeros_like(plain.alone), torch.zeros_like(plain.together)
    for dropped in estimates:
        alone += dropped.alone.abs() / (model.graph.n_layers - 1)
        together += dropped.together.abs() / (model.graph.n_layers - 1)
    return Estimate(torch.stack([plain.alone, alone]), torch.stack([plain.together, together]))


def _of_slopes(model: Model, linear: Linear, slopes: Outputs, length: int, how: Approximation) -> Estimate:
    components = linear.effects(slopes, length)
    if not how.inputs or model.weights is None or linear.traces is None:
        return components
    parts = input_effects(model.weights, *linear.traces, slopes.z, length, how.qk_fix)
    return joined((components, parts), length)


def linear_work(model: Model, batch: Batch, swap: Swap, how: Approximation = PLAIN) -> Work:
    """What linear_changes runs; of `how` only grad_drop is counted, which it can ask of the engine alone."""
    length = batch.clean.shape[1]

    def work(part: slice) -> Work:
        tokens, donor = swap(batch.of_rows(range(len(batch))[part]))
        return _pass_and_back(model, tokens, donor, how.grad_drop) + Work(
            bytes=len(tokens) * prompt_bytes(model, length)
        )

    return total(in_chunks(len(batch), max(1, model.memory // prompt_bytes(model, length)), work))


def _pass_and_back(model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor, drops: bool) -> Work:
    (n, length), resamples = tokens.shape, donor.tokens is not None
    weights, passes = engine_weights(model, length), n * (1 + resamples)
    if weights is None:
        return whole_passes(model, n, length) * (BACK + 1 + resamples)
    first = min(first_difference(tokens, donor), length - 1)
    flops = Footprint(weights, n, length, first, resamples).linear_flops(drops=drops)
    layers = len(weights.layers)
    calls = layers * (1 + resamples + BACK) + drops * BACK * layers * (layers - 1) // 2
    return Work(passes=passes, flops=flops, calls=calls)


def prompt_bytes(model: Model, length: int) -> int:
    """Memory that a prompt needs at most while gradients are on their way, measured and rounded up."""
    weights = model.weights
    hidden = weights.layers[0].mlp_in.weight.shape[1] if weights else 4 * model.d_model
    by_column = 48 * model.d_model + 20 * hidden + 16 * model.graph.n_heads * length
    return model.graph.n_layers * length * by_column
