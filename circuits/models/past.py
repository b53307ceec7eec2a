"""Keys and values of a prefix, given to any number of runs and changed by none.

The one idea: the cache of transformers grows as a model runs on it. Here each layer, asked to grow, leaves that to
a copy of itself that lives as long as the question, so nothing is kept of a run and the prefix serves the next one.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any

from torch import Tensor


def fixed(cache: Any) -> Any:
    """A cache of transformers that answers as `cache` does, and stays as it is."""
    whole = copy(cache)
    whole.layers = [copy(layer) for layer in cache.layers]
    for layer, known in zip(whole.layers, cache.layers, strict=True):
        layer.update = partial(_extended, known)
    return whole


def _extended(known: Any, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Keys and values of the prefix, repeated for as many rows as there are, then those given."""
    layer, rows = copy(known), len(keys) // len(known.keys)
    layer.keys, layer.values = (part.repeat(rows, 1, 1, 1) for part in (known.keys, known.values))
    longer: tuple[Tensor, Tensor] = layer.update(keys, values, *args, **kwargs)
    return longer
