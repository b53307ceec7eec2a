"""Attribution patching (AtP): activation patching to first order, every component at once.

The one idea: instead of one run for each component, one backward pass: an effect is what the component's output
changes by, times the gradient of the metric there, summed over positions. It ranks well where changes are
small; behind a saturated softmax it misses effects, and strong ones come out too small. Two corrections of AtP*
mend what it misses: `qk-fix` (for the inputs of heads: softmax as it is, not its slope) and `grad-drop` (effects
that cancel along two paths).

**GradDrop in samples with a sign.** The paper scores sizes: the mean over prompts of sum over layers of |I_l| /
(n_layers - 1), where I_l is the effect without the gradient through what layer l writes. Here a sample is that size
of its prompt with one sign for the whole column, that of the mean plain effect: sizes rank as in the paper, the
sign keeps to the project's convention. It is an upper estimate, and a test whether its mean is zero says nothing.

Sources: Nanda 2023 (Attribution patching: activation patching at industrial scale); Syed et al. 2023
(arXiv 2310.10348); Kramár et al. 2024 (AtP*, arXiv 2403.00745).
Cost: two forward passes and a backward for each batch; grad-drop takes half a backward more for each layer.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from pydantic import Field

from circuits.attribution import Approximation, linear_changes, linear_work
from circuits.batches import Batch
from circuits.engine.inputs import head_part_names
from circuits.errors import ModelError
from circuits.methods.method import Method, Problem
from circuits.model import Model
from circuits.patches import Changes, Effects, PartOptions, counted_swap, labels, swap, sweep
from circuits.patching import require_engine
from circuits.scores import Scores
from circuits.work import Workload, total


class AttributionPatchingOptions(PartOptions):
    grad_drop: bool = Field(
        False, description="sizes by GradDrop: effects that cancel along two paths count (a backward a layer)"
    )
    qk_fix: bool = Field(
        True, description="inputs: work softmax out anew for q and k instead of taking its slope"
    )


def score(model: Model, problem: Problem, options: AttributionPatchingOptions) -> Scores:
    """Estimated effects in units of the metric, signs and positions as in activation patching.

    Noising: (clean - corrupt) times the gradient at the clean run; denoising: the same difference times the
    gradient at the corrupt run. parts (option inputs): q, k, v and pattern of each head.
    Raises ModelError for inputs and grad-drop where the engine does not cover the model.
    """
    components, swapped = options.scored(model.graph), swap(model, problem, options)
    layers = range(model.graph.n_layers) if options.inputs else ()
    parts = tuple(name for layer in layers for name in head_part_names(model.graph, layer))
    _require(model, problem, options)
    how = Approximation(options.grad_drop, options.inputs, options.qk_fix)

    def begin(batch: Batch) -> Changes:
        return linear_changes(model, batch, problem.metric, swapped, components, how)

    effects = sweep(problem, options, "attribution patching", len(components) + len(parts), begin)
    details = {"options": options.model_dump(), "unit": "change of the metric, to first order"}
    if options.grad_drop:
        effects = _with_sign(effects)
        details["notes"] = ["grad-drop: sizes of each prompt, with the sign of the mean plain effect"]
    return effects.scores(METHOD.name, components, parts, details)


def work(model: Model, problem: Problem, options: AttributionPatchingOptions) -> Workload | None:
    """The passes there and back; nobody counts what is made of them for inputs."""
    _require(model, problem, options)
    swapped, means = counted_swap(model, problem, options)
    how = Approximation(options.grad_drop)
    passes = [linear_work(model, batch, swapped, how) for batch in problem.batches]
    places = labels(problem.batches, options.positions)
    counted = Workload(options.scored(model.graph), total([means, *passes]), positions=places)
    return None if options.inputs else counted


def _require(model: Model, problem: Problem, options: AttributionPatchingOptions) -> None:
    for name in ("inputs", "grad_drop"):
        if getattr(options, name):
            require_engine(model, problem.batches, f"{METHOD.name}.{name.replace('_', '-')}")
    if options.grad_drop and model.graph.n_layers == 1:
        raise ModelError(f"{model.name} has one layer, so grad-drop has no other to drop. Leave it out.")


def _with_sign(effects: Effects) -> Effects:
    """GradDrop's sizes with the sign of the plain effects, which stand beside them."""

    def signed(
        plain: Float[np.ndarray, "name"], sizes: Float[np.ndarray, "*prompt name"]
    ) -> Float[np.ndarray, "*prompt name"]:
        return np.asarray(np.abs(sizes) * np.where(plain < 0, -1.0, 1.0))

    plain, sizes = effects.samples
    by_position = {label: signed(*values) for label, values in effects.by_position.items()}
    return Effects(signed(plain.mean(0), sizes), by_position)


METHOD = Method(
    name="attribution-patching",
    summary="activation patching to first order: every head and MLP from one gradient",
    paper="Nanda 2023, Attribution patching; Kramár et al. 2024, arXiv 2403.00745",
    options=AttributionPatchingOptions,
    score=score,
    work=work,
)
