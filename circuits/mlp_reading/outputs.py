"""What heads and MLPs write at the last token, and the run in which one MLP writes something else there.

The one idea: head outputs are z W_O by head, so all that a regression needs comes from one capture of z and of what
MLPs write; a replacement is an edit of one site at one column. Through hooks alone, so on every additive model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.batches import Batch
from circuits.donors import component_sites
from circuits.metrics import Metric
from circuits.model import Edit, Model, Site
from circuits.probes import probe
from circuits.readout import Outcome, Readout, concatenate


@dataclass(frozen=True)
class Outputs:
    """Rows in the order of the batches. heads: by name, in the order of the graph."""

    names: tuple[str, ...]
    heads: Float[np.ndarray, "prompt head d_model"]
    mlps: Float[np.ndarray, "prompt layer d_model"]

    def below(
        self, model: Model, layer: int
    ) -> tuple[tuple[str, ...], Float[np.ndarray, "prompt head d_model"]]:
        """The heads that feed the MLP of `layer`, and what they wrote."""
        feed = [i for i, name in enumerate(self.names) if model.graph.feeds(name, f"m{layer}")]
        return tuple(self.names[i] for i in feed), self.heads[:, feed]


def last_outputs(model: Model, batches: Sequence[Batch]) -> Outputs:
    """One forward pass. Raises ModelError where writes do not add up."""
    probe(model, batches[0].clean[:1]).require_additive(model)
    sites, layers = component_sites(model.graph), range(model.graph.n_layers)
    writers = [model.head_writer(layer)[0] for layer in layers]
    heads, mlps = [], []
    for batch in batches:
        seen = model.run(batch.clean, capture=sites).captured
        z = [torch.einsum("bhd,hdm->bhm", seen[Site("z", n)][:, -1].float(), writers[n]) for n in layers]
        heads.append(torch.cat(z, 1))
        mlps.append(torch.stack([seen[Site("mlp", n)][:, -1].float() for n in layers], 1))
    return Outputs(model.graph.heads, *(torch.cat(part).double().cpu().numpy() for part in (heads, mlps)))


def with_mlp(
    model: Model,
    batches: Sequence[Batch],
    metric: Metric,
    layer: int,
    written: Float[np.ndarray, "prompt d_model"] | None,
) -> Outcome:
    """What is answered where the MLP of `layer` writes `written` at the last token; its own where None.

    Rows in the order of the batches."""
    parts, start = [], 0
    for batch in batches:
        rows = None if written is None else torch.from_numpy(written[start : start + len(batch)])
        start += len(batch)
        edit = {} if rows is None else {Site("mlp", layer): _writing(rows)}
        logits = model.run(batch.clean, edit=edit).logits
        parts.append(Readout(batch, metric, accuracy=True).of_all(logits[None]))
    return concatenate(parts, 1)


def _writing(rows: Float[Tensor, "prompt d_model"]) -> Edit:
    def edit(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, -1] = rows.to(value)
        return value

    return edit
