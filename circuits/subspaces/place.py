"""A place in the forward pass where a subspace is looked for: a stream or an activation, a layer, a token.

The one idea: what passes at a place is a part of one residual stream at one column, so any change of it is a change
of that stream before some layer, and only the layers from there on have to run anew. Names are TransformerLens's
without `hook_`: resid_post.2/END is the residual stream behind layer 2 at the token that prompts call END.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.batches import Batch
from circuits.engine.forward import Trace, hidden, mlp
from circuits.engine.weights import Weights
from circuits.errors import CircuitError, UnknownNameError
from circuits.interventions.positions import require_named

KINDS = {
    "resid_pre": "the residual stream before the layer",
    "resid_mid": "the residual stream behind its attention",
    "resid_post": "the residual stream behind it",
    "attn_out": "what its heads write together",
    "mlp_post": "its MLP's activations, before they are written",
    "mlp_out": "what its MLP writes",
}
_NAME = re.compile(r"([a-z_]+)\.(\d+)(?:/(.+))?")


@dataclass(frozen=True)
class Place:
    """kind: see KINDS. position: as prompts name it; the last token where empty."""

    kind: str
    layer: int
    position: str = ""

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}" + (f"/{self.position}" if self.position else "")

    @property
    def above(self) -> int:
        """The first layer that a change here is felt in."""
        return self.layer + (self.kind != "resid_pre")

    @property
    def in_stream(self) -> bool:
        """Whether it holds residual streams or what is written to them, which any later part may read."""
        return self.kind != "mlp_post"


def place_named(text: str, n_layers: int) -> Place:
    """The place that `text` names. Raises CircuitError where it names none, or the model has no such layer."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise CircuitError(
            f"{text!r} is no site. Write KIND.LAYER/POSITION, such as resid_post.{n_layers - 2}/END; without a "
            f"position it is the last token. Kinds: {', '.join(KINDS)}."
        )
    kind, layer = match[1], int(match[2])
    if kind not in KINDS:
        raise UnknownNameError("kind of site", kind, KINDS)
    if layer >= n_layers:
        raise CircuitError(
            f"{text}: there is no layer {layer}; the model has layers 0 to {n_layers - 1}. Choose one of them."
        )
    return Place(kind, layer, match[3] or "")


def columns_of(place: Place, batches: Sequence[Batch], n_layers: int) -> list[Int[Tensor, "prompt"]]:
    """The column of the place in each prompt, batch by batch.

    Raises CircuitError for a position that some prompt does not name, and for one behind which nobody reads.
    """
    if not place.position:
        return [torch.full((len(batch),), batch.clean.shape[1] - 1) for batch in batches]
    require_named(batches, (place.position,), "prompts")
    found = [torch.tensor([pair.positions[place.position] for pair in batch.pairs]) for batch in batches]
    last = all(bool((c == b.clean.shape[1] - 1).all()) for c, b in zip(found, batches, strict=True))
    if place.above == n_layers and not last:
        raise CircuitError(
            f"{place}: behind the last layer only the last token is read, and {place.position} is not always that. "
            "Choose an earlier layer, or another position."
        )
    return found


def width(weights: Weights, place: Place) -> int:
    """How many dimensions the place has."""
    return weights.d_model if place.in_stream else weights.layers[place.layer].mlp_in.weight.shape[1]


def values(
    weights: Weights, place: Place, run: Trace, columns: Int[Tensor, "prompt"]
) -> Float[Tensor, "prompt width"]:
    """What passes at the place in a run."""
    before, between, after = _streams(place, run, columns)
    match place.kind:
        case "resid_pre":
            return before
        case "resid_mid":
            return between
        case "resid_post":
            return after
        case "attn_out":
            return between - before
        case "mlp_out":
            return after - between
    return hidden(weights.layers[place.layer], before if weights.parallel else between)


def stream_behind(
    weights: Weights,
    place: Place,
    run: Trace,
    columns: Int[Tensor, "prompt"],
    value: Float[Tensor, "row prompt width"],
) -> Float[Tensor, "row prompt d_model"]:
    """The residual stream before layer `place.above` at the column, had the place passed `value`. Differentiable."""
    layer = weights.layers[place.layer]
    before, between, _ = _streams(place, run, columns)
    match place.kind:
        case "resid_pre" | "resid_post":
            return value
        case "mlp_out":
            return between + value
        case "mlp_post":
            return between + layer.mlp_out(value)
    middle = before + value if place.kind == "attn_out" else value
    return middle + mlp(layer, before.expand_as(middle) if weights.parallel else middle)


def _streams(place: Place, run: Trace, columns: Int[Tensor, "prompt"]) -> tuple[Tensor, Tensor, Tensor]:
    rows, at = torch.arange(len(columns)), columns - run.first
    streams = run.before[place.layer], run.between[place.layer], run.residual(place.layer + 1)
    before, between, after = (stream[rows, at] for stream in streams)
    return before, between, after
