"""EAP-IG graphs as tensors, what its Graph.to_pt writes: much smaller and faster than the JSON.

The one idea: the same content as eap_ig.py with edges in matrices [source, reader]. Their readers go layer by layer
through q of all heads, k of all heads, v of all heads and the MLP, then the logits. Only plain values and tensors are
read, so a file cannot run code here.
Source: hannamw/EAP-IG 2.0.0, eap/graph.py
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from circuits.errors import CircuitError
from circuits.exchange import eap_ig
from circuits.exchange.fields import field, listable, mapping, shape
from circuits.exchange.format import Format
from circuits.graph import LOGITS, Graph
from circuits.scored_circuit import ScoredCircuit

if TYPE_CHECKING:
    from torch import Tensor

NODE_TENSORS = {
    "in_graph": "nodes_in_graph",
    "score": "nodes_scores",
    "neurons": "neurons_in_graph",
    "neurons_scores": "neurons_scores",
}
"""A key of a node in the JSON, and the tensor with one row a source that holds it here."""
REQUIRED = ("src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph")
MORE = "more"
"""Where entries go that no tensor holds."""


def write(scored: ScoredCircuit) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(_shared(_to_tensors(eap_ig.to_tables(scored)), {}), buffer)
    return buffer.getvalue()


def read(data: bytes) -> ScoredCircuit:
    return eap_ig.from_tables(_from_tensors(_loaded(data)))


def _shared(value: Any, words: dict[str, str]) -> Any:
    """The same value with equal texts one object, since what is written depends on which objects are the same."""
    if isinstance(value, str):
        return words.setdefault(value, value)
    if isinstance(value, dict):
        return {_shared(key, words): _shared(entry, words) for key, entry in value.items()}
    return [_shared(entry, words) for entry in value] if isinstance(value, list) else value


def _loaded(data: bytes) -> dict[str, Any]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it has to say of foreign files is said below
            value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as problem:  # torch.load fails in as many ways as there are files
        raise CircuitError(
            "This is no file of plain tensors, and nothing else is unpickled: it could run any code. "
            "Save the graph again with EAP-IG's to_json or to_pt."
        ) from problem
    return mapping(value, "The file")


def _to_tensors(tables: eap_ig.Tables) -> dict[str, Any]:
    import torch

    cfg, nodes, edges = tables["cfg"], tables["nodes"], tables["edges"]
    graph = shape(cfg["n_layers"], cfg["n_heads"], None, cfg["parallel_attn_mlp"])
    scores, kept = torch.zeros(2, len(graph.sources), len(graph.readers), dtype=torch.float64)
    rows, columns = (list(index) for index in zip(*graph.places.values(), strict=True))
    for matrix, key in ((scores, "score"), (kept, "in_graph")):
        matrix[rows, columns] = torch.tensor([edges[edge][key] for edge in graph.places], dtype=torch.float64)
    of_nodes = _node_tensors([nodes[name] for name in graph.sources])
    in_tensors = {key for key, matrix in NODE_TENSORS.items() if matrix in of_nodes}
    more = {
        "nodes": _leftovers({name: nodes[name] for name in graph.sources}, in_tensors)
        | ({} if nodes[LOGITS] == {"in_graph": True} else {LOGITS: nodes[LOGITS]}),
        "edges": _leftovers(edges, {"score", "in_graph"}),
    }
    return {
        **{key: value for key, value in tables.items() if key not in ("nodes", "edges")},
        "src_nodes": list(graph.sources),
        "dst_nodes": list(graph.readers),
        "edges_scores": _narrow(scores),
        "edges_in_graph": kept.bool(),
        **of_nodes,
        **({MORE: more} if any(more.values()) else {}),
    }


def _leftovers(entries: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    over = {name: {k: v for k, v in entry.items() if k not in known} for name, entry in entries.items()}
    return {name: more for name, more in over.items() if more}


def _narrow(values: Tensor) -> Tensor:
    """float32, as EAP-IG has it, unless that loses digits."""
    import torch

    short = values.float()
    return short if torch.allclose(short.double(), values, rtol=0, atol=0, equal_nan=True) else values


def _node_tensors(sources: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Each key that all sources have, as a tensor with one row a source."""
    import torch

    found = {}
    for key, matrix in NODE_TENSORS.items():
        column = [entry.get(key) for entry in sources]
        if all(value is not None for value in column):
            values = torch.tensor(column)
            found[matrix] = (
                values if values.dtype == torch.bool else _narrow(torch.tensor(column, dtype=torch.float64))
            )
    return found


def _from_tensors(found: dict[str, Any]) -> eap_ig.Tables:
    """The same content as the JSON has it. Raises CircuitError naming what is missing or does not fit cfg."""
    cfg = mapping(field(found, "cfg", "The file"), "cfg")
    for key in REQUIRED:
        field(found, key, "The file")
    n_layers, n_heads, parallel = (
        field(cfg, key, "cfg") for key in ("n_layers", "n_heads", "parallel_attn_mlp")
    )
    graph = shape(n_layers, n_heads, None, parallel)
    _check_shapes(found, listable(graph))
    for key, names in (("src_nodes", graph.sources), ("dst_nodes", graph.readers)):
        _check_order(key, list(found[key]), names)
    scores, kept = (found[key].tolist() for key in ("edges_scores", "edges_in_graph"))
    edges = {
        edge: {"score": scores[row][column], "in_graph": kept[row][column]}
        for edge, (row, column) in graph.places.items()
    }
    columns = {key: found[matrix].tolist() for key, matrix in NODE_TENSORS.items() if matrix in found}
    nodes = {
        name: {key: column[i] for key, column in columns.items()} for i, name in enumerate(graph.sources)
    } | {LOGITS: {"in_graph": True}}
    more = found.get(MORE, {})
    for entries, key in ((nodes, "nodes"), (edges, "edges")):
        for name, fields in more.get(key, {}).items():
            entries[name] = entries.get(name, {}) | fields
    known = {"cfg", MORE, *REQUIRED, *NODE_TENSORS.values()}
    rest = {key: value for key, value in found.items() if key not in known}
    return {"cfg": cfg, "nodes": nodes, "edges": edges, **rest}


def _check_shapes(found: Mapping[str, Any], graph: Graph) -> None:
    import torch

    n_sources, n_readers = len(graph.sources), len(graph.readers)
    sizes: dict[str, tuple[int, ...]] = {
        "edges_scores": (n_sources, n_readers),
        "edges_in_graph": (n_sources, n_readers),
    }
    sizes |= {matrix: (n_sources,) for matrix in NODE_TENSORS.values() if matrix in found}
    for key, size in sizes.items():
        value = found[key]
        if not isinstance(value, torch.Tensor) or tuple(value.shape)[: len(size)] != size:
            what = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise CircuitError(
                f"{key} is {what}; cfg has {graph.n_layers} layers x {graph.n_heads} heads, which takes a tensor of "
                f"{list(size)}."
            )


def _check_order(key: str, names: list[object], meant: tuple[str, ...]) -> None:
    if tuple(names) == meant:
        return
    differing = [(a, b) for a, b in zip(names, meant, strict=False) if a != b]
    what = (
        f"{differing[0][0]} where {differing[0][1]}"
        if differing
        else f"{len(names)} names where {len(meant)}"
    )
    raise CircuitError(f"{key} does not fit cfg: it has {what} is meant.")


FORMAT = Format(
    name="eap-ig-pt",
    summary="EAP-IG's graph as tensors (torch.save of plain values): small and fast to load.",
    extension=".pt",
    write=write,
    read=read,
    recognises=lambda data: data.startswith(b"PK"),
    caveats=eap_ig.caveats,
)
