"""What patching will cost: the calls of circuits.patching, answered with work instead of outcomes.

The one idea: an account takes the tokens, donors and keep-masks that a base run takes, and counts what that would
compute; so a method states its work in the words in which it does it, and nothing has to run. See
circuits.engine.footprint for the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from circuits.batches import Batch
from circuits.donors import Donor, first_difference, starts
from circuits.engine.footprint import Columns, Footprint, portable_held_bytes, portable_row_bytes
from circuits.engine.weights import Weights
from circuits.memory import in_chunks
from circuits.model import Model
from circuits.patching import engine_weights
from circuits.readout import Readout


@dataclass(frozen=True)
class Work:
    """Work that adds up.

    rows: patched rows. passes: prompts run forward, patched or not; a tool that shares nothing runs each in full.
    flops, calls: of the exact engine, matrix products and layers (of any number of rows; reading the answers is one
    more). model_flops, model_calls: of the model's own forward pass. bytes: the most that is held at once, on top of
    the model. probes: (length, column) at which the model is asked whether it can resume, once for all work.
    """

    rows: int = 0
    passes: int = 0
    flops: int = 0
    calls: int = 0
    model_flops: int = 0
    model_calls: int = 0
    bytes: int = 0
    probes: frozenset[tuple[int, int]] = frozenset()

    @property
    def all_flops(self) -> int:
        return self.flops + self.model_flops

    def __add__(self, other: Work) -> Work:
        return Work(
            self.rows + other.rows,
            self.passes + other.passes,
            self.flops + other.flops,
            self.calls + other.calls,
            self.model_flops + other.model_flops,
            self.model_calls + other.model_calls,
            max(self.bytes, other.bytes),
            self.probes | other.probes,
        )

    def __mul__(self, times: int) -> Work:
        """The same done `times` times, one after another."""
        return Work(
            times * self.rows,
            times * self.passes,
            times * self.flops,
            times * self.calls,
            times * self.model_flops,
            times * self.model_calls,
            self.bytes,
            self.probes,
        )


@dataclass(frozen=True)
class Rehearsal:
    """Work that no count of forward passes tells: a short piece of it, and how many such pieces it is."""

    piece: Callable[[], object]
    times: int | float


class Workload(NamedTuple):
    """What a method is going to do. components, unit, positions: of its scores, see circuits.scores."""

    components: tuple[str, ...]
    work: Work
    rehearsals: tuple[Rehearsal, ...] = ()
    unit: str = "prompt"
    positions: tuple[str, ...] = ()


def account(model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor) -> ExactAccount | PortableAccount:
    """The account of circuits.patching.base_run for the same arguments; a donor's means are not looked at."""
    weights, (n_prompts, length) = engine_weights(model, tokens.shape[1]), tokens.shape
    if weights is None:
        return PortableAccount(model, tokens, donor)
    first = min(first_difference(tokens, donor), length - 1)
    shape = Footprint(weights, n_prompts, length, first, resamples=donor.tokens is not None)
    return ExactAccount(shape, shape.room(model.memory, model.device))


@dataclass(frozen=True)
class ExactAccount:
    """Of circuits.engine.exact.ExactRun. memory: what its base run and rows may take."""

    footprint: Footprint
    memory: int

    @property
    def weights(self) -> Weights:
        return self.footprint.weights

    @property
    def begun(self) -> Work:
        runs = 1 + self.footprint.resamples
        return Work(
            passes=runs * self.footprint.n_prompts,
            flops=self.footprint.base_flops,
            calls=runs * len(self.weights.layers),
            bytes=self.footprint.making_bytes,
        )

    def unpatched(self, readout: Readout) -> Work:
        return Work(flops=self._reading(1, readout), calls=1)

    def measure(
        self,
        keep: Bool[Tensor, "row component"],
        readout: Readout,
        where: Bool[Tensor, "prompt pos"] | None = None,
    ) -> Work:
        by_layer = keep.view(len(keep), len(self.weights.layers), self.weights.n_heads + 1)
        total = Work(rows=len(keep), passes=len(keep) * self.footprint.n_prompts)
        for rows, layer, kind in starts(by_layer):
            columns = self.footprint.columns(layer, where)
            if kind == "none" or columns[0] >= columns[1]:
                total += self.unpatched(readout)
            else:
                total += self._rows(by_layer[rows], layer, kind, columns, readout, where is not None)
        return total

    def _rows(
        self,
        keep: Bool[Tensor, "row layer unit"],
        layer: int,
        kind: str,
        columns: Columns,
        readout: Readout,
        masked: bool,
    ) -> Work:
        shape, n_columns = self.footprint, self.footprint.length - columns[0]
        n_logits = self.weights.vocab_size if readout.reads_vocabulary else 0

        def work(rows: slice) -> Work:
            some = keep[rows]
            return Work(
                flops=shape.rows_flops(some, layer, kind, columns, masked=masked)
                + self._reading(len(some), readout),
                calls=len(self.weights.layers) - layer + 1,
                bytes=shape.held_bytes + shape.rows_bytes(len(some), n_columns, n_logits),
            )

        return total(in_chunks(len(keep), shape.rows_at_once(n_columns, self.memory, n_logits), work))

    def _reading(self, n_rows: int, readout: Readout) -> int:
        n = self.weights.vocab_size if readout.reads_vocabulary else len(readout.tokens)
        return self.footprint.logits_flops(n_rows, n)


class PortableAccount:
    """Of circuits.engine.portable.PortableRun: asks the model what it may leave out, as that does."""

    def __init__(self, model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor) -> None:
        self.model, (self.n_prompts, self.length) = model, tokens.shape
        first = min(first_difference(tokens, donor), self.length - 1)
        self.probes = frozenset({(self.length, first)})
        self.first = first if model.resumption(self.length, first).columns else 0
        self._past = 0
        self.begun = total([self._passes(1, self.first) for _ in range(2 if donor.tokens is not None else 1)])

    def _passes(self, n_rows: int, column: int, layer: int = 0) -> Work:
        """Rows from `column` on and from `layer` up, and before them, where it is not at hand, what lies before."""
        whole, n_layers = full_pass(self.model, self.length), self.model.graph.n_layers
        blocks, n = whole.flops - 2 * self.model.d_model * whole.n_logits, n_rows * self.n_prompts
        before, self._past = column not in (0, self._past), column or self._past
        columns = self.n_prompts * column * before + n * (self.length - column) * (1 - layer / n_layers)
        row = portable_row_bytes(self.model, self.n_prompts, self.length, column, whole.n_logits)
        return Work(
            passes=n,
            model_flops=int(blocks * columns / self.length) + n * (whole.flops - blocks),
            model_calls=1 + before,
            bytes=portable_held_bytes(self.model, self.n_prompts, self.length, self.first) + n_rows * row,
            probes=self.probes,
        )

    def unpatched(self, readout: Readout) -> Work:
        return Work()

    def measure(
        self,
        keep: Bool[Tensor, "row component"],
        readout: Readout,
        where: Bool[Tensor, "prompt pos"] | None = None,
    ) -> Work:
        graph, inside = self.model.graph, [self.first]
        if where is not None:
            inside = where[:, self.first :].any(0).nonzero()[:, 0].add(self.first).tolist()
        groups = starts(keep.view(len(keep), graph.n_layers, graph.n_heads + 1)) if inside else []
        parts = [self._rows(len(rows), layer, inside[0]) for rows, layer, kind in groups if kind != "none"]
        return replace(total(parts), rows=len(keep), passes=len(keep) * self.n_prompts)

    def _rows(self, n_rows: int, layer: int, first: int) -> Work:
        self.probes |= {(self.length, first)}
        column = first if self.model.resumption(self.length, first).columns else self.first
        layer = layer if self.model.resumption(self.length, column).layers else 0
        n_logits = full_pass(self.model, self.length).n_logits
        held = portable_held_bytes(self.model, self.n_prompts, self.length, self.first)
        row = portable_row_bytes(self.model, self.n_prompts, self.length, column, n_logits)

        def work(rows: slice) -> Work:
            return self._passes(rows.stop - rows.start, column, layer)

        return total(in_chunks(n_rows, max(1, (self.model.memory - held) // row), work))


def total(parts: Sequence[Work]) -> Work:
    return sum(parts, Work())


def whole_passes(model: Model, n_prompts: int, length: int) -> Work:
    """The model's own forward pass on `n_prompts` prompts, all that components put out kept."""
    whole = full_pass(model, length)
    return Work(
        passes=n_prompts,
        model_flops=n_prompts * whole.flops,
        model_calls=1,
        bytes=portable_held_bytes(model, n_prompts, length, 0)
        + portable_row_bytes(model, n_prompts, length, 0, whole.n_logits),
    )


def batch_passes(model: Model, batches: Sequence[Batch], times: int = 1) -> Work:
    """A whole pass over every batch, `times` times."""
    return total([whole_passes(model, len(batch), batch.clean.shape[1]) for batch in batches]) * times


class FullPass(NamedTuple):
    """A forward pass of one prompt, with logits behind its last token."""

    flops: int
    n_logits: int


_COUNTED: WeakKeyDictionary[Model, dict[int, FullPass]] = WeakKeyDictionary()


def full_pass(model: Model, length: int) -> FullPass:
    """From shapes where the engine knows the model, else counted while one such prompt runs."""
    if model.weights is not None:
        whole, n_logits = Footprint(model.weights, 1, length, 0, resamples=False), model.weights.vocab_size
        return FullPass(whole.base_flops + whole.logits_flops(1, n_logits), n_logits)
    known = _COUNTED.setdefault(model, {})
    if length not in known:
        with FlopCounterMode(display=False) as counter:
            run = model.run(torch.zeros(1, length, dtype=torch.long, device=model.device))
        known[length] = FullPass(counter.get_total_flops(), run.logits.shape[-1])
    return known[length]
