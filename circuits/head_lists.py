"""Head lists: scores of heads in the files that cache-saving systems read, and one that serves them all.

The one idea: those systems keep keys and values of KV groups, so a group counts as much as its best head. Formats, as
their published files have them:
    duo-attention     a folder: full_attention_heads.tsv (a row a layer, a column a KV group, 0 to 1), config.json
    razor-attention   {"prefix_matching": {layer: [groups]}, "copying": {layer: [groups]}}
    compress-kv       {layer: [heads, best first]}
    json              ours: scores by query head, maxima by group, rankings, and what they were measured on
Sources: mit-han-lab/duo-attention, attn_patterns/; Huawei's msModelSlim (RazorAttention); TUDa-HWAI/CompressKV,
scores/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.errors import CircuitError, UnknownNameError
from circuits.graph import Graph
from circuits.records import json_text

By = Float[np.ndarray, "layer head"]

INDUCTION_SHARE, ECHO_SHARE = 0.14, 0.01
"""Of all KV groups, what RazorAttention keeps by each score; one at least."""

SINK, RECENT = 128, 256
"""What DuoAttention's other heads see, as its published files say."""


@dataclass(frozen=True)
class HeadList:
    """scores: role -> of every head. about: what they were measured on, ready for JSON."""

    graph: Graph
    scores: Mapping[str, By]
    about: Mapping[str, object]

    def role(self, export: str, *names: str) -> By:
        """The first of these roles that was measured. Raises CircuitError where none was."""
        for name in names:
            if name in self.scores:
                return self.scores[name]
        wanted = " or ".join(names)
        raise CircuitError(
            f"--export {export} is made of {wanted}, which was not measured. "
            "Name it with --role, or leave --role out."
        )

    def groups(self, scores: By) -> Float[np.ndarray, "layer group"]:
        """The best head of each KV group."""
        by_group = scores.reshape(self.graph.n_layers, self.graph.n_kv_heads, -1)
        return np.asarray(by_group.max(2))


def duo_attention(heads: HeadList) -> dict[str, bytes]:
    """Retrieval scores where gates stand: deploy by a quantile, since 0.5 is a threshold of gates."""
    best = heads.groups(heads.role("duo-attention", "retrieval")).clip(0, 1)
    return duo_files(best, heads.about.get("model"), SINK, RECENT)


def duo_files(
    gates: Float[np.ndarray, "layer group"], model: object, sink: int, recent: int
) -> dict[str, bytes]:
    """The folder that DuoAttention loads. sink, recent: tokens that heads below the threshold see."""
    rows = "".join("\t".join(f"{value:.18e}" for value in row) + "\n" for row in gates)
    config = {"model_name": model, "sink_size": sink, "recent_size": recent, "threshold": None}
    return {
        "duo-attention/full_attention_heads.tsv": rows.encode(),
        "duo-attention/config.json": json_text(config).encode(),
    }


def razor_attention(heads: HeadList) -> dict[str, bytes]:
    """The best groups of all layers, by induction and by echo."""
    parts = (
        ("prefix_matching", "razor-induction", INDUCTION_SHARE),
        ("copying", "razor-echo", ECHO_SHARE),
    )
    kept = {
        name: _by_layer(heads.groups(heads.role("razor-attention", role)), share)
        for name, role, share in parts
    }
    return {"razor-attention.json": json_text(kept).encode()}


def _by_layer(scores: Float[np.ndarray, "layer group"], share: float) -> dict[int, list[int]]:
    n = max(1, round(share * scores.size))
    first = sorted(np.argsort(-scores.ravel(), kind="stable")[:n].tolist())
    kept: dict[int, list[int]] = {}
    for place in first:
        kept.setdefault(place // scores.shape[1], []).append(place % scores.shape[1])
    return kept


def compress_kv(heads: HeadList) -> dict[str, bytes]:
    """Heads of each layer, best first; the system takes as many as it wants (the paper: 4)."""
    return {"compress-kv.json": ranked_by_layer(heads.role("compress-kv", "semantic-retrieval"))}


def ranked_by_layer(scores: By) -> bytes:
    order = np.argsort(-scores, axis=1, kind="stable")
    return json_text(dict(enumerate(order.tolist()))).encode()


def ours(heads: HeadList) -> dict[str, bytes]:
    """Every role that was measured."""
    graph = heads.graph
    kept = {
        **heads.about,
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "n_kv_heads": graph.n_kv_heads,
        "roles": {
            name: {
                "scores": scores,
                "kv_groups": heads.groups(scores),
                "ranking": [graph.heads[i] for i in np.argsort(-scores.ravel(), kind="stable")],
                "by_layer": dict(enumerate(np.argsort(-scores, axis=1, kind="stable").tolist())),
            }
            for name, scores in heads.scores.items()
        },
    }
    return {"head-list.json": json_text(kept).encode()}


EXPORTS: Mapping[str, Callable[[HeadList], dict[str, bytes]]] = {
    "duo-attention": duo_attention,
    "razor-attention": razor_attention,
    "compress-kv": compress_kv,
    "json": ours,
}


def require_exports(names: tuple[str, ...]) -> None:
    """Raises UnknownNameError for what is no format."""
    for name in names:
        if name not in EXPORTS:
            raise UnknownNameError("head-list format", name, EXPORTS)
