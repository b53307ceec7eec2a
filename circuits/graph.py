"""The graph of a model: its nodes, and which of them may write to which.

The one idea: every attention head and MLP reads from the residual stream and writes to it, so node u may
feed node v exactly where u writes before v reads. Names outside, indices inside: `input`, `a9.h6`, `m4`,
`logits`; the edge `a9.h6->a10.h0<q>` enters the query input of head 10.0. Under grouped-query attention
the k and v inputs belong to a group, named by its first head. Names follow EAP-IG (Hanna et al. 2024).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain

from circuits.errors import CircuitError

INPUT, LOGITS = "input", "logits"
_HEAD = re.compile(r"a(0|[1-9][0-9]*)\.h(0|[1-9][0-9]*)")
_MLP = re.compile(r"m(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Node:
    """A node's place: kind is "input", "head", "mlp" or "logits"; index is the head, else 0."""

    kind: str
    layer: int
    index: int = 0

    @property
    def name(self) -> str:
        return {"head": f"a{self.layer}.h{self.index}", "mlp": f"m{self.layer}"}.get(self.kind, self.kind)


@dataclass(frozen=True)
class Graph:
    """Shape of a decoder: n_kv_heads differs from n_heads under grouped-query attention.

    parallel: attention and MLP of a layer read the same residual (NeoX), so heads do not feed their own MLP.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    parallel: bool = False

    @cached_property
    def components(self) -> tuple[str, ...]:
        """Heads and MLPs in the order in which they write: what a circuit keeps or leaves out."""
        return tuple(
            node
            for layer in range(self.n_layers)
            for node in (*(f"a{layer}.h{head}" for head in range(self.n_heads)), f"m{layer}")
        )

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(name for name in self.components if name[0] == "a")

    @property
    def sources(self) -> tuple[str, ...]:
        """All nodes that write to the residual stream."""
        return (INPUT, *self.components)

    def node(self, name: str) -> Node:
        """The place of `name`. Raises CircuitError where this model has no such node."""
        return self._nodes.get(name) or self._named(name)

    @cached_property
    def _nodes(self) -> dict[str, Node]:
        return {name: self._named(name) for name in (*self.sources, LOGITS)}

    def _named(self, name: str) -> Node:
        if name in (INPUT, LOGITS):
            return Node(name, -1 if name == INPUT else self.n_layers)
        if match := _HEAD.fullmatch(name):
            node = Node("head", int(match[1]), int(match[2]))
        elif match := _MLP.fullmatch(name):
            node = Node("mlp", int(match[1]))
        else:
            raise CircuitError(
                f"{name!r} is no node name. Nodes are input, a9.h6 (a head), m4 (an MLP), logits."
            )
        if node.layer >= self.n_layers or node.index >= self.n_heads:
            raise CircuitError(
                f"{name} is not in this model: it has {self.n_layers} layers x {self.n_heads} heads."
            )
        return node

    def feeds(self, source: str, target: str) -> bool:
        """Whether `source` writes to the residual stream before `target` reads it."""
        if source in (LOGITS, target) or target == INPUT:
            return False
        if source == INPUT or target == LOGITS:
            return True
        write, read = self.node(source), self.node(target)
        if write.layer != read.layer:
            return write.layer < read.layer
        return write.kind == "head" and read.kind == "mlp" and not self.parallel

    def inputs(self, target: str) -> tuple[str, ...]:
        """The inputs of `target` as edge names spell them: a head has q, and k and v if it leads its group."""
        node = self.node(target)
        if node.kind != "head":
            return (target,)
        leads = node.index % (self.n_heads // self.n_kv_heads) == 0
        return tuple(f"{target}<{x}>" for x in ("qkv" if leads else "q"))

    def edges(self, among: Iterable[str] | None = None) -> Iterator[str]:
        """Every legal edge, or those between the nodes `among` (input and logits count as among them)."""
        wanted = None if among is None else {INPUT, LOGITS, *among}
        nodes = [n for n in (*self.sources, LOGITS) if wanted is None or n in wanted]
        for target in nodes:
            entries = self.inputs(target)
            for source in nodes:
                if self.feeds(source, target):
                    yield from (f"{source}->{entry}" for entry in entries)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """All inputs that edges enter: layer by layer q of every head, k and v of every group, the MLP; then logits.

        The columns of an edge matrix; its rows are `sources`.
        """
        leaders = range(0, self.n_heads, self.n_heads // self.n_kv_heads)
        inputs = {"q": range(self.n_heads), "k": leaders, "v": leaders}
        by_layer = (
            (*(f"a{layer}.h{head}<{kind}>" for kind in "qkv" for head in inputs[kind]), f"m{layer}")
            for layer in range(self.n_layers)
        )
        return (*chain.from_iterable(by_layer), LOGITS)

    def served(self, reader: str) -> tuple[str, ...]:
        """The nodes that read there: one, but all heads of a group at its k and v."""
        name, _, kind = reader.partition("<")
        if kind[:1] not in ("k", "v"):
            return (name,)
        first = self.node(name)
        group = range(first.index, first.index + self.n_heads // self.n_kv_heads)
        return tuple(f"a{first.layer}.h{head}" for head in group)

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """Every legal edge -> its row and column in an edge matrix [source, reader], in the order of `edges`."""
        return _places(self)

    def require_edges(self, edges: Iterable[str]) -> None:
        """Raises CircuitError naming the first of `edges` that this model does not have."""
        for edge in edges:
            if edge not in self.places:
                raise CircuitError(self._why_no_edge(edge))

    def _why_no_edge(self, edge: str) -> str:
        source, arrow, reader = edge.partition("->")
        if not arrow:
            return f"{edge!r} is no edge name. Edges are a9.h6->a10.h0<q>, a9.h6->m10, m4->logits."
        self.node(source), self.node(target := reader.split("<")[0])
        if self.feeds(source, target):
            return f"{edge} is no edge of this model: {target} reads at {', '.join(self.inputs(target))}."
        return f"{edge} is no edge of this model: {source} does not write before {target} reads."

    def links(self, among: Iterable[str]) -> Iterator[tuple[str, str]]:
        """(source, target) of every legal edge between the nodes `among`, q, k and v inputs taken together."""
        nodes = [n for n in (*self.sources, LOGITS) if n in {INPUT, LOGITS, *among}]
        yield from ((u, v) for v in nodes for u in nodes if self.feeds(u, v))


@lru_cache(maxsize=8)
def _places(graph: Graph) -> dict[str, tuple[int, int]]:
    """Made once a shape: every run folder that is read brings a graph of its own."""
    row, column = ({name: i for i, name in enumerate(names)} for names in (graph.sources, graph.readers))
    return {
        edge: (row[source], column[reader]) for edge in graph.edges() for source, reader in [edge.split("->")]
    }
