"""Which edges are cut in each row, and what that asks of the forward pass: masks alone, no model.

The one idea: a row of cuts is a 0/1 matrix [source, reader], in the order of circuits.graph; everything else, such as
which readers keep nothing, is read off it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.graph import Graph

Cut = Bool[Tensor, "row source reader"]
"""True where an edge carries what the donor's source writes; see Graph.sources and Graph.readers."""


def cut_masks(graph: Graph, cuts: Iterable[Iterable[str]]) -> Cut:
    """One row a set of edge names: True at those. Raises CircuitError for a name that is no edge of the model."""
    listed = [list(cut) for cut in cuts]
    graph.require_edges(edge for edges in listed for edge in edges)
    mask = torch.zeros(len(listed), len(graph.sources), len(graph.readers), dtype=torch.bool)
    at = [(row, *graph.places[edge]) for row, edges in enumerate(listed) for edge in edges]
    if at:
        mask[tuple(torch.tensor(at).T)] = True
    return mask


def kept_masks(graph: Graph, circuits: Iterable[Iterable[str]]) -> Cut:
    """One row a circuit, given as the edges that it keeps: all other legal edges are cut."""
    return legal_edges(graph) & ~cut_masks(graph, circuits)


@lru_cache(maxsize=8)
def legal_edges(graph: Graph) -> Bool[Tensor, "source reader"]:
    """Where an edge matrix has an edge; made once a shape, and not to be written to."""
    with torch.inference_mode(False):  # gradients may need it later
        legal = torch.zeros(len(graph.sources), len(graph.readers), dtype=torch.bool)
        places = torch.tensor(list(graph.places.values()))
        legal[places[:, 0], places[:, 1]] = True
    return legal


class Rows:
    """Rows of cuts, and what is asked of them at every layer."""

    def __init__(self, cut: Cut, legal: Bool[Tensor, "source reader"]) -> None:
        self.cut, self.legal = cut, legal

    def __len__(self) -> int:
        return len(self.cut)

    @cached_property
    def touched(self) -> Bool[Tensor, "row reader"]:
        """Where anything is cut."""
        return self.cut.any(1)

    @cached_property
    def mostly(self) -> Bool[Tensor, "row reader"]:
        """Where more is cut than kept."""
        return 2 * self.cut.sum(1, dtype=torch.int32) > self.legal.sum(0)

    @cached_property
    def severed(self) -> Bool[Tensor, "row reader"]:
        """Where nothing is kept: what is read there is the donor's."""
        return self.touched & ~(self.legal & ~self.cut).any(1)

    @cached_property
    def wanted(self) -> Bool[Tensor, "source"]:
        """Sources of which donor minus own is asked for somewhere."""
        differing = torch.where(self.mostly[:, None], self.legal & ~self.cut, self.cut)
        return (differing & ~self.severed[:, None]).any(0).any(1)
