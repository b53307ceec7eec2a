"""Ships: how far the model's next-token distribution moves when one head is taken out.

The one idea: no answer and no distractor is asked for, only whether the model would say something else: the
divergence KL(p || p without the head) behind the last token, over the whole vocabulary. A head's choice is taken from
it by even attention, which is where queries that are scaled to nothing end, or the head goes altogether.
Source: Zhou et al. 2024 (arXiv 2410.13708, ICLR 2025), section 3; their code scales queries by 1e-4.

**Chance level.** Ours: the head's output changed by as much at every position, but in one random direction. A head
that moves the distribution no more than that is felt for the size of its change and not for what it says.
Cost: one forward pass; then for each head one of the layers from its own on, and as much again for chance: about
half the forward passes that L x H whole ones would be, twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from circuits.batches import by_prompt
from circuits.engine.forward import Attention
from circuits.engine.head_runs import Change, HeadRuns, put_out_values
from circuits.graph import Node
from circuits.methods.method import Method, Problem
from circuits.metrics import Closeness
from circuits.model import Model
from circuits.rehearsal import rehearsed
from circuits.removal import RemovalOptions, head_runs, removal, require
from circuits.scores import Scores
from circuits.selection import n_permutations
from circuits.statistics import adjust_pvalues, sign_flip_pvalues

ROUNDING = 1e-5
"""Nats below which a divergence in single precision is no divergence."""

LEVEL = 0.05


class ShipsOptions(RemovalOptions):
    chance: bool = Field(True, description="also measure a random change of the same size, for each head")


def score(model: Model, problem: Problem, options: ShipsOptions) -> Scores:
    """Divergences in nats, one a prompt and head; they have no sign. MLPs are not scored.

    Raises ModelError where the engine does not cover the model, CircuitError where answers are whole strings.
    """
    require(model, problem.batches, METHOD.name)
    change = removal(model, problem.batches, options.ablation)
    heads = [model.graph.node(name) for name in model.graph.heads]
    generator = torch.Generator().manual_seed(problem.seed)
    directions = torch.nn.functional.normalize(
        torch.randn(len(heads), _d_head(model), generator=generator), dim=-1
    )
    parts = []
    for done, batch in enumerate(problem.batches):
        runs = head_runs(model, batch)
        rows = [divergence(runs, [head], change) for head in heads]
        if options.chance:
            given = zip(heads, directions, strict=True)
            rows += [divergence(runs, [head], as_large(runs, head, change, way)) for head, way in given]
        parts.append(torch.stack(rows).cpu())
        problem.progress(METHOD.name, done + 1, len(problem.batches))
    samples = by_prompt(problem.batches, torch.cat(parts, 1)).double().numpy().T
    found, chance = samples[:, : len(heads)], samples[:, len(heads) :]
    details = {"options": options.model_dump(), "unit": "KL in nats", "signed": False}
    if options.chance:
        details |= {"chance": chance.mean(0).tolist(), "verdict": _verdict(model.graph.heads, found, chance)}
    return Scores(METHOD.name, model.graph.heads, found, details=details)


def _d_head(model: Model) -> int:
    assert model.weights is not None, "see require"
    return model.weights.d_head


def divergence(runs: HeadRuns, heads: Sequence[Node], change: Change) -> Float[Tensor, "prompt"]:
    """KL(p || p with the heads changed) behind the last token, in nats."""
    own, other = (runs.weights.logits(x) for x in (runs.base.after[:, -1], runs.final(heads, change)))
    return (-Closeness(own)(other, (), ())).clamp_min(0)


def as_large(runs: HeadRuns, head: Node, change: Change, way: Float[Tensor, "d_head"]) -> Change:
    """A change of the head's output that is as large as `change` at every position, all in one direction."""
    own = runs.base.z[head.layer][:, :, head.index]
    size = (_changed(runs, head, change) - own).norm(dim=-1, keepdim=True)
    return put_out_values({head: own + size * way.to(own)})


def _changed(runs: HeadRuns, head: Node, change: Change) -> Float[Tensor, "prompt pos d_head"]:
    """What the head puts out with the change, at all positions."""
    weights, replacing = change(runs.weights, [head])
    x, length = runs.base.before[head.layer], runs.base.before[head.layer].shape[1]
    attention = Attention(weights, head.layer, weights.rotation(length) if weights.rotation else None)

    def z() -> Tensor:
        q, k, v = attention.project(attention.layer.attention_norm(x)[None], 0)
        return attention.mix(attention.pattern(q, k, None), v, None)

    return replacing("z", head.layer, 0, z)[0, :, :, head.index]


def _verdict(
    heads: tuple[str, ...], found: Float[np.ndarray, "prompt head"], chance: Float[np.ndarray, "prompt head"]
) -> list[str]:
    means, random = found.mean(0), chance.mean(0)
    flipped = sign_flip_pvalues(found - chance, permutations=n_permutations(len(heads), LEVEL))
    p = adjust_pvalues(flipped, "holm")
    above = (means > random) & (means > ROUNDING) & (p <= LEVEL)
    top = int(means.argmax())
    return [
        f"{above.sum()} of {len(heads)} heads move the distribution further than a random change of the same size "
        f"(sign-flip permutation, Holm, at {LEVEL:g}); {heads[top]}, the first, by {means[top]:.3g} nats where "
        f"chance gives {random[top]:.3g}."
    ]


METHOD = Method(
    name="ships",
    summary="how far the next-token distribution moves when a head's choice, or the head, is taken out",
    paper="Zhou et al. 2024, arXiv 2410.13708",
    options=ShipsOptions,
    score=score,
    work=lambda model, problem, options: rehearsed(score, model, problem, options, model.graph.heads),
)
