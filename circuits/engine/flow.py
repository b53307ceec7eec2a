"""Where what is read came from: the importance of every source to every reader, in one forward pass.

The one idea: the stream is the sum of all writes, so a write that takes the stream's L1 norm with it when it is taken
out brought that much of it. Writes of a few columns are laid out at a time, for each layer once.
Source: Ferrando & Voita 2024 (arXiv 2403.00824), section 2; see circuits.methods.information_flow.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.engine.forward import Trace, trace
from circuits.engine.linear_edges import FLOAT, Writes
from circuits.engine.weights import Weights
from circuits.memory import in_chunks


def importances(
    weights: Weights, tokens: Int[Tensor, "prompt pos"], memory: int
) -> Float[Tensor, "prompt source reader"]:
    """Mean over positions of each source's share in what each reader reads, in the order of a graph's matrix."""
    with torch.inference_mode():
        run = trace(weights, weights.embed(tokens))
        writes = Writes(run.before[0], run.z, run.outputs().mlp)
        prompts, length, width = run.before[0].shape
        at_once = max(1, memory // (2 * FLOAT * prompts * width * (2 + len(run.z) * (weights.n_heads + 1))))
        parts = in_chunks(length, at_once, lambda part: _sums(weights, run, writes.of_columns(part), part))
        return torch.stack(parts).sum(0) / length


def _sums(weights: Weights, run: Trace, writes: Writes, part: slice) -> Float[Tensor, "prompt source reader"]:
    """Over some columns."""
    full = writes.in_full(weights, slice(None))
    n_inputs, behind = weights.n_heads + 2 * weights.n_kv_heads, weights.n_heads + 1
    columns = []
    for layer in range(len(run.z)):
        first = 1 + layer * behind
        columns += [_shares(run.before[layer][:, part], full, first)] * n_inputs
        stream, heads = (run.before, 0) if weights.parallel else (run.between, weights.n_heads)
        columns.append(_shares(stream[layer][:, part], full, first + heads))
    columns.append(_shares(run.after[:, part], full, full.shape[1]))
    return torch.stack(columns, -1)


def _shares(
    stream: Float[Tensor, "prompt column d_model"],
    full: Float[Tensor, "prompt source column d_model"],
    n: int,
) -> Float[Tensor, "prompt source"]:
    """Of the first `n` sources in `stream`, summed over columns; zeros for the others, and where nothing is near."""
    without = torch.stack([(stream - full[:, i]).abs().sum(-1) for i in range(n)], 1)
    proximity = (stream.abs().sum(-1)[:, None] - without).clamp_min(0)
    shares = proximity / proximity.sum(1, keepdim=True).clamp_min(torch.finfo(proximity.dtype).tiny)
    return torch.nn.functional.pad(shares.sum(-1), (0, full.shape[1] - n))
