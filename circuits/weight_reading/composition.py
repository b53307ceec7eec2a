"""Composition: how well what an earlier head writes lands on what a later head reads, by the weights alone.

The one idea: the score of two matrices is ||AB|| / (||A|| ||B||) (Frobenius), A the earlier head's OV, B what the
later one reads through: QK for its query (q), QK transposed for its key (k), OV for its value (v). Split A into its
singular components, A = sum_i s_i u_i v_i; then that of component i is ||v_i B|| / ||B||, whatever s_i and u_i, and
    score(A, B)^2 = sum_i s_i^2 score_i^2 / sum_i s_i^2.
A random direction scores sqrt(1 / d). Scores are sizes, from 0 to 1: they know no sign, no task and no prompt.
Source: Elhage et al. 2021 (composition scores); Merullo et al. 2024 (Talking Heads, arXiv 2406.09519) for components.
Cost: no forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.weights import Weights
from circuits.graph import Graph
from circuits.weight_reading.heads import Thin, read_ov, read_qk, thin

MODES = ("q", "k", "v")
DRAWS = 10
NEAR = 1e-2
"""Relative gap of singular values under which the two directions are arbitrary in the plane that they span."""

NOTHING = 1e-6
"""Share of the largest singular value under which a component writes nothing but rounding errors, and scores 0."""


@dataclass(frozen=True)
class Chance:
    """What Gaussian heads of the same shape reach: mean and largest over the pairs of two layers, DRAWS times.

    whole: of whole heads; best: of the best component of a head; component: of one.
    """

    n_pairs: int
    whole_mean: float
    whole_max: float
    best_mean: float
    best_max: float
    component_mean: float


@dataclass(frozen=True)
class Link:
    """An earlier head's component, and an input of a later head.

    z: how far the component stands out of the head's other ones, in their standard deviations. share: of the head's
    squared singular values. near: its singular value has a neighbour within NEAR, so its direction is arbitrary.
    peers: mean over pairs of heads as many layers apart, of their best components, by the same input.
    """

    source: str
    component: int
    target: str
    mode: str
    score: float
    whole: float
    z: float
    share: float
    near: bool
    peers: float


@dataclass(frozen=True)
class Composition:
    """Scores of all pairs in which the source writes before the target reads; NaN elsewhere.

    sizes: singular values of each source's OV.
    """

    heads: tuple[str, ...]
    modes: tuple[str, ...]
    sizes: Float[np.ndarray, "source component"]
    parts: Float[np.ndarray, "source component target mode"]
    layers: tuple[int, ...]
    chance: Chance

    @property
    def whole(self) -> Float[np.ndarray, "source target mode"]:
        return np.asarray(np.sqrt(np.einsum("sc,sctm->stm", self.shares, self.parts**2)))

    @property
    def shares(self) -> Float[np.ndarray, "source component"]:
        """Of each component in its head's squared singular values."""
        squares = self.sizes**2
        return np.asarray(squares / np.maximum(squares.sum(1, keepdims=True), np.finfo(float).tiny))

    @property
    def best(self) -> Float[np.ndarray, "source target mode"]:
        """Of each head's best component."""
        return np.asarray(self.parts.max(1))

    def peers(self) -> dict[tuple[str, int], float]:
        """Mean best component by input and number of layers between the two."""
        apart = np.subtract.outer(self.layers, self.layers).T
        return {
            (mode, distance): float(self.best[apart == distance][:, m].mean())
            for m, mode in enumerate(self.modes)
            for distance in range(1, max(self.layers) + 1)
        }

    def links(self, wanted: Sequence[str] = (), modes: Sequence[str] = ()) -> Iterator[Link]:
        """The best component of every pair and input, highest score first. wanted: either head is one of these."""
        best, whole, z = self.best, self.whole, _stands_out(self.parts)
        near, share = _near(self.sizes), self.shares
        peers = self.peers()
        order = np.argsort(-np.nan_to_num(best, nan=-1.0), axis=None, kind="stable")
        for source, target, m in zip(*np.unravel_index(order, best.shape), strict=True):
            if np.isnan(best[source, target, m]):
                return
            pair, mode = {self.heads[source], self.heads[target]}, self.modes[m]
            if (wanted and not pair & set(wanted)) or (modes and mode not in modes):
                continue
            i = int(self.parts[source, :, target, m].argmax())
            yield Link(
                self.heads[source],
                i,
                self.heads[target],
                mode,
                float(best[source, target, m]),
                float(whole[source, target, m]),
                float(z[source, i, target, m]),
                float(share[source, i]),
                bool(near[source, i]),
                peers[mode, self.layers[target] - self.layers[source]],
            )


def _stands_out(parts: Float[np.ndarray, "source component target mode"]) -> Float[np.ndarray, "..."]:
    """Each score against the others of its head, which it is not itself among."""
    n = parts.shape[1]
    if n < 3:
        return np.full_like(parts, np.nan)
    rest = (parts.sum(1, keepdims=True) - parts) / (n - 1)
    squares = ((parts**2).sum(1, keepdims=True) - parts**2) / (n - 1)
    spread = np.sqrt(np.maximum(squares - rest**2, 1e-24) * (n - 1) / (n - 2))
    return np.asarray((parts - rest) / spread)


def _near(sizes: Float[np.ndarray, "source component"]) -> np.ndarray:
    gap = -np.diff(sizes, axis=1) / np.maximum(sizes[:, :-1], np.finfo(float).tiny)
    close = np.pad(gap < NEAR, ((0, 0), (1, 1)))
    return np.asarray(close[:, :-1] | close[:, 1:])


def composition(weights: Weights, graph: Graph, seed: int = 0) -> Composition:
    """Scores of all heads of a model. No forward pass; memory for one number a component, later head and input."""
    writers = [read_ov(weights, depth) for depth in range(graph.n_layers)]
    keys = [read_qk(weights, depth) for depth in range(graph.n_layers)]
    modes = MODES if all(key is not None for key in keys) else ("v",)
    heads, n_heads = graph.heads, graph.n_heads
    parts = np.full((len(heads), writers[0].size.shape[1], len(heads), len(modes)), np.nan)
    for later, (ov, qk) in enumerate(zip(writers, keys, strict=True)):
        reads = [ov] if qk is None or len(modes) == 1 else [qk, qk.transposed, ov]
        for earlier in range(later):
            here = slice(earlier * n_heads, (earlier + 1) * n_heads)
            there = slice(later * n_heads, (later + 1) * n_heads)
            for m, read in enumerate(reads):
                parts[here, :, there, m] = scores(writers[earlier], read).cpu().numpy()
    sizes = torch.cat([ov.size for ov in writers]).cpu().numpy()
    layers = tuple(graph.node(head).layer for head in heads)
    return Composition(heads, modes, sizes, parts, layers, chance(weights, seed))


def scores(writer: Thin, reader: Thin) -> Float[Tensor, "source component target"]:
    """||v_i B|| / ||B|| for every component of every writing head; 0 where either is nothing."""
    reads, writes = reader.left * reader.size[:, None], writer.size > NOTHING * writer.size[:, :1]
    landed = torch.einsum("sim,tmj->sitj", writer.right, reads).pow(2).sum(-1).sqrt()
    found = landed / reader.norm.clamp_min(torch.finfo(reads.dtype).tiny)
    return found * writes[..., None]


def chance(weights: Weights, seed: int, draws: int = DRAWS) -> Chance:
    """Scores of two layers of heads whose factors are Gaussian, of the model's shape."""
    generator = torch.Generator().manual_seed(seed)
    parts, whole = [], []
    for _ in range(draws):
        writer, reader = (_random_layer(weights, generator) for _ in range(2))
        part = scores(writer, reader)
        share = (writer.size**2 / writer.norm[:, None] ** 2)[..., None]
        parts.append(part)
        whole.append((share * part**2).sum(1).sqrt())
    each, all_ = torch.stack(parts), torch.stack(whole)
    best = each.amax(2)
    return Chance(
        all_.numel(),
        *(float(x) for x in (all_.mean(), all_.max(), best.mean(), best.max(), each.mean())),
    )


def _random_layer(weights: Weights, generator: torch.Generator) -> Thin:
    shape = (2, weights.n_heads, weights.d_model, weights.d_head)
    a, b = torch.randn(shape, generator=generator, dtype=torch.float64)
    if weights.final_norm.centres:
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return thin(a, b.mT)
