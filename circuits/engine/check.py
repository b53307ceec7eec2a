"""Probes of the fast paths: each is used only where its numbers are the model's own.

The one idea: on arbitrary tokens, compare what matters to patching with what the model itself gives through hooks:
head outputs, MLP outputs and last logits of the engine, patched last logits of a resumed run. A model that differs
goes the slower way, never an approximation.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.donors import component_sites
from circuits.engine.forward import trace
from circuits.engine.weights import Weights
from circuits.model import Edit, Model, Resume, Resumption, Site

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest deviation over largest value. In half precision, where the model's own rounding adds up through the layers,
root mean squares of both instead: what is computed otherwise is off by about as much as the values are large."""

PROBE_TOKENS = 12


def largest_gap(model: Model, weights: Weights, vocab_size: int) -> float:
    """How far the engine is from the model's own forward pass, at the worst of all sites."""
    tokens = _arbitrary(model, min(PROBE_TOKENS, weights.longest), vocab_size)
    run = model.run(tokens, capture=component_sites(model.graph))
    with torch.inference_mode():
        ours = trace(weights, weights.embed(tokens))
        pairs = [(weights.logits(ours.after[:, -1]), run.logits)]
        outputs = ours.outputs()
        for site, theirs in run.captured.items():
            pairs.append(((outputs.z if site.kind == "z" else outputs.mlp)[site.layer], theirs))
        return max(_gap(a, b) for a, b in pairs)


def probe_resumption(model: Model, length: int, column: int, vocab_size: int) -> Resumption:
    """What runs of `model` that begin at `column` of `length` may leave out: all that keeps their logits as they are.

    Both numbers matter: sliding windows and some rotary codes depend on them. Some seven forward passes of two
    prompts.
    """
    tokens = _arbitrary(model, length, vocab_size)
    for layers, columns in ((True, True), (True, False), (False, True)):
        if _resumes(model, tokens, layers, column if columns else 0):
            return Resumption(layers, columns)
    return Resumption(False, False)


def _resumes(model: Model, tokens: Tensor, layers: bool, column: int) -> bool:
    """Whether resumed runs give the logits of whole ones: from the first layer, the middle one and the last.

    Two rows of both prompts; in the second the head outputs of that layer are swapped between the prompts.
    """
    depths = {0, model.graph.n_layers // 2, model.graph.n_layers - 1} if layers else {0}
    base = model.run(tokens, capture=[Site("input", layer) for layer in depths])
    try:
        past = model.past(tokens[:, :column]) if column else None
        for layer in depths:
            whole = model.run(tokens, edit=_swap(layer, 0, column)).logits
            residual = base.captured[Site("input", layer)][:, column:].repeat(2, 1, 1)
            resume = Resume(layer, residual, past)
            rows = model.run(tokens[:, column:].repeat(2, 1), edit=_swap(layer, 2, 0), resume=resume).logits
            if _gap(rows, torch.cat([base.logits, whole])) > TOLERANCE[residual.dtype]:
                return False
    except Exception:
        # Models are of many makes: however one fails where it should resume, it cannot.
        return False
    return True


def _swap(layer: int, batch: int, column: int) -> dict[Site, Edit]:
    """Swaps the head outputs of the prompts from `batch` on, at the columns from `column` on."""

    def edit(z: Tensor) -> Tensor:
        z = z.clone()
        z[batch:, column:] = z[batch:, column:].flip(0)
        return z

    return {Site("z", layer): edit}


def _arbitrary(model: Model, length: int, vocab_size: int) -> Int[Tensor, "batch pos"]:
    """Two prompts."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocab_size, (2, length), generator=generator).to(model.device)


def _gap(ours: Tensor, theirs: Tensor) -> float:
    half, theirs = theirs.dtype in (torch.float16, torch.bfloat16), theirs.float()
    deviation, size = (
        value.square().mean().sqrt() if half else value.abs().max() for value in (ours - theirs, theirs)
    )
    return float((deviation / size.clamp_min(1e-9)).nan_to_num(torch.inf))
