"""What heads write, as one vector for each prompt and head: the data of the SAE method.

The one idea: a head's output behind W_O (without the bias, which belongs to no head), either its mean over
all token positions, beginning-of-sequence token included, or that of the last position. As in O'Neill and
Bui 2024 (arXiv 2405.12522); their published tensors are the means.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.batches import Batch, TokenPair
from circuits.model import Model, Site
from circuits.work import Work, total, whole_passes

Position = Literal["mean", "last"]


ROWS = 32
"""Prompts in one pass, whatever the batches: rounding differs with it, and training would amplify that."""


class HeadVectors(NamedTuple):
    """x: positives first, then negatives, each in the order of the prompt set; fp32, on the model's device.

    It takes 4 * examples * heads * d_model bytes: 221 MB for 250 + 250 prompts of GPT-2 small.
    """

    x: Float[Tensor, "example head d_model"]
    positive: Bool[np.ndarray, "example"]


@torch.no_grad()
def head_outputs(
    model: Model, tokens: Int[Tensor, "batch pos"], position: Position
) -> Float[Tensor, "batch head d_model"]:
    """The output of every head, layer by layer, in the order of graph.heads. One forward pass."""
    sites = [Site("z", layer) for layer in range(model.graph.n_layers)]
    captured = model.run(tokens, capture=sites).captured
    written = []
    for site in sites:
        z = captured[site]
        # W_O is linear, so the mean over positions may be taken before it.
        pooled = z.float().mean(1) if position == "mean" else z[:, -1].float()
        writer = model.head_writer(site.layer)[0].float()
        written.append(torch.einsum("bhd,hdm->bhm", pooled, writer))
    return torch.cat(written, dim=1)


def _of_one_length(prompts: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Which prompts run together."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        by_length[len(prompt)].append(i)
    for rows in by_length.values():
        yield from (rows[start : start + ROWS] for start in range(0, len(rows), ROWS))


def _of_prompts(
    model: Model, prompts: Sequence[tuple[int, ...]], position: Position
) -> Float[Tensor, "example head d_model"]:
    shape = (len(prompts), len(model.graph.heads), model.d_model)
    x = torch.empty(shape, dtype=torch.float32, device=model.device)
    for some in _of_one_length(prompts):
        tokens = torch.tensor([prompts[i] for i in some], device=model.device)
        x[some] = head_outputs(model, tokens, position)
    return x


def collect(model: Model, batches: Sequence[Batch], position: Position) -> HeadVectors:
    """Head vectors of the clean prompts (positives) and their negatives, which may differ in length.

    One forward pass for each batch of one length, no padding.
    """
    prompts = _prompts(batches)
    x = _of_prompts(model, prompts, position)
    return HeadVectors(x, np.arange(len(x)) < len(prompts) // 2)


def _prompts(batches: Sequence[Batch]) -> list[tuple[int, ...]]:
    """Positives, then negatives; of a pair of several rows the first, which is the prompt without any answer."""
    by_index: dict[int, TokenPair] = {}
    for batch in batches:  # shortest first
        for i, pair in zip(batch.index, batch.pairs, strict=True):
            by_index.setdefault(i, pair)
    pairs = [by_index[i] for i in sorted(by_index)]
    return [pair.clean for pair in pairs] + [pair.negative for pair in pairs]


def passes(model: Model, batches: Sequence[Batch]) -> Work:
    """What `collect` runs."""
    prompts = _prompts(batches)
    parts = [whole_passes(model, len(rows), len(prompts[rows[0]])) for rows in _of_one_length(prompts)]
    return total(parts)
