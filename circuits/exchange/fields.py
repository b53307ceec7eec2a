"""Reading what others wrote: each value is checked where it is taken, and a bad one is named with its entry."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from circuits.errors import CircuitError
from circuits.graph import Graph

MOST_NODES, MOST_PAIRS = 1_000_000, 40_000_000
"""Of a file's graph: beyond these its names alone would fill the memory."""


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. Raises CircuitError where it is none."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise CircuitError(f"This is no JSON: {problem}.") from problem
    return mapping(value, "The file")


def has_keys(data: bytes, *keys: str) -> bool:
    """Whether `data` is a JSON object with any of these keys."""
    try:
        return not set(keys).isdisjoint(json_object(data))
    except CircuitError:
        return False


def field(entry: Mapping[str, Any], name: str, where: str) -> Any:
    """entry[name]; where: how the message names the entry."""
    if name not in entry:
        raise CircuitError(
            f"{where} has no field {name!r}. Make the file again with the program it came from."
        )
    return entry[name]


def mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CircuitError(f"{where} is {_brief(value)}, where a JSON object is meant.")
    return value


def sequence(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise CircuitError(f"{where} is {_brief(value)}, where a list is meant.")
    return value


def number(value: object, where: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CircuitError(f"{where} is {_brief(value)}, where a number is meant.")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        finite = False
    if not finite:
        raise CircuitError(f"{where} is {_brief(value)}: scores must be finite. Score the circuit again.")
    return float(value)


def number_or_none(value: object, where: str) -> float | None:
    return None if value is None else number(value, where)


def flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise CircuitError(f"{where} is {_brief(value)}, where true or false is meant.")
    return value


def text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise CircuitError(f"{where} is {_brief(value)}, where text is meant.")
    return value


def shape(
    n_layers: object, n_heads: object, n_kv_heads: object, parallel: object, *, where: str = "cfg"
) -> Graph:
    """The graph of this shape; n_kv_heads None says that every head has its own k and v."""
    n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
    sizes = {"n_layers": n_layers, "n_heads": n_heads, "n_kv_heads": n_kv_heads}
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise CircuitError(f"{name} of {where} is {_brief(size)}, where a number from 1 up is meant.")
    graph = Graph(**sizes, parallel=flag(parallel, f"Whether {where} is parallel"))  # type: ignore[arg-type]
    if graph.n_heads % graph.n_kv_heads:
        raise CircuitError(
            f"{where} has {n_heads} heads, which are no whole groups of {n_kv_heads} kv heads."
        )
    if n_nodes(graph) > MOST_NODES:
        raise CircuitError(
            f"{where} has {n_layers} layers x {n_heads} heads, more than any model: it is damaged."
        )
    return graph


def n_nodes(graph: Graph) -> int:
    """How many nodes write to the residual stream, told without listing them."""
    return 1 + graph.n_layers * (graph.n_heads + 1)


def listable(graph: Graph) -> Graph:
    """The graph, if its edges can be listed. Raises CircuitError where they are too many to hold in memory."""
    pairs = n_nodes(graph) * (1 + graph.n_layers * (graph.n_heads + 2 * graph.n_kv_heads + 1))
    if pairs > MOST_PAIRS:
        raise CircuitError(
            f"{graph.n_layers} layers x {graph.n_heads} heads have about {pairs // 2:,} edges, more than can be "
            f"listed here ({MOST_PAIRS // 2:,}). If the model is not this large, the file is damaged."
        )
    return graph


def _brief(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 40 else f"{said[:37]}..."
