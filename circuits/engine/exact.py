"""Exact patching at the cost of what a patch can change.

The one idea: of a row that replaces some components, everything is known up to the first of them: layers below,
columns before clean and donor tokens differ, and the outputs of that first component itself. What is left is a
delta on the residual stream, behind attention or behind the MLP of one layer, which `climb` carries to the answer;
rows that start at the same place share a forward pass. Equal to plain hooks up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.donors import Donor, first_difference, starts
from circuits.engine.footprint import Columns, Footprint
from circuits.engine.forward import Outputs, Replace, climb, mlp, outputs, trace
from circuits.engine.weights import Weights
from circuits.memory import in_chunks
from circuits.model import Site
from circuits.readout import Outcome, Readout, concatenate, reordered


class ExactRun:
    """A batch of prompts run once, ready for any number of patched rows. See circuits.patching.BaseRun."""

    def __init__(
        self, weights: Weights, tokens: Int[Tensor, "prompt pos"], donor: Donor, memory: int
    ) -> None:
        self.weights, self.tokens, self.donor = weights, tokens, donor
        self.length = tokens.shape[1]
        with torch.inference_mode():
            self.first = min(first_difference(tokens, donor), self.length - 1)
            self.footprint = Footprint(
                weights, len(tokens), self.length, self.first, resamples=donor.tokens is not None
            )
            self.base = trace(weights, weights.embed(tokens), keep_from=self.first)
            self.other = self._donor_run()
        self.memory = memory

    def _donor_run(self) -> Outputs | None:
        if self.donor.tokens is None:
            return None
        changed = self.weights.embed(self.donor.tokens)[:, self.first :]
        return outputs(self.weights, changed, behind=self.base)

    def unpatched(self, readout: Readout) -> Outcome:
        with torch.inference_mode():
            return readout.of_residual(self.weights, self.base.after[None, :, -1])

    def measure(
        self,
        keep: Bool[Tensor, "row component"],
        readout: Readout,
        where: Bool[Tensor, "prompt pos"] | None = None,
    ) -> Outcome:
        order, parts = [], []
        by_layer = keep.cpu().view(len(keep), len(self.weights.layers), self.weights.n_heads + 1)
        with torch.inference_mode():
            for rows, layer, kind in starts(by_layer):
                order += rows
                parts += self._rows(by_layer[rows], layer, kind, readout, where)
        return reordered(concatenate(parts, 0), (torch.tensor(order).argsort(),))

    def _rows(
        self,
        keep: Bool[Tensor, "row layer unit"],
        layer: int,
        kind: str,
        readout: Readout,
        where: Bool[Tensor, "prompt pos"] | None,
    ) -> list[Outcome]:
        """Rows that all leave the base run at one place."""
        first, end = self.footprint.columns(layer, where)
        if kind == "none" or first >= end:
            same = readout.of_residual(self.weights, self.base.after[None, :, -1])
            return [reordered(same, (torch.zeros(len(keep), dtype=torch.long),))]

        def work(rows: slice) -> Outcome:
            start = self._behind_attention if kind == "z" else self._behind_mlp
            x = start(keep[rows], layer, (first, end), where)
            final = climb(self.weights, self.base, layer + 1, x, first, self._replaced(keep[rows], where))
            return readout.of_residual(self.weights, final)

        n_logits = self.weights.vocab_size if readout.reads_vocabulary else 0
        return in_chunks(len(keep), self.rows_at_once(self.length - first, n_logits), work)

    def rows_at_once(self, n_columns: int, n_logits: int = 0) -> int:
        """How many rows fit the memory budget beside the base run."""
        memory = self.footprint.room(self.memory, self.tokens.device)
        return self.footprint.rows_at_once(n_columns, memory, n_logits)

    def _behind_attention(
        self, keep: Tensor, layer: int, columns: Columns, where: Tensor | None
    ) -> Float[Tensor, "row prompt column d_model"]:
        """The residual stream behind `layer`, some heads of it replaced and everything below as it was."""
        leaves = ~keep[:, layer, :-1]
        touched = leaves.any(0).nonzero()[:, 0].to(self.tokens.device)
        change = self.change("z", layer, columns, where)[..., touched, :]
        delta = self.written(layer, change, touched, leaves[:, touched.cpu()])
        return self.behind_attention(delta, keep[:, layer, -1], layer, columns, where)

    def behind_attention(
        self, delta: Tensor, keep: Tensor, layer: int, columns: Columns, where: Tensor | None = None
    ) -> Float[Tensor, "row prompt column d_model"]:
        """The same where attention writes `delta` more than in the base run; keep: rows that keep the MLP."""
        between = self.base.between[layer][:, self._at(columns)] + delta
        return between + self._mlp(keep, layer, between, columns, where)

    def _mlp(
        self, keep: Tensor, layer: int, between: Tensor, columns: Columns, where: Tensor | None
    ) -> Tensor:
        if not keep.any() and where is None:
            return self.given("mlp", layer, columns)[None]
        if self.weights.parallel:
            wrote = self.base.mlp(layer)[None, :, self._at(columns)]
        else:
            wrote = mlp(self.weights.layers[layer], between)
        if keep.all():
            return wrote
        return self._mixed(keep[:, None, None, None], "mlp", layer, columns, where, wrote)

    def _behind_mlp(
        self, keep: Tensor, layer: int, columns: Columns, where: Tensor | None
    ) -> Float[Tensor, "row prompt column d_model"]:
        """The same where the MLP is the first to be replaced: all rows alike."""
        change = self.change("mlp", layer, columns, where)
        x = self.base.residual(layer + 1)[:, self._at(columns)] + change
        return x[None].expand(len(keep), -1, -1, -1)

    def written(self, layer: int, change: Tensor, heads: Tensor, leaves: Tensor) -> Tensor:
        """What the change of z of `heads` writes, summed over those that each row leaves."""
        out = self.weights.layers[layer].out.weight.view(self.weights.n_heads, self.weights.d_head, -1)[heads]
        by_head = change.permute(2, 0, 1, 3).flatten(1, 2).to(out.dtype) @ out
        summed = leaves.to(out.device).float() @ by_head.float().flatten(1)
        return summed.view(len(leaves), *change.shape[:2], -1)

    def change(self, kind: str, layer: int, columns: Columns, where: Tensor | None) -> Tensor:
        """Donor minus base of a layer's outputs, zero where nothing is replaced."""
        base = self.base.z[layer] if kind == "z" else self.base.mlp(layer)
        change = self.given(kind, layer, columns) - base[:, self._at(columns)]
        if where is None:
            return change
        inside = where[:, slice(*columns)]
        return change * inside.view(*inside.shape, *[1] * (change.dim() - 2))

    def _at(self, columns: Columns) -> slice:
        return slice(columns[0] - self.first, columns[1] - self.first)

    def given(self, kind: str, layer: int, columns: Columns) -> Float[Tensor, "prompt column *unit"]:
        """What the donor puts out (broadcasts over prompts where it is the same for all)."""
        if self.other is None:
            site = Site("z" if kind == "z" else "mlp", layer)
            shape = (self.weights.n_heads, self.weights.d_head) if kind == "z" else (self.weights.d_model,)
            return self.donor.constant(site, columns, shape, self.tokens.device)[None]
        value = self.other.z[layer] if kind == "z" else self.other.mlp[layer]
        return value[:, self._at(columns)]

    def _mixed(
        self, keep: Tensor, kind: str, layer: int, columns: Columns, where: Tensor | None, value: Tensor
    ) -> Tensor:
        """`value` where it is kept, the donor's elsewhere."""
        if where is not None:
            outside = ~where[:, slice(*columns)]
            keep = keep.to(value.device) | outside.view(1, *outside.shape, *[1] * (value.dim() - 3))
        keep = keep.to(value.device)
        return torch.where(keep, value, self.given(kind, layer, columns))

    def _replaced(self, keep: Bool[Tensor, "row layer unit"], where: Tensor | None) -> Replace:
        """Replacement in the layers above the first; what no row keeps is not even computed."""

        def replace(kind: str, layer: int, at: int, compute: Callable[[], Tensor]) -> Tensor:
            units = keep[:, layer, :-1, None] if kind == "z" else keep[:, layer, -1:]
            if units.all():
                return compute()
            columns = (at, self.length)
            if where is None and not units.any():
                given = self.given(kind, layer, columns)
                return given[None].expand(1, len(self.tokens), *given.shape[1:])
            return self._mixed(units[:, None, None], kind, layer, columns, where, compute())

        return replace
