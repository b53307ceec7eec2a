"""Exact patches of what components read: queries, keys, values and pattern of each head, and the residual stream.

The one idea: heads do not see each other within a layer, so one pass of attention with the donor's queries gives
what every head of the layer would put out with its own query replaced; each is a row that adds its head's change
to the stream behind attention and climbs from there. Queries and keys are taken behind rotation. Under
grouped-query attention a key or value belongs to a group, named by its first head (circuits.graph).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.engine.exact import ExactRun
from circuits.engine.forward import Attention, Trace, climb, trace
from circuits.engine.weights import Weights
from circuits.graph import Graph
from circuits.memory import in_chunks
from circuits.readout import Outcome, Readout, concatenate

HEAD_PARTS = ("q", "k", "v", "pattern")

Where = Bool[Tensor, "prompt pos"] | None
"""At which positions, of queries and patterns or of keys and values; None: all."""


class LayerInputs:
    """What the heads of one layer read in two runs of the same prompts, over their last columns.

    q [1, prompt, query, head, d_head]; k, v [1, prompt, source, kv_head, d_head], all columns; own and given.
    """

    def __init__(self, weights: Weights, layer: int, own: Trace, given: Trace) -> None:
        length = own.attention[layer].keys.shape[2]
        rotation = weights.rotation(length) if weights.rotation else None
        self.attention, self.n_queries = Attention(weights, layer, rotation), own.z[layer].shape[1]
        first = length - self.n_queries

        def queries(run: Trace) -> Tensor:
            x = run.before[layer][:, -self.n_queries :]
            return self.attention.queries(self.attention.layer.attention_norm(x)[None], first)

        self.q, self.given_q = queries(own), queries(given)
        (self.k, self.v), (self.given_k, self.given_v) = (
            (part.transpose(1, 2)[None] for part in (run.attention[layer].keys, run.attention[layer].values))
            for run in (own, given)
        )

    def scores(self) -> Float[Tensor, "prompt kv_head 1 query source"]:
        return self.attention.scores(self.q, self.k, None)

    def pattern(self, kind: str = "", where: Where = None) -> Float[Tensor, "prompt kv_head 1 query source"]:
        """Softmax with the donor's "q" or "k", with both ("pattern"), or with none of them."""
        q = _mixed(self.q, self.given_q, where) if kind == "q" else self.q
        k = _mixed(self.k, self.given_k, where) if kind == "k" else self.k
        own = self.attention.pattern(q, k, None)
        if kind != "pattern":
            return own
        given = self.attention.pattern(self.given_q, self.given_k, None)
        if where is None:
            return given
        inside = where[:, -self.n_queries :].repeat_interleave(own.shape[3] // self.n_queries, 1)
        return torch.where(inside[:, None, None, :, None], given, own)

    def z(self, kind: str, where: Where = None) -> Float[Tensor, "prompt query head d_head"]:
        """What every head puts out with its own input of this kind replaced."""
        v = _mixed(self.v, self.given_v, where) if kind == "v" else self.v
        return self.attention.mix(self.pattern(kind, where), v, None)[0]


def _mixed(own: Tensor, given: Tensor, where: Where) -> Tensor:
    """The donor's at the columns of `where`, of which own and given hold the last."""
    if where is None:
        return given
    return torch.where(where[None, :, -own.shape[2] :, None, None], given, own)


class InputPatches:
    """Rows beside those of an ExactRun with donor tokens: one for each of part_names, in that order."""

    def __init__(self, run: ExactRun) -> None:
        assert run.donor.tokens is not None, "means and zeros have no queries, keys and values"
        self.run, self.weights = run, run.weights
        with torch.inference_mode():
            changed = self.weights.embed(run.donor.tokens)[:, run.first :]
            self.given = trace(self.weights, changed, behind=run.base)

    def measure(self, readout: Readout, where: Where = None) -> Outcome:
        with torch.inference_mode():
            rows: list[Outcome] = []
            for layer in range(len(self.weights.layers)):
                rows.append(self._stream(layer, readout, where))
                rows += self._heads(layer, readout, where)
            return concatenate(rows, 0)

    def _stream(self, layer: int, readout: Readout, where: Where) -> Outcome:
        own, given = self.run.base.before[layer], self.given.before[layer]
        x = given if where is None else torch.where(where[:, self.run.first :, None], given, own)
        final = climb(self.weights, self.run.base, layer, x[None], self.run.first)
        return readout.of_residual(self.weights, final)

    def _heads(self, layer: int, readout: Readout, where: Where) -> Iterator[Outcome]:
        """Every input of every head, one kind at a time."""
        weights, run = self.weights, self.run
        inputs = LayerInputs(weights, layer, run.base, self.given)
        columns = (run.length - 1 if layer + 1 == len(weights.layers) else run.first, run.length)
        heads = torch.arange(weights.n_heads, device=run.tokens.device)
        for kind in HEAD_PARTS:
            change = (inputs.z(kind, where) - run.base.z[layer])[:, columns[0] - run.first :]
            n_rows = weights.n_kv_heads if kind in ("k", "v") else weights.n_heads
            leaves = torch.eye(n_rows, dtype=torch.bool).repeat_interleave(weights.n_heads // n_rows, 1)

            def work(rows: slice, change: Tensor = change, leaves: Tensor = leaves) -> Outcome:
                delta = run.written(layer, change, heads, leaves[rows])
                keep = torch.ones(len(delta), dtype=torch.bool)
                x = run.behind_attention(delta, keep, layer, columns)
                return readout.of_residual(weights, climb(weights, run.base, layer + 1, x, columns[0]))

            yield from in_chunks(n_rows, run.rows_at_once(run.length - run.first), work)


def part_names(graph: Graph) -> tuple[str, ...]:
    """resid3: the residual stream before layer 3, so resid0 is the embedding; then a3.h0<q> and its kin."""
    layers = range(graph.n_layers)
    return tuple(name for n in layers for name in (f"resid{n}", *head_part_names(graph, n)))


def head_part_names(graph: Graph, layer: int) -> tuple[str, ...]:
    """Kind by kind; k and v of a group once."""
    group = graph.n_heads // graph.n_kv_heads
    heads = {kind: range(0, graph.n_heads, group if kind in ("k", "v") else 1) for kind in HEAD_PARTS}
    return tuple(f"a{layer}.h{head}<{kind}>" for kind in HEAD_PARTS for head in heads[kind])
