"""Attribution patching (AtP): activation patching to first order, every component at once.

The one idea: instead of one run for each component, one backward pass: an effect is what the component's output
changes by, times the gradient of the metric there, summed over positions. It ranks well where changes are
small; behind a saturated softmax it misses effects, and strong ones come out too small.
Sources: Nanda 2023 (Attribution patching: activation patching at industrial scale); Syed et al. 2023
(arXiv 2310.10348); Kramár et al. 2024 (AtP*, arXiv 2403.00745).
Cost: two forward passes and a backward for each batch.
"""

from __future__ import annotations

from circuits.attribution import linear_changes
from circuits.batches import Batch
from circuits.methods.method import Method, Problem
from circuits.model import Model
from circuits.patches import Changes, PatchingOptions, sweep
from circuits.patches import swap as swap_of
from circuits.scores import Scores


def score(model: Model, problem: Problem, options: PatchingOptions) -> Scores:
    """Estimated effects in units of the metric, signs and positions as in activation patching.

    Noising: (clean - corrupt) times the gradient at the clean run; denoising: the same difference times the
    gradient at the corrupt run.
    """
    components, swap = options.scored(model.graph), swap_of(model, problem, options)

    def begin(batch: Batch) -> Changes:
        return linear_changes(model, batch, problem.metric, swap, components)

    effects = sweep(problem, options, "attribution patching", len(components), begin)
    return Scores(
        METHOD.name,
        components,
        effects.samples,
        by_position=effects.by_position,
        details={"options": options.model_dump(), "unit": "change of the metric, to first order"},
    )


METHOD = Method(
    name="attribution-patching",
    summary="activation patching to first order: every head and MLP from one gradient",
    paper="Nanda 2023, Attribution patching; Kramár et al. 2024, arXiv 2403.00745",
    options=PatchingOptions,
    score=score,
)
