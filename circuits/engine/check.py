"""The load-time probe of the engine: it is used only where its numbers are the model's own.

The one idea: on arbitrary tokens, compare what matters to patching (head outputs, MLP outputs, last logits) with
what the model itself gives through hooks; a model that differs takes the portable path, never an approximation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuits.engine.forward import trace
from circuits.engine.weights import Weights
from circuits.interventions import component_sites
from circuits.model import Model

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest deviation over largest value. In half precision, where the model's own rounding adds up through the layers,
root mean squares of both instead: what is computed otherwise is off by about as much as the values are large."""

PROBE_TOKENS = 12


def largest_gap(model: Model, weights: Weights, vocab_size: int) -> float:
    """How far the engine is from the model's own forward pass, at the worst of all sites."""
    length = min(PROBE_TOKENS, weights.longest)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocab_size, (2, length), generator=generator).to(model.device)
    run = model.run(tokens, capture=component_sites(model.graph))
    with torch.inference_mode():
        ours = trace(weights, weights.embed(tokens))
        pairs = [(weights.logits(ours.after[:, -1]), run.logits)]
        outputs = ours.outputs()
        for site, theirs in run.captured.items():
            pairs.append(((outputs.z if site.kind == "z" else outputs.mlp)[site.layer], theirs))
        return max(_gap(a, b) for a, b in pairs)


def _gap(ours: Tensor, theirs: Tensor) -> float:
    half, theirs = theirs.dtype in (torch.float16, torch.bfloat16), theirs.float()
    deviation, size = (
        value.square().mean().sqrt() if half else value.abs().max() for value in (ours - theirs, theirs)
    )
    return float((deviation / size.clamp_min(1e-9)).nan_to_num(torch.inf))
