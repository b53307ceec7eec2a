"""Missed: how large an effect what a method leaves out of its circuit could still have.

The one idea: a cheap score can be zero where the true effect is not, and patching all that was left out one by one is
what the cheap score was to save. So random subsets of it are patched jointly: a component with an effect moves the
subsets that hold it from those that do not, and Welch's t bounds by how much. The few that could matter are then
patched alone.
Source: Kramár et al. 2024 (AtP*, arXiv 2403.00745), section on diagnostics, whose constants are not published in a
form that we could read. **Ours:** every component is in the same share of the subsets, the bound is one-sided at 95%
for each by itself, and it is held against a share of what replacing everything does.

**What it bounds** is the mean effect within random subsets, which is the effect alone where effects add up.
Cost: a forward pass a subset and prompt, and one for each component that is patched alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import stats

from circuits.audit import MOST_PROMPTS, swap_of
from circuits.batches import by_prompt, first_prompts
from circuits.donors import all_but_one, keep_masks
from circuits.errors import CircuitError
from circuits.methods.method import Problem
from circuits.model import Model
from circuits.patches import ReplacementOptions, swap
from circuits.patching import base_run
from circuits.readout import Readout
from circuits.scores import Scores
from circuits.statistics import bootstrap_interval

FEWEST = 40
"""Subsets: a tenth of fewer is no sample to take a variance of."""

INSIDE = 0.1
"""Share of the subsets that hold a component: the more is replaced at once, the less effects add up."""

LEVEL = 0.95
MATTERS = 0.1
"""Of what replacing everything does: a component that may reach it is pointed at."""

ALONE = 10
"""Components that are patched alone, at most."""


@dataclass(frozen=True)
class Suspect:
    """A component that may matter. bound: its effect, with either sign, is no larger. alone: its effect by itself,
    with its 95% bootstrap interval; None where others come first."""

    component: str
    bound: float
    alone: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Missed:
    """suspects: those whose bound exceeds the limit, largest first. bounds: of every component that was left out.

    limit: a share of `whole`, what replacing everything does. idle: the bound of a component that does nothing at
    all, on average, which more subsets make smaller.
    """

    method: str
    n_prompts: int
    n_subsets: int
    limit: float
    whole: float
    idle: float
    bounds: dict[str, float]
    suspects: tuple[Suspect, ...]

    def record(self) -> dict[str, object]:
        """Ready for JSON."""
        return asdict(self)


def bound_missed(
    model: Model, problem: Problem, scores: Scores, kept: Sequence[str], n_subsets: int
) -> Missed | None:
    """Bounds the effects of the components that are scored and not kept, on the first prompts of `problem`.

    Direction and ablation are those that the method had. None where fewer than two are left out.
    Raises CircuitError for too few subsets.
    """
    if n_subsets < FEWEST:
        raise CircuitError(f"{n_subsets} subsets bound nothing; ask for {FEWEST} or more.")
    rest = [name for name in scores.components if name not in kept]
    if len(rest) < 2:
        return None
    inside = memberships(n_subsets, len(rest), problem.seed)
    some = replace(problem, batches=first_prompts(problem.batches, MOST_PROMPTS))
    subsets = [[name for name, there in zip(rest, row, strict=True) if there] for row in inside]
    rows = keep_masks(model.graph, [*subsets, model.graph.components])
    joint = effects(model, some, swap_of(scores), ~rows)
    whole = float(joint[:, -1].mean())
    bounds, idle = welch_bounds(joint[:, :-1].mean(0), inside)
    limit = MATTERS * abs(whole)
    order = [i for i in np.argsort(-bounds, kind="stable") if bounds[i] > limit]
    return Missed(
        method=scores.method,
        n_prompts=len(joint),
        n_subsets=n_subsets,
        limit=limit,
        whole=whole,
        idle=idle,
        bounds=dict(zip(rest, bounds.tolist(), strict=True)),
        suspects=_suspects(model, some, scores, [(rest[i], float(bounds[i])) for i in order]),
    )


def memberships(n_subsets: int, n: int, seed: int) -> Bool[np.ndarray, "subset component"]:
    """Every component is in the same number of subsets, drawn at random."""
    draw = np.random.default_rng([seed, n_subsets])
    column = np.arange(n_subsets) < round(INSIDE * n_subsets)
    return np.stack([draw.permutation(column) for _ in range(n)], axis=1)


def welch_bounds(
    values: Float[np.ndarray, "subset"], inside: Bool[np.ndarray, "subset component"]
) -> tuple[Float[np.ndarray, "component"], float]:
    """How large each component's effect can be, with either sign; and how large that of an idle one seems."""
    groups = [np.where(where, values[:, None], np.nan) for where in (inside, ~inside)]
    means = [np.nanmean(group, 0) for group in groups]
    sizes = [where.sum(0) for where in (inside, ~inside)]
    errors = [np.nanvar(group, 0, ddof=1) / n for group, n in zip(groups, sizes, strict=True)]
    total = np.maximum(errors[0] + errors[1], np.finfo(float).tiny)
    parts = sum((error / total) ** 2 / (n - 1) for error, n in zip(errors, sizes, strict=True))
    freedom = 1 / np.maximum(parts, 1 / len(values))
    reach = stats.t.ppf(LEVEL, freedom) * np.sqrt(total)
    return np.abs(means[0] - means[1]) + reach, float(reach.mean())


def effects(
    model: Model, problem: Problem, options: ReplacementOptions, keep: Bool[torch.Tensor, "row component"]
) -> Float[np.ndarray, "prompt row"]:
    """Of each row: positive where what is replaced supports the behaviour."""
    swapped, parts = swap(model, problem, options), []
    for done, batch in enumerate(problem.batches):
        run, readout = base_run(model, *swapped(batch)), Readout(batch, problem.metric)
        parts.append(options.sign * (run.measure(keep, readout).metric - run.unpatched(readout).metric))
        problem.progress("patching what was left out", done + 1, len(problem.batches))
    return np.asarray(by_prompt(problem.batches, torch.cat(parts, 1)).double().numpy().T)


def _suspects(
    model: Model, problem: Problem, scores: Scores, found: Sequence[tuple[str, float]]
) -> tuple[Suspect, ...]:
    first, rest = found[:ALONE], found[ALONE:]
    unmeasured = tuple(Suspect(name, bound, None, None, None) for name, bound in rest)
    if not first:
        return unmeasured
    keep = all_but_one(model.graph, [name for name, _ in first])
    alone = effects(model, problem, swap_of(scores), keep)
    low, high = bootstrap_interval(alone, seed=problem.seed)
    columns = (alone.mean(0).tolist(), low.tolist(), high.tolist())
    return (
        *(Suspect(*bounded, *values) for bounded, *values in zip(first, *columns, strict=True)),
        *unmeasured,
    )
