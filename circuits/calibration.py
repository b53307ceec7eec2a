"""How fast this machine works on this model and these prompts, from a second or two of the real thing.

The one idea: time is a cost for each call and one for each FLOP, and what they are is read off a few patched rows of
the very workload, of early, middle and late layers and of whole circuits; so norms, softmaxes and copies, which no
FLOP counts, are in the price. Wall and processor time are fitted side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from scipy.optimize import nnls
from torch import Tensor

from circuits.batches import Batch
from circuits.donors import all_but_one, component_sites, resample_donor, zero_donor
from circuits.methods.method import Problem
from circuits.metrics import Metric
from circuits.model import Model
from circuits.patching import BaseRun, base_run
from circuits.readout import Readout
from circuits.work import ExactAccount, PortableAccount, Rehearsal, Work, account, full_pass, whole_passes

AT_ONCE = 0.2
"""Seconds that one timed piece may take, about."""

ENOUGH = 0.5
"""Seconds that one row may take, about, to be timed for itself."""

LONG = 10.0
"""Seconds from which a piece is told by one run."""

FEW_TOKENS = 64
"""Below these, products take the time that it takes to read a matrix."""

FEWEST_ROUNDS, MOST_ROUNDS, PATIENCE = 2, 5, 0.5
"""Runs of each piece; more than the fewest while all took less than these seconds."""

RANDOM_ROWS = 26
"""As many as a circuit is judged beside."""

FEW_PROMPTS = (1, 8)
"""Small batches: rows are often asked about a few prompts of a length, where calls cost more than products."""

PROBE_PASSES, PROBE_PROMPTS = 7, 2
"""What asking a model whether it can resume takes."""

CIRCUIT = 1 / 3
"""Share of the components that a circuit keeps, as a rule."""


@dataclass(frozen=True)
class Seconds:
    """wall: by the clock. cpu: of all threads of this process."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __mul__(self, times: int | float) -> Seconds:
        return Seconds(times * self.wall, times * self.cpu)


def timed(piece: Callable[[], object], device: torch.device) -> Seconds:
    """One run of `piece`, to its end on the device."""
    wall, cpu = time.perf_counter(), time.process_time()
    piece()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def typical(pieces: Sequence[Callable[[], object]], device: torch.device) -> list[Seconds]:
    """The median of a few runs of each piece, of fewer where they are long. They run in turns, so none finds its data
    warm in the caches, as little as in the work to come."""
    rounds: list[list[Seconds]] = []
    while len(rounds) < FEWEST_ROUNDS or (len(rounds) < MOST_ROUNDS and _spent(rounds) < PATIENCE):
        rounds.append([timed(piece, device) for piece in pieces])
    by_piece = zip(*rounds, strict=True)
    return [Seconds(median(run.wall for run in runs), median(run.cpu for run in runs)) for runs in by_piece]


def _spent(rounds: Sequence[Sequence[Seconds]]) -> float:
    return sum(run.wall for runs in rounds for run in runs)


@dataclass(frozen=True)
class Rate:
    """What a call costs, and what a FLOP."""

    call: Seconds
    flop: Seconds

    def seconds(self, calls: int, flops: int) -> Seconds:
        return self.call * calls + self.flop * flops


@dataclass(frozen=True)
class Sample:
    """A piece of work, what it counts, and how long it took."""

    work: Work
    seconds: Seconds

    @property
    def counts(self) -> tuple[int, int]:
        """Calls and FLOPs."""
        return self.work.calls + self.work.model_calls, self.work.all_flops


def fitted(samples: Sequence[Sample]) -> Rate:
    """The rate that is nearest to all samples, in shares of each, and below zero nowhere."""
    counts = np.array([sample.counts for sample in samples], dtype=float)
    wall, cpu = (
        _non_negative(counts, np.array([getattr(sample.seconds, kind) for sample in samples]))
        for kind in ("wall", "cpu")
    )
    return Rate(Seconds(wall[0], cpu[0]), Seconds(wall[1], cpu[1]))


def _non_negative(counts: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    shares = counts / np.maximum(seconds, 1e-9)[:, None]
    # FLOPs are many and calls few; the solver likes them of one size.
    sizes = np.maximum(shares.max(0), 1e-300)
    call, flop = nnls(shares / sizes, np.ones(len(seconds)))[0] / sizes
    return float(call), float(flop)


@dataclass
class Clock:
    """Tells how long work takes, stage by stage: what several stages rehearse is timed once, and what the model is
    asked but once is paid for by the first."""

    model: Model
    engine: Rate
    whole: Rate
    _known: dict[Callable[[], object], Seconds] = field(default_factory=dict)
    _probed: set[tuple[int, int]] = field(default_factory=set)

    def seconds(self, work: Work, rehearsals: Sequence[Rehearsal] = ()) -> Seconds:
        passes = self.engine.seconds(work.calls, work.flops)
        passes += self.whole.seconds(work.model_calls, work.model_flops)
        probing = (self._probing(length) for length, _ in work.probes - self._probed)
        passes = sum(probing, passes)
        self._probed |= work.probes
        return sum((self._rehearsed(one) for one in rehearsals), passes)

    def _probing(self, length: int) -> Seconds:
        """See circuits.engine.check.probe_resumption."""
        flops = PROBE_PASSES * PROBE_PROMPTS * full_pass(self.model, length).flops
        return self.whole.seconds(PROBE_PASSES, flops)

    def _rehearsed(self, rehearsal: Rehearsal) -> Seconds:
        """What happens at the first time only, such as imports, counts once; a long piece is run no second time."""
        piece, first = rehearsal.piece, Seconds()
        if piece not in self._known:
            once = timed(piece, self.model.device)
            again = once if once.wall > LONG else typical([piece], self.model.device)[0]
            self._known[piece] = again
            first = Seconds(max(0.0, once.wall - again.wall), max(0.0, once.cpu - again.cpu))
        return first + self._known[piece] * rehearsal.times


def calibrate(model: Model, problem: Problem) -> Clock:
    """Times pieces of the workload on the largest batch."""
    batch = max(problem.batches, key=lambda b: b.clean.numel())
    whole, rows = list(_whole_pieces(model, batch)), list(_row_pieces(model, batch, problem.metric))
    seconds = typical([piece.run for piece in (*whole, *rows)], model.device)
    samples = [Sample(piece.work, took) for piece, took in zip((*whole, *rows), seconds, strict=True)]
    of_model = samples if model.weights is None else samples[: len(whole)]
    return Clock(model, fitted(samples[len(whole) :]), fitted(of_model))


class _Piece(NamedTuple):
    work: Work
    run: Callable[[], object]


def _whole_pieces(model: Model, batch: Batch) -> Iterator[_Piece]:
    """The model's own forward pass: of a prompt, and of as many as the time allows."""

    def piece(n: int) -> _Piece:
        tokens, sites = batch.clean[:n], component_sites(model.graph)
        return _Piece(whole_passes(model, *tokens.shape), lambda: model.run(tokens, capture=sites))

    many = _as_many(lambda n: piece(n).run, _few_prompts(batch), len(batch), model.device)
    yield from map(piece, sorted({1, many}))


def _row_pieces(model: Model, batch: Batch, metric: Metric) -> Iterator[_Piece]:
    """Base runs; rows of many kinds, as many as the time allows; and the same kinds one at a time, on few prompts."""

    @cache  # rows of all kinds share base runs
    def base(n: int, resample: bool) -> _Base:
        return _Base.of(model, batch.until(n), metric, resample)

    n = _as_many(lambda n: _making(model, batch.until(n)).run, _few_prompts(batch), len(batch), model.device)
    making = _making(model, batch.until(n))
    yield making
    flops = ENOUGH * making.work.all_flops / timed(making.run, model.device).wall
    for kind in _kinds(model):
        # Where few prompts are affordable, more rows make products as large as those to come.
        many = kind.keep.repeat(-(-len(batch) // n), 1)
        some = base(n, kind.resample)
        yield some.rows(
            kind, many[: _as_many(partial(some.measuring, kind, many), 1, len(many), model.device)]
        )
        for few in sorted({min(n, len(batch)) for n in FEW_PROMPTS}):
            piece = base(few, kind.resample).rows(kind, kind.keep[:1])
            if few == 1 or piece.work.all_flops < flops:
                yield piece


def _making(model: Model, batch: Batch) -> _Piece:
    donor = resample_donor(batch.corrupt)
    return _Piece(account(model, batch.clean, donor).begun, lambda: base_run(model, batch.clean, donor))


def _few_prompts(batch: Batch) -> int:
    """As many as make products of some size: with fewer, a call costs the same."""
    return -(-FEW_TOKENS // batch.clean.shape[1])


def _as_many(
    piece: Callable[[int], Callable[[], object]], start: int, most: int, device: torch.device
) -> int:
    """How many of something can be done at once within the time: doubled from `start` on, up to `most`."""
    n = min(start, most)
    while n < most and min(timed(piece(n), device).wall for _ in range(2)) < AT_ONCE / 2:
        n = min(2 * n, most)
    return n


@dataclass(frozen=True)
class _Kind:
    """Rows of one kind. resample: whether outputs come from the corrupt prompts; masked: at one position alone."""

    keep: Bool[Tensor, "row component"]
    resample: bool = True
    masked: bool = False

    def where(self, batch: Batch) -> Bool[Tensor, "prompt pos"] | None:
        """The middle of the columns that can change anything."""
        length = batch.clean.shape[1]
        position = (batch.pairs[0].first_difference + length) // 2
        columns = torch.arange(length, device=batch.clean.device) == min(position, length - 1)
        return columns.expand(len(batch), -1) if self.masked else None


@dataclass(frozen=True)
class _Base:
    """A base run and its account."""

    batch: Batch
    metric: Metric
    run: BaseRun
    counted: ExactAccount | PortableAccount

    @classmethod
    def of(cls, model: Model, batch: Batch, metric: Metric, resample: bool) -> _Base:
        donor = resample_donor(batch.corrupt) if resample else zero_donor()
        return cls(batch, metric, base_run(model, batch.clean, donor), account(model, batch.clean, donor))

    def measuring(self, kind: _Kind, keep: Bool[Tensor, "row component"], n: int) -> Callable[[], object]:
        """The first n rows."""
        where = kind.where(self.batch)
        return lambda: self.run.measure(keep[:n], Readout(self.batch, self.metric), where)

    def rows(self, kind: _Kind, keep: Bool[Tensor, "row component"]) -> _Piece:
        work = self.counted.measure(keep, Readout(self.batch, self.metric), kind.where(self.batch))
        return _Piece(work, self.measuring(kind, keep, len(keep)))


def _kinds(model: Model) -> Iterator[_Kind]:
    """One component of an early, a middle or a late layer, and of the first two at one position; random circuits."""
    graph = model.graph
    early, middle, late = (
        all_but_one(graph, [c for c in graph.components if graph.node(c).layer == layer])
        for layer in (0, graph.n_layers // 2, graph.n_layers - 1)
    )
    yield from (
        _Kind(early),
        _Kind(middle),
        _Kind(late),
        _Kind(early, masked=True),
        _Kind(middle, masked=True),
    )
    generator = torch.Generator().manual_seed(0)
    circuits = torch.rand(RANDOM_ROWS, len(graph.components), generator=generator) < CIRCUIT
    yield from (_Kind(circuits), _Kind(circuits, resample=False))
