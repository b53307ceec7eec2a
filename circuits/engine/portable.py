"""Exact patching for any model, through hooks alone: the path of models that the engine does not know.

The one idea: every row runs the model itself, with the outputs of components replaced as they pass, but from where
it leaves the base run: blocks below its first replaced component do not run, and of columns before the first
change there are keys and values alone. Whether a model can resume like that is probed (circuits.engine.check); one
that cannot runs as a whole. Equal to plain hooks up to rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.donors import Donor, component_sites, first_difference, starts
from circuits.engine.footprint import portable_row_bytes
from circuits.engine.forward import n_bytes
from circuits.memory import in_chunks
from circuits.model import Edit, Model, Resume, Resumption, Run, Site
from circuits.readout import Outcome, Readout, concatenate, reordered


class PortableRun:
    """A batch of prompts run once, ready for any number of patched rows. See circuits.patching.BaseRun."""

    def __init__(self, model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor) -> None:
        self.model, self.tokens, self.donor = model, tokens, donor
        self.length = tokens.shape[1]
        first = min(first_difference(tokens, donor), self.length - 1)
        self.first = first if model.resumption(self.length, first).columns else 0
        self._pasts: dict[int, object] = {}
        above = range(1, model.graph.n_layers) if self._may_leave_out(self.first).layers else ()
        self.base = self._run(tokens, [Site("input", layer) for layer in above])
        self.given: dict[Site, Tensor] = {}
        if donor.tokens is not None:
            self.given = self._run(donor.tokens, component_sites(model.graph)).captured

    def _run(self, tokens: Int[Tensor, "prompt pos"], sites: Collection[Site]) -> Run:
        """The columns from self.first on; those before it are the base run's."""
        past = Resume(past=self._past(self.first))
        return self.model.run(tokens[:, self.first :], capture=sites, resume=past)

    def _past(self, column: int) -> object:
        """Keys and values of the columns before `column`: those that were asked for last are kept."""
        if column and column not in self._pasts:
            self._pasts = {column: self.model.past(self.tokens[:, :column])}
        return self._pasts.get(column)

    def _may_leave_out(self, column: int) -> Resumption:
        return self.model.resumption(self.length, column)

    def unpatched(self, readout: Readout) -> Outcome:
        return readout.of_all(self.base.logits[None])

    def measure(
        self,
        keep: Bool[Tensor, "row component"],
        readout: Readout,
        where: Bool[Tensor, "prompt pos"] | None = None,
    ) -> Outcome:
        order, parts = [], []
        by_layer = keep.cpu().view(len(keep), self.model.graph.n_layers, self.model.graph.n_heads + 1)
        first = self._first_change(where)
        for rows, layer, kind in starts(by_layer):
            order += rows
            if kind == "none" or first == self.length:
                parts.append(reordered(self.unpatched(readout), (torch.zeros(len(rows), dtype=torch.long),)))
            else:
                column = first if self._may_leave_out(first).columns else self.first
                parts += self._rows(by_layer[rows], layer, column, readout, where)
        return reordered(concatenate(parts, 0), (torch.tensor(order).argsort(),))

    def _first_change(self, where: Bool[Tensor, "prompt pos"] | None) -> int:
        """The first column at which rows can differ from the base run; the length where there is none."""
        if where is None:
            return self.first
        inside = where[:, self.first :].any(0).nonzero()
        return self.first + int(inside.min()) if len(inside) else self.length

    def _rows(
        self,
        keep: Bool[Tensor, "row layer unit"],
        layer: int,
        column: int,
        readout: Readout,
        where: Bool[Tensor, "prompt pos"] | None,
    ) -> list[Outcome]:
        """Rows that all leave the base run at one layer and column."""

        def work(rows: slice) -> Outcome:
            kept = keep[rows].to(self.tokens.device)
            run = self.model.run(
                self.tokens[:, column:].repeat(len(kept), 1),
                edit=dict(self._edits(kept, column, where)),
                resume=self._resume(layer, column, len(kept)),
            )
            return readout.of_all(run.logits.view(len(kept), len(self.tokens), -1))

        return in_chunks(len(keep), self.rows_at_once(column), work)

    def _resume(self, layer: int, column: int, n_rows: int) -> Resume:
        past, residual = self._past(column), self.base.captured.get(Site("input", layer))
        if residual is None or not self._may_leave_out(column).layers:
            return Resume(past=past)
        return Resume(layer, residual[:, column - self.first :].repeat(n_rows, 1, 1), past)

    def rows_at_once(self, column: int) -> int:
        """How many rows fit the memory budget beside the base run."""
        return max(1, (self.model.memory - self.held_bytes) // self.row_bytes(column))

    def row_bytes(self, column: int) -> int:
        """Memory of one row from `column` on, as far as can be told."""
        return portable_row_bytes(
            self.model, len(self.tokens), self.length, column, self.base.logits.shape[-1]
        )

    @property
    def held_bytes(self) -> int:
        """What the base run and the donor's hold; of the prefix, keys and values as if no heads shared them."""
        past = (
            8
            * max(self._pasts, default=0)
            * len(self.tokens)
            * self.model.graph.n_layers
            * self.model.d_model
        )
        return past + n_bytes((*self.base.captured.values(), *self.given.values()))

    def _edits(
        self, keep: Bool[Tensor, "row layer unit"], column: int, where: Bool[Tensor, "prompt pos"] | None
    ) -> Iterator[tuple[Site, Edit]]:
        for layer in range(keep.shape[1]):
            heads, mlp = keep[:, layer, :-1, None], keep[:, layer, -1:]
            for site, kept in ((Site("z", layer), heads), (Site("mlp", layer), mlp)):
                if not kept.all():
                    yield site, partial(self._replaced, site, kept, column, where)

    def _replaced(
        self,
        site: Site,
        keep: Bool[Tensor, "row *unit"],
        column: int,
        where: Bool[Tensor, "prompt pos"] | None,
        value: Tensor,
    ) -> Tensor:
        """What passes at the site from `column` on, the units that a row does not keep replaced by the donor's."""
        split = value.view(len(keep), len(self.tokens), *value.shape[1:])
        stays = keep[:, None, None]
        if where is not None:
            outside = ~where[:, column:]
            stays = stays | outside.view(1, *outside.shape, *[1] * (keep.dim() - 1))
        return torch.where(stays, split, self._given(site, column, value)).view_as(value)

    def _given(self, site: Site, column: int, value: Tensor) -> Tensor:
        """What the donor puts out there (broadcasts over prompts where it is the same for all)."""
        if site in self.given:
            return self.given[site][:, column - self.first :]
        shape = tuple(value.shape[2:])
        return self.donor.constant(site, (column, self.length), shape, value.device)[None].to(value.dtype)
