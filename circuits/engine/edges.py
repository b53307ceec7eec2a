"""Exact edge patches: any set of edges cut in each row, as a delta on what each reader reads.

The one idea: every reader (q, k or v of a head, an MLP, the logits) reads the residual stream, and the stream is the
sum of what all sources wrote. Where an edge is cut, the reader gets what the donor's source writes in place of what
this row's own wrote; so its input is the row's stream plus (donor - own) of every source that is cut for it, one
product of a 0/1 mask and those differences. Where most are cut it is the donor's stream plus (own - donor) of the
others, and where all are cut the donor's own reading, worked out once for all rows. Readers without a cut read the
stream as it is, rows begin at the layer of their first cut, and columns before clean and donor tokens differ are the
base run's. Exact for any mask: one forward pass a row and that product, less for small circuits.
Sources: path patching between nodes as in Wang et al. 2022 (IOI) and Conmy et al. 2023 (ACDC, arXiv 2304.14997).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.engine.cuts import Cut, Rows, legal_edges
from circuits.engine.exact import ExactRun
from circuits.engine.forward import Attention, mlp
from circuits.engine.weights import Affine
from circuits.graph import LOGITS, Graph, Node
from circuits.memory import in_chunks
from circuits.model import Site
from circuits.readout import Outcome, Readout, concatenate, reordered

FLOAT = 4


class EdgeRun:
    """Rows of cut edges on the base run and donor of an ExactRun."""

    def __init__(self, run: ExactRun, graph: Graph) -> None:
        self.run, self.graph, self.weights = run, graph, run.weights
        self.legal = legal_edges(graph)
        # A row that enters at an MLP keeps the heads beside it.
        self.stage_of_reader = torch.tensor([stage_of(graph.node(r.split("<")[0])) for r in graph.readers])

    def unpatched(self, readout: Readout) -> Outcome:
        """One row: nothing cut."""
        return self.run.unpatched(readout)

    def measure(self, cut: Cut, readout: Readout) -> Outcome:
        """Every row of `cut` on every prompt: [row, prompt]."""
        order, parts = [], []
        with torch.inference_mode():
            for stage, rows in self._starts(cut):
                order += rows
                parts.append(self._rows(cut[rows], stage // 2, readout))
        return reordered(concatenate(parts, 0), (torch.tensor(order).argsort(),))

    def _starts(self, cut: Cut) -> list[tuple[int, list[int]]]:
        """Rows by the stage of their first cut; behind the logits where they have none."""
        never = 2 * self.graph.n_layers + 2
        firsts = torch.where(cut.any(1), self.stage_of_reader, never).amin(1).tolist()
        groups: dict[int, list[int]] = {}
        for row, stage in enumerate(firsts):
            groups.setdefault(stage, []).append(row)
        return sorted(groups.items())

    def _rows(self, cut: Cut, layer: int, readout: Readout) -> Outcome:
        if layer > self.graph.n_layers:
            return reordered(self.unpatched(readout), (torch.zeros(len(cut), dtype=torch.long),))
        rows = Rows(cut, self.legal)
        held, each = self._prompt_bytes(rows, layer)
        each += 3 * FLOAT * self.weights.vocab_size * readout.reads_vocabulary
        run = self.run
        room = max(0, run.footprint.room(run.memory, run.tokens.device) - run.footprint.held_bytes)
        prompts_at_once = max(1, room // (held + each))

        def of_prompts(part: slice) -> Outcome:
            climb = Climb(self, part, layer, rows.wanted)
            n = len(range(len(readout.batch))[part])
            some = readout.of_prompts(part)
            at_once = max(1, (room - n * held) // (n * each))

            def work(chunk: slice) -> Outcome:
                return some.of_residual(self.weights, climb.final(Rows(cut[chunk], self.legal)))

            return concatenate(in_chunks(len(cut), at_once, work), 0)

        return concatenate(in_chunks(len(readout.batch), prompts_at_once, of_prompts), 1)

    def _prompt_bytes(self, rows: Rows, layer: int) -> tuple[int, int]:
        """What one prompt holds for all rows, and what one row takes beside: changes of sources, below `layer` and
        above, and what readers read."""
        footprint, wanted = self.run.footprint, rows.wanted
        stream = FLOAT * footprint.n_columns * self.weights.d_model
        below = self._layer_of_sources() < layer
        streams = 2 * self.graph.n_layers * bool(rows.mostly.any())
        inputs = 3 * min(int(rows.touched.sum(1).max()), self.weights.n_heads)
        row = footprint.rows_bytes(1, footprint.n_columns) // footprint.n_prompts
        held = int((wanted & below).sum()) + streams + 1
        return stream * held, stream * (int((wanted & ~below).sum()) + inputs) + row

    def _layer_of_sources(self) -> Int[Tensor, "source"]:
        return torch.tensor([self.graph.node(source).layer for source in self.graph.sources])


def stage_of(node: Node) -> int:
    """When a node reads: attention of layer n at 2n, its MLP at 2n + 1."""
    return 2 * node.layer + (node.kind == "mlp")


class Changes(NamedTuple):
    """Donor minus own of some sources; a single row where all rows share them."""

    sources: Int[Tensor, "source"]
    written: Float[Tensor, "_ source prompt column d_model"]


@dataclass(frozen=True)
class Inputs:
    """What readers with a cut read, of n_rows rows, reader by reader. readers: which of those asked about."""

    n_rows: int
    readers: Int[Tensor, "pair"]
    rows: Int[Tensor, "pair"]
    read: Float[Tensor, "pair prompt column d_model"]

    def __len__(self) -> int:
        return len(self.rows)

    def rows_of(self, x: Tensor) -> Tensor:
        """A copy of x with all its rows."""
        return x.repeat(self.n_rows // len(x), *[1] * (x.dim() - 1))

    def by_reader(self, values: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(reader, rows, their part of `values`)."""
        counts = torch.bincount(self.readers).tolist()
        parts = zip(torch.split(self.rows, counts), torch.split(values, counts), strict=True)
        yield from ((reader, *part) for reader, part in enumerate(parts) if counts[reader])


class Climb:
    """Some prompts of an EdgeRun, ready for rows whose first cut is in `layer`."""

    def __init__(self, edges: EdgeRun, prompts: slice, layer: int, wanted: Bool[Tensor, "source"]) -> None:
        self.edges, self.run, self.graph, self.weights = edges, edges.run, edges.graph, edges.weights
        self.prompts, self.layer = prompts, layer
        self.base = edges.run.base.of_prompts(prompts)
        self.device = edges.run.tokens.device
        rotation, length = self.weights.rotation, self.run.length
        self.rotation = rotation(length) if rotation else None
        self.reader = {name: i for i, name in enumerate(self.graph.readers)}
        self.source = {name: i for i, name in enumerate(self.graph.sources)}
        self._of_donor: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._of_donor_mlp: dict[int, Tensor] = {}
        self.below = list(self._changes_below(wanted))

    def _changes_below(self, wanted: Bool[Tensor, "source"]) -> Iterator[Changes]:
        """Of the sources below self.layer, the same for all rows."""
        if wanted[0]:
            yield Changes(torch.tensor([0]), self._embedding_change()[None, None])
        for depth in range(self.layer):
            yield from self._changes(depth, self.base.z[depth][None], self.base.mlp(depth)[None], wanted)

    def _embedding_change(self) -> Float[Tensor, "prompt column d_model"]:
        own = self.base.before[0]
        return (self._given_embedding() - own).expand_as(own)

    def _given_embedding(self) -> Float[Tensor, "_ column d_model"]:
        run = self.run
        if run.donor.tokens is not None:
            return self.weights.embed(run.donor.tokens[self.prompts])[:, run.first :]
        columns = (run.first, run.length)
        return run.donor.constant(Site("input", 0), columns, (self.weights.d_model,), self.device)[None]

    @cached_property
    def given_streams(self) -> dict[str, Float[Tensor, "_ column d_model"]]:
        """What the donor's sources would write together, by who reads it: heads by the name of the first."""
        stream, streams = self._given_embedding(), {}
        columns = (self.run.first, self.run.length)
        for depth, layer in enumerate(self.weights.layers):
            between = stream + layer.out(self._given("z", depth, columns).flatten(2))
            streams[f"a{depth}.h0"] = stream
            streams[f"m{depth}"] = stream if self.weights.parallel else between
            stream = between + self._given("mlp", depth, columns)
        return streams | {LOGITS: stream}

    def _changes(
        self, depth: int, z: Tensor, wrote: Tensor, wanted: Bool[Tensor, "source"]
    ) -> Iterator[Changes]:
        """Donor minus own of the sources of one layer that are cut anywhere, over the columns of `z` and `wrote`."""
        first = self.source[f"a{depth}.h0"]
        heads = wanted[first : first + self.graph.n_heads].nonzero()[:, 0]
        if len(heads):
            yield Changes(first + heads, self._written(depth, z, heads.to(self.device)))
        if wanted[first + self.graph.n_heads]:
            columns = (self.run.length - wrote.shape[2], self.run.length)
            change = self._given("mlp", depth, columns) - wrote
            yield Changes(torch.tensor([first + self.graph.n_heads]), change[:, None])

    def _written(self, depth: int, z: Tensor, heads: Tensor) -> Float[Tensor, "_ head prompt column d_model"]:
        out = self.weights.layers[depth].out.weight.view(self.weights.n_heads, self.weights.d_head, -1)[heads]
        given = self._given("z", depth, (self.run.length - z.shape[2], self.run.length))
        change = (given - z)[..., heads, :]
        by_head = change.permute(3, 0, 1, 2, 4).flatten(1, 3).to(out.dtype) @ out
        return by_head.float().view(len(heads), *change.shape[:3], -1).transpose(0, 1)

    def _given(self, kind: str, depth: int, columns: tuple[int, int]) -> Tensor:
        value = self.run.given(kind, depth, columns)
        return value if len(value) == 1 else value[self.prompts]

    def final(self, rows: Rows) -> Float[Tensor, "row prompt d_model"]:
        """The residual stream that the logits read."""
        changes = list(self.below)
        x = self.base.residual(self.layer)[None]
        for depth in range(self.layer, self.graph.n_layers):
            x = self._layer(depth, x, rows, changes)
        last = x[:, :, -1:]
        read = _substitute(last, self.inputs(rows, [LOGITS], last, changes))
        given = self.given_streams[LOGITS] if rows.severed[:, -1].any() else last[0]
        return self._given_where(rows.severed[:, -1], given[:, -1:], read)[:, :, 0].expand(len(rows), -1, -1)

    def _layer(
        self, depth: int, x: Tensor, rows: Rows, changes: list[Changes]
    ) -> Float[Tensor, "_ prompt column d_model"]:
        """The stream behind one layer; what its sources wrote is noted in `changes`."""
        layer, last = self.weights.layers[depth], depth + 1 == self.graph.n_layers
        n_queries = 1 if last else x.shape[2]
        z = self._head_outputs(depth, x, rows, changes, n_queries)
        x = x[:, :, -n_queries:]
        between = x + layer.out(z.flatten(3))
        new = list(self._changes(depth, z, torch.empty(1, 1, 0, 1), rows.wanted & self._heads_alone))
        read = x if self.weights.parallel else between
        seen = changes if self.weights.parallel else [*changes, *new]
        wrote = self._mlp(depth, rows, read, seen)
        changes += [*new, *self._changes(depth, z, wrote, rows.wanted & ~self._heads_alone)]
        return between + wrote

    def _mlp(
        self, depth: int, rows: Rows, x: Tensor, changes: list[Changes]
    ) -> Float[Tensor, "_ prompt column d_model"]:
        """What the MLP writes: what it does on the donor's stream in rows that keep none of its inputs."""
        layer, severed = self.weights.layers[depth], rows.severed[:, self.reader[f"m{depth}"]]
        read = _substitute(x, self.inputs(rows, [f"m{depth}"], x, changes))
        if not severed.any():
            return mlp(layer, read)
        if depth not in self._of_donor_mlp:
            self._of_donor_mlp[depth] = mlp(layer, self.given_streams[f"m{depth}"])
        given = self._of_donor_mlp[depth][:, -x.shape[2] :]
        if len(read) == 1:
            return self._given_where(severed, given, mlp(layer, read))
        wrote = given.expand_as(read[0]).repeat(len(read), 1, 1, 1)
        wrote[~severed] = mlp(layer, read[~severed])
        return wrote

    def _given_where(self, severed: Bool[Tensor, "row"], given: Tensor, own: Tensor) -> Tensor:
        """The donor's in some rows; own: of all rows, or of one that stands for all."""
        if not severed.any():
            return own
        return torch.where(severed[:, None, None, None].to(self.device), given, own)

    @cached_property
    def _heads_alone(self) -> Bool[Tensor, "source"]:
        return torch.tensor([name[0] == "a" for name in self.graph.sources])

    def _head_outputs(
        self, depth: int, x: Tensor, rows: Rows, changes: list[Changes], n_queries: int
    ) -> Float[Tensor, "_ prompt query head d_head"]:
        layer, names = self.weights.layers[depth], [f"a{depth}.h{h}" for h in range(self.graph.n_heads)]
        leaders = names[:: self.graph.n_heads // self.graph.n_kv_heads]
        inputs = {
            kind: self.inputs(rows, [f"{name}<{kind}>" for name in of], x[:, :, -width:], changes)
            for kind, of, width in (
                ("q", names, n_queries),
                ("k", leaders, x.shape[2]),
                ("v", leaders, x.shape[2]),
            )
        }
        severed = {
            kind: rows.severed[:, [self.reader[f"{name}<{kind}>"] for name in of]]
            for kind, of in (("q", names), ("k", leaders), ("v", leaders))
        }
        none_severed = not any(bool(part.any()) for part in severed.values())
        if depth == self.layer and none_severed and not any(map(len, inputs.values())):
            return self.base.z[depth][None, :, -n_queries:]
        at, first = Attention(self.weights, depth, self.rotation), self.run.first
        flat = at.read(layer.attention_norm(x), x.shape[2] - n_queries)
        ways = zip(flat, (layer.query, layer.key, layer.value), inputs.values(), strict=True)
        projected = [self._projected(depth, whole, way, part) for whole, way, part in ways]
        if not none_severed:
            given = self._given_projected(depth, x.shape[2], n_queries)
            projected = list(map(self._given_heads, severed.values(), given, projected))
        q, k, v = projected
        n_rows = max(len(q), len(k), len(v))
        q, k, v = (part.expand(n_rows, *part.shape[1:]) for part in (q, k, v))
        q, k, v = at.turned(q, k, v, first, self.run.length - n_queries)
        prefix = self.base.attention[depth].until(first) if first else None
        return at.mix(at.pattern(q, k, prefix), v, prefix)

    def _projected(self, depth: int, whole: Tensor, way: Affine, inputs: Inputs) -> Tensor:
        """q, k or v of all heads (groups), those with an input of their own worked out from it."""
        if not len(inputs):
            return whole
        whole, width = inputs.rows_of(whole), self.weights.d_head
        normed = self.weights.layers[depth].attention_norm(inputs.read)
        for head, rows, read in inputs.by_reader(normed):
            units = slice(head * width, (head + 1) * width)
            some = Affine(way.weight[:, units], None if way.bias is None else way.bias[units])
            whole[rows, ..., units] = some(read)
        return whole

    def _given_projected(self, depth: int, n_columns: int, n_queries: int) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of all heads on the donor's stream."""
        if depth not in self._of_donor:
            at = Attention(self.weights, depth, self.rotation)
            read = self.weights.layers[depth].attention_norm(self.given_streams[f"a{depth}.h0"])[None]
            self._of_donor[depth] = at.read(read)
        q, k, v = self._of_donor[depth]
        return q[:, :, -n_queries:], k[:, :, -n_columns:], v[:, :, -n_columns:]

    def _given_heads(self, severed: Bool[Tensor, "row head"], given: Tensor, own: Tensor) -> Tensor:
        """The donor's projection for heads that keep none of their inputs."""
        if not severed.any():
            return own
        by_head = (*own.shape[1:3], severed.shape[1], -1)
        where = severed[:, None, None, :, None].to(self.device)
        mixed = torch.where(
            where, given.view(len(given), given.shape[1], *by_head[1:]), own.view(len(own), *by_head)
        )
        return mixed.flatten(3)

    def inputs(self, some: Rows, readers: list[str], x: Tensor, changes: list[Changes]) -> Inputs:
        """What these readers read where some is cut and some kept; x: the stream that they read else, in the last
        columns."""
        places = torch.tensor([self.reader[name] for name in readers])
        at, rows = (some.touched & ~some.severed)[:, places].T.nonzero(as_tuple=True)
        if not len(rows):
            return Inputs(len(some), at, rows, x[:0])
        columns = places[at]
        masks, mostly = some.cut[rows, :, columns], some.mostly[rows, columns]
        kept = self.edges.legal[:, columns].T & ~masks
        masks = torch.where(mostly[:, None], -kept.float(), masks.float())
        read = self._starts(x, readers[0], rows, mostly)
        for change in changes:
            if (mine := masks[:, change.sources]).any():
                written = change.written[..., -x.shape[2] :, :].flatten(2)
                _add_products(read.view(len(read), -1), rows, at, mine.to(self.device), written)
        return Inputs(len(some), at, rows, read)

    def _starts(
        self, x: Tensor, reader: str, rows: Int[Tensor, "pair"], mostly: Bool[Tensor, "pair"]
    ) -> Float[Tensor, "pair prompt column d_model"]:
        """The row's own stream, or the donor's where most is cut: a copy."""
        own = x[rows] if len(x) > 1 else x.repeat(len(rows), 1, 1, 1)
        if mostly.any():
            given = self.given_streams[reader.split("<")[0]][None, :, -x.shape[2] :]
            own[mostly] = given.expand_as(own[:1])
        return own


def _substitute(x: Tensor, inputs: Inputs) -> Tensor:
    """The stream, with what rows with a cut read in their place."""
    if not len(inputs):
        return x
    x = inputs.rows_of(x)
    x[inputs.rows] = inputs.read
    return x


def _add_products(
    read: Float[Tensor, "pair number"],
    rows: Int[Tensor, "pair"],
    readers: Int[Tensor, "pair"],
    masks: Float[Tensor, "pair source"],
    written: Float[Tensor, "row source number"],
) -> None:
    """Adds to each pair the sum of what its sources write in its row."""
    if len(written) == 1:
        read.addmm_(masks, written[0])
        return
    by_row = masks.new_zeros(len(written), int(readers.max()) + 1, masks.shape[1])
    by_row[rows, readers] = masks
    read += torch.bmm(by_row, written)[rows, readers]
