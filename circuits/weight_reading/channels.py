"""Channels: singular components of what a head writes, by name (a1.h4:0), and how to close one in the weights.

The one idea: W_O (I - (1 - f) v v^T) scales what a head writes along the unit vector v by f, and v lies in the span
of the head's own W_O: v = c W_O. So the same is done to z, what the head puts out before W_O, by the d_head x d_head
matrix I - (1 - f) (W_O v) c, and no weight of the model is touched.
Source: Merullo et al. 2024 (Talking Heads, arXiv 2406.09519), section 4: removing a component.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.weights import Weights
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.weight_reading.composition import NOTHING
from circuits.weight_reading.heads import read_ov


class Channel(NamedTuple):
    """One singular component of a head's OV map, 0 the largest."""

    head: str
    component: int

    def __str__(self) -> str:
        return f"{self.head}:{self.component}"


def parse_channels(names: Sequence[str], graph: Graph, n_components: int) -> tuple[Channel, ...]:
    """Channels by name, each once. Raises one CircuitError for all that the model lacks."""
    found, problems = [], []
    for name in dict.fromkeys(names):
        head, colon, number = name.partition(":")
        if not colon or not number.isdecimal():
            problems.append(f"{name!r} names no channel: give a head and a component, such as a1.h4:0.")
            continue
        try:
            is_head = graph.node(head).kind == "head"
        except CircuitError as problem:
            problems.append(str(problem))
            continue
        if not is_head:
            problems.append(f"{head} is no head; channels are of heads, such as {graph.heads[0]}:0.")
        elif int(number) >= n_components:
            problems.append(f"{name}: heads have {n_components} components here, 0 to {n_components - 1}.")
        found.append(Channel(head, int(number)))
    if problems:
        raise CircuitError("\n".join(problems))
    return tuple(found)


def n_components(weights: Weights) -> int:
    return min(weights.d_head, weights.d_model)


def scaling(
    weights: Weights, graph: Graph, head: str, components: Sequence[int], factor: float
) -> Float[Tensor, "d_head d_head"]:
    """What z of `head` is multiplied by, from the right, so that it writes `factor` times as much along components.

    A component that writes nothing is left alone. What the last norm cannot see, equal shifts of all dimensions, may
    change too where that norm centres.
    """
    node = graph.node(head)
    ov = read_ov(weights, node.layer)
    kept = [i for i in components if ov.size[node.index, i] > NOTHING * ov.size[node.index, 0]]
    v = ov.right[node.index, kept]
    writer = weights.layers[node.layer].out.weight.double()
    own = writer.view(weights.n_heads, weights.d_head, -1)[node.index]
    seen = own - own.mean(-1, keepdim=True) if weights.final_norm.centres else own
    straight = torch.eye(weights.d_head, dtype=torch.float64, device=v.device)
    coefficients: Tensor = v @ torch.linalg.pinv(seen)
    return straight - (1 - factor) * (seen @ v.mT) @ coefficients
