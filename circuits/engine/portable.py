"""Exact patching for any model, through hooks alone: the path of models that the engine does not know.

The one idea: what the fast path knows about a model it may not assume here, so every row runs the model itself,
with the outputs of components replaced as they pass; and the fast path is held to what comes out here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.interventions import Donor, component_sites
from circuits.memory import in_chunks
from circuits.model import Edit, Model, Site
from circuits.readout import Outcome, Readout, concatenate

ROW_TOKENS = 8192
"""Tokens in one forward pass: enough to fill a processor, little enough for any memory."""


class PortableRun:
    """A batch of prompts and a donor, ready for any number of patched rows. See circuits.patching.BaseRun."""

    def __init__(self, model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor) -> None:
        self.model, self.tokens, self.donor = model, tokens, donor
        self.given: dict[Site, Tensor] = {}
        if donor.tokens is not None:
            self.given = model.run(donor.tokens, capture=component_sites(model.graph)).captured

    def unpatched(self, readout: Readout) -> Outcome:
        return readout.of_all(self.model.run(self.tokens).logits[None])

    def measure(
        self,
        keep: Bool[Tensor, "row component"],
        readout: Readout,
        where: Bool[Tensor, "prompt pos"] | None = None,
    ) -> Outcome:
        def work(rows: slice) -> Outcome:
            edits = dict(self._edits(keep[rows].to(self.tokens.device), where))
            logits = self.model.run(self.tokens.repeat(len(keep[rows]), 1), edit=edits).logits
            return readout.of_all(logits.view(-1, len(self.tokens), logits.shape[-1]))

        at_once = max(1, ROW_TOKENS // self.tokens.numel())
        return concatenate(in_chunks(len(keep), at_once, work), 0)

    def _edits(
        self, keep: Bool[Tensor, "row component"], where: Bool[Tensor, "prompt pos"] | None
    ) -> Iterator[tuple[Site, Edit]]:
        graph = self.model.graph
        by_layer = keep.view(len(keep), graph.n_layers, graph.n_heads + 1)
        for layer in range(graph.n_layers):
            heads, mlp = by_layer[:, layer, :-1], by_layer[:, layer, -1:]
            if not heads.all():
                yield Site("z", layer), partial(self._replaced, Site("z", layer), heads[:, :, None], where)
            if not mlp.all():
                yield Site("mlp", layer), partial(self._replaced, Site("mlp", layer), mlp, where)

    def _replaced(
        self,
        site: Site,
        keep: Bool[Tensor, "row *unit"],
        where: Bool[Tensor, "prompt pos"] | None,
        value: Tensor,
    ) -> Tensor:
        """What passes at the site, the units that a row does not keep replaced by the donor's."""
        split = value.view(len(keep), len(self.tokens), *value.shape[1:])
        stays = keep[:, None, None]
        if where is not None:
            stays = stays | ~where.view(1, *where.shape, *[1] * (keep.dim() - 1))
        given = self.given.get(site)
        if given is None:
            constant = self.donor.constant(site, (0, value.shape[1]), tuple(value.shape[2:]), value.device)
            given = constant[None].to(value.dtype)
        return torch.where(stays, split, given).view_as(value)
