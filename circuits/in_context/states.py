"""What one forward pass of few-shot prompts shows: hidden states at forerunners and labels, and where heads look.

The one idea: all three phases are read off the same pass, at columns that are known, so it is kept no longer than a
layer. Streams are numbered by the layers behind them: 0 is the embedding, l + 1 what layer l leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from circuits.batches import by_prompt
from circuits.engine.forward import steps
from circuits.engine.weights import Weights
from circuits.in_context.layout import FewShot, Layout
from circuits.roles.attention import pattern

ByHead = Float[Tensor, "prompt layer head"]


@dataclass(frozen=True)
class States:
    """Rows in the order of the prompts.

    query: at s_q; forerunner, label: at s and y of the last example. nearest: whether the example whose s_i is
    most like s_q, by cosine, has the answer's label. merging: mean over i of A[y_i, s_i]; previous: the mean
    attention to the token before from columns that are no labels. found, right: attention from s_q to all labels,
    and to those of the answer.
    """

    query: Float[Tensor, "prompt stream d_model"]
    forerunner: Float[Tensor, "prompt stream d_model"]
    label: Float[Tensor, "prompt stream d_model"]
    nearest: Float[Tensor, "prompt stream"]
    merging: ByHead
    previous: ByHead
    found: ByHead
    right: ByHead


class _Hidden(NamedTuple):
    query: Tensor
    forerunner: Tensor
    label: Tensor
    nearest: Tensor


class _Looks(NamedTuple):
    merging: Tensor
    previous: Tensor
    found: Tensor
    right: Tensor


@torch.inference_mode()
def read_states(weights: Weights, prompts: Sequence[FewShot]) -> States:
    """One forward pass, and queries and keys a second time."""
    parts = [_read(weights, each) for each in prompts]
    batches = [each.batch for each in prompts]
    return States(*(by_prompt(batches, torch.cat(part), 0).cpu() for part in zip(*parts, strict=True)))


def _read(weights: Weights, prompts: FewShot) -> tuple[Tensor, ...]:
    streams: list[_Hidden] = []
    looks: list[_Looks] = []
    for depth, step in enumerate(steps(weights, weights.embed(prompts.batch.clean))):
        if not streams:
            streams.append(_hidden(step.before, prompts.layouts))
        streams.append(_hidden(step.after, prompts.layouts))
        looks.append(_looks(pattern(weights, depth, step.before), prompts.layouts))
    return tuple(torch.stack(part, 1) for each in (streams, looks) for part in zip(*each, strict=True))


def _hidden(stream: Float[Tensor, "prompt pos d_model"], layouts: Sequence[Layout]) -> _Hidden:
    rows = [
        (x[at.end], x[at.forerunners[-1]], x[at.labels[-1]], _nearest(x, at))
        for x, at in zip(stream.float(), layouts, strict=True)
    ]
    return _Hidden(*(torch.stack(part) for part in zip(*rows, strict=True)))


def _nearest(x: Float[Tensor, "pos d_model"], at: Layout) -> Tensor:
    """1 or 0; the share that is right of those that tie."""
    like = cosine_similarity(x[list(at.forerunners)].double(), x[at.end].double(), dim=-1)
    best = like >= like.max() - 1e-9
    return (best & torch.tensor(at.right, device=x.device)).sum() / best.sum()


def _looks(paid: Float[Tensor, "prompt head query source"], layouts: Sequence[Layout]) -> _Looks:
    rows = [_look(each, at) for each, at in zip(paid, layouts, strict=True)]
    return _Looks(*(torch.stack(part) for part in zip(*rows, strict=True)))


def _look(paid: Float[Tensor, "head query source"], at: Layout) -> tuple[Tensor, ...]:
    labels, right = list(at.labels), [y for y, fits in zip(at.labels, at.right, strict=True) if fits]
    others = [i for i in range(1, at.end + 1) if i not in at.labels]
    before = [i - 1 for i in others]
    retrieved = paid[:, at.end]
    return (
        paid[:, labels, list(at.forerunners)].mean(-1),
        paid[:, others, before].mean(-1),
        retrieved[:, labels].sum(-1),
        retrieved[:, right].sum(-1),
    )
