"""Attribution: what every patch would change to first order, all patches at once.

The one idea: for a small change of one component's output the metric changes by that change times the gradient,
and one backward pass gives the gradient at every component; where a large change bends the metric (a saturated
softmax, a norm), the product is an estimate and no more.
Sources: Nanda 2023 (attribution patching); Syed et al. 2023 (arXiv 2310.10348); Kramár et al. 2024 (AtP*,
arXiv 2403.00745).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from circuits.batches import Batch
from circuits.engine.slopes import Slopes, engine_slopes, portable_slopes
from circuits.interventions import Donor, component_sites
from circuits.memory import in_chunks
from circuits.metrics import Metric
from circuits.model import Model
from circuits.patches import Changes, Swap
from circuits.patching import engine_weights
from circuits.readout import Readout


def linear_changes(
    model: Model, batch: Batch, metric: Metric, swap: Swap, components: Sequence[str]
) -> Changes:
    """Changes to first order: two forward passes and a backward for all of them, prompts as memory allows."""
    rows = [model.graph.components.index(name) for name in components]

    def work(part: slice) -> Float[Tensor, "component prompt pos"]:
        some = batch.of_rows(range(len(batch))[part])
        tokens, donor = swap(some)
        return _table(model, slopes(model, tokens, donor, Readout(some, metric)), tokens.shape[1])

    at_once = max(1, model.memory // prompt_bytes(model, batch.clean.shape[1]))
    table = torch.cat(in_chunks(len(batch), at_once, work), 1)[rows]
    return lambda where: (table if where is None else table * where).sum(-1)


def slopes(model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor, readout: Readout) -> Slopes:
    """By the engine where it covers the model, else through hooks."""
    weights = engine_weights(model, tokens.shape[1])
    if weights is None:
        return portable_slopes(model, tokens, donor, readout)
    return engine_slopes(weights, tokens, donor, readout)


def _table(model: Model, found: Slopes, length: int) -> Float[Tensor, "component prompt pos"]:
    """Columns that are not there change nothing."""
    effects = (found.effects(site).permute(2, 0, 1) for site in component_sites(model.graph))
    return torch.cat([pad(effect, (length - effect.shape[-1], 0)) for effect in effects])


def prompt_bytes(model: Model, length: int) -> int:
    """Memory that a prompt needs at most while gradients are on their way, in fp32.

    After Korthikanti et al. 2022 (arXiv 2205.05198), section 4.1, for 4 bytes in place of their 2.
    """
    by_column = 68 * model.d_model + 10 * model.graph.n_heads * length
    return model.graph.n_layers * length * by_column
