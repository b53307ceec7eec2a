"""Exact path patches: a sender's change reaches some readers through nothing but MLPs, and the answer through them.

The one idea: with all heads frozen, what a sender's change makes of the residual stream is a sum that only MLPs add
to; so each receiver's input is the base run's stream plus that, and from the first receiver on the run goes as it
pleases, with every receiver reading the input that was worked out for it, and not what other receivers make of it.
Sources: Wang et al. 2022 (arXiv 2211.00593), section 3.1 and appendix B; Merullo et al. 2023 (arXiv 2310.08744).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.engine.cuts import Rows
from circuits.engine.edges import Changes, Climb, EdgeRun, Inputs, stage_of
from circuits.engine.exact import ExactRun
from circuits.engine.forward import mlp
from circuits.graph import Graph
from circuits.memory import in_chunks
from circuits.readout import Outcome, Readout, concatenate, reordered

Where = Bool[Tensor, "prompt pos"] | None
"""Positions at which senders are patched; None: all."""

Streams = Mapping[int, Float[Tensor, "row prompt column d_model"]]
"""What is added to the stream that is read at a stage, over its last columns."""


class PathRun:
    """Rows of one sender each, on the base run and donor of an ExactRun."""

    def __init__(self, run: ExactRun, graph: Graph, receivers: Sequence[str], *, freeze_mlps: bool) -> None:
        """receivers: readers, see Graph.readers. freeze_mlps: paths pass through no MLP."""
        self.run, self.graph, self.freeze_mlps = run, graph, freeze_mlps
        self.receivers = {reader: stage_of(graph.node(reader.split("<")[0])) for reader in receivers}
        self.edges = EdgeRun(run, graph)

    def measure(self, senders: Sequence[str], readout: Readout, where: Where = None) -> Outcome:
        """Every sender (heads and MLPs) on every prompt: [sender, prompt]."""
        groups: dict[int, list[int]] = {}
        for row, sender in enumerate(senders):
            groups.setdefault(stage_of(self.graph.node(sender)), []).append(row)
        order = [row for rows in groups.values() for row in rows]
        with torch.inference_mode():
            parts = [
                part
                for rows in groups.values()
                for part in self._rows([senders[i] for i in rows], readout, where)
            ]
        return reordered(concatenate(parts, 0), (torch.tensor(order).argsort(),))

    def _rows(self, senders: list[str], readout: Readout, where: Where) -> list[Outcome]:
        """Senders that write at one stage, and so feed the same receivers."""
        fed = {r: at for r, at in self.receivers.items() if self.graph.feeds(senders[0], r.split("<")[0])}
        if not fed:
            return [reordered(self.run.unpatched(readout), (torch.zeros(len(senders), dtype=torch.long),))]

        def work(rows: slice) -> Outcome:
            streams = self.streams(senders[rows], where)
            final = _PathClimb(self.edges, fed, streams).final(self._nothing_cut(len(senders[rows])))
            return readout.of_residual(self.run.weights, final)

        n_logits = self.run.weights.vocab_size if readout.reads_vocabulary else 0
        # A row holds the streams that receivers read beside its own.
        at_once = self.run.rows_at_once(self.run.length - self.run.first, n_logits) // (
            1 + len(set(fed.values()))
        )
        return in_chunks(len(senders), at_once, work)

    def _nothing_cut(self, n_rows: int) -> Rows:
        return Rows(torch.zeros(n_rows, *self.edges.legal.shape, dtype=torch.bool), self.edges.legal)

    def streams(self, senders: Sequence[str], where: Where = None) -> Streams:
        """What the senders' change adds to the stream at every stage that they feed, all heads frozen."""
        node, run = self.graph.node(senders[0]), self.run
        delta = self._written(
            [self.graph.node(sender).index for sender in senders], node.layer, node.kind, where
        )
        found, last = {}, self.graph.n_layers - 1
        for depth in range(node.layer, self.graph.n_layers):
            if depth > node.layer:
                found[2 * depth] = delta
            if not self.graph.feeds(senders[0], f"m{depth}"):
                continue
            # Only the last column of the last layer reaches the answer.
            delta = delta[:, :, -1:] if depth == last else delta
            found[2 * depth + 1] = delta
            if not self.freeze_mlps:
                own = (run.base.before if run.weights.parallel else run.base.between)[depth]
                own, wrote = (part[None, :, -delta.shape[2] :] for part in (own, run.base.mlp(depth)))
                delta = delta + mlp(run.weights.layers[depth], own + delta) - wrote
        return found | {2 * self.graph.n_layers: delta[:, :, -1:]}

    def _written(
        self, heads: list[int], layer: int, kind: str, where: Where
    ) -> Float[Tensor, "row prompt column d_model"]:
        """Donor minus own of what each sender writes, one a row."""
        run, columns = self.run, (self.run.first, self.run.length)
        if kind == "mlp":
            return run.change("mlp", layer, columns, where)[None]
        index = torch.tensor(heads, device=run.tokens.device)
        change = run.change("z", layer, columns, where)[..., index, :]
        return run.written(layer, change, index, torch.eye(len(heads), dtype=torch.bool))


class _PathClimb(Climb):
    """A climb whose receivers read the base run's stream and what was added to it."""

    def __init__(self, edges: EdgeRun, receivers: Mapping[str, int], streams: Streams) -> None:
        nothing = torch.zeros(len(edges.graph.sources), dtype=torch.bool)
        super().__init__(edges, slice(None), min(receivers.values()) // 2, nothing)
        self.receivers, self.streams = receivers, streams

    def inputs(self, some: Rows, readers: list[str], x: Tensor, changes: list[Changes]) -> Inputs:
        at = [i for i, reader in enumerate(readers) if reader in self.receivers]
        which = torch.tensor(at, dtype=torch.long).repeat_interleave(len(some))
        rows = torch.arange(len(some)).repeat(len(at))
        if not at:
            return Inputs(len(some), which, rows, x[:0])
        stage = self.receivers[readers[at[0]]]
        added = self.streams[stage][:, :, -x.shape[2] :]
        read = self._base_stream(stage)[None, :, -x.shape[2] :] + added
        return Inputs(len(some), which, rows, read.repeat(len(at), 1, 1, 1))

    def _base_stream(self, stage: int) -> Float[Tensor, "prompt column d_model"]:
        depth, behind_heads = divmod(stage, 2)
        return (
            self.base.between[depth]
            if behind_heads and not self.weights.parallel
            else self.base.residual(depth)
        )
