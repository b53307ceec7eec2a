"""Cheap probes of a loaded model: what holds for it, so that methods refuse by name what does not.

Two facts are measured on one forward pass over arbitrary tokens: whether what components write adds up to
the residual stream (post-norm models break it), and whether the final norm and unembedding give the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from circuits.errors import ModelError
from circuits.model import Model, Site

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF_TOLERANCE = 5e-2


@dataclass(frozen=True)
class Probes:
    """Relative gaps (largest deviation over largest value). None: the model cannot be asked."""

    writes_gap: float
    logits_gap: float | None
    tolerance: float

    def require_additive(self, model: Model) -> None:
        """Raises ModelError where writes do not sum to the residual stream."""
        if self.writes_gap > self.tolerance:
            raise ModelError(
                f"{model.name} changes what its components write before it reaches the residual stream, so their "
                f"direct effects do not add up (gap {self.writes_gap:.2g}). Use activation-patching instead."
            )
        if self.logits_gap is not None and self.logits_gap > self.tolerance:
            raise ModelError(
                f"{model.name}'s logits are not its final norm times its unembedding (gap {self.logits_gap:.2g}), "
                "so direct effects cannot be computed. Use activation-patching instead."
            )


def probe(model: Model, tokens: torch.Tensor) -> Probes:
    """Measures both gaps on `tokens` [batch, pos]; one forward pass."""
    layers = range(model.graph.n_layers)
    sites = [Site("input"), Site("final"), *(Site(kind, layer) for layer in layers for kind in ("z", "mlp"))]
    run = model.run(tokens, capture=sites)
    total = run.captured[Site("input")].float()
    for layer in layers:
        weight, bias = model.head_writer(layer)
        total = total + torch.einsum("bphd,hdm->bpm", run.captured[Site("z", layer)].float(), weight) + bias
        total = total + run.captured[Site("mlp", layer)].float()
    final = run.captured[Site("final")].float()
    tolerance = TOLERANCE.get(run.captured[Site("final")].dtype, HALF_TOLERANCE)
    return Probes(_gap(total, final), _logits_gap(model, final[:, -1], run.logits), tolerance)


def _logits_gap(model: Model, last: torch.Tensor, logits: torch.Tensor) -> float | None:
    try:
        unembedding = model.unembedding()
    except ModelError:
        return None
    return _gap((last / unembedding.scale(last)[:, None]) @ unembedding.weight + unembedding.bias, logits)


def _gap(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-9))
