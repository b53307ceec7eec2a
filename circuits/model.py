"""What the methods see of a model: a narrow protocol, so that they work on any that provides it.

The one idea: a run takes tokens, may read (capture) or change (edit) what passes at a few named sites, and
returns the logits behind the last token only; nobody reads the others. It may resume in the middle of another
run, from the residual stream before a layer and from the keys and values of the columns before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.engine.weights import Weights
from circuits.graph import Graph


class Site(NamedTuple):
    """A place in the forward pass, by layer.

    z      [batch, pos, head, d_head]: head outputs before W_O, all heads of a layer
    mlp    [batch, pos, d_model]: what the MLP writes to the residual stream
    input  [batch, pos, d_model]: the residual stream before the layer
    final  [batch, pos, d_model]: the residual stream after the last layer (layer is 0)
    pattern [batch, head, query, source]: where heads look; a model may have none to show
    """

    kind: Literal["z", "mlp", "input", "final", "pattern"]
    layer: int = 0


Edit = Callable[[Tensor], Tensor]
"""Takes what passes at a site and returns what shall pass instead (same shape; may edit in place)."""


LastLogitsMetric = Callable[[Float[Tensor, "batch vocab"]], Float[Tensor, "batch"]]
"""One value a prompt from the logits behind its last token."""


class Run(NamedTuple):
    """logits [batch, vocab] behind the last token, in fp32; captured: site -> tensor, detached."""

    logits: Float[Tensor, "batch vocab"]
    captured: dict[Site, Tensor]


@dataclass(frozen=True)
class Resume:
    """The middle of another run, where one goes on: below is what that run computed, and is not computed again.

    layer, residual: blocks below `layer` do not run; `residual` is what they put out, at the columns that run.
    past: from Model.past, for the columns before those; its prompts repeat as a whole if the batch is larger.
    """

    layer: int = 0
    residual: Float[Tensor, "batch pos d_model"] | None = None
    past: object = None


@dataclass(frozen=True)
class Resumption:
    """What a resumed run may leave out while its numbers stay the model's own: layers below, columns before."""

    layers: bool
    columns: bool

    def __str__(self) -> str:
        shared = " and ".join(name for name in ("layers", "columns") if getattr(self, name))
        return f"rows share {shared} with the base run" if shared else "rows run the whole model"


@dataclass(frozen=True)
class Unembedding:
    """The last LayerNorm and the unembedding, folded: logits = normalise(x) @ weight + bias.

    weight [d_model, vocab]: the norm's gain folded in; centred over d_model where the norm subtracts the mean.
    scale(x) [batch]: what the norm divides by, for x [batch, d_model].
    """

    weight: Float[Tensor, "d_model vocab"]
    bias: Float[Tensor, "vocab"]
    eps: float
    subtracts_mean: bool

    def scale(self, x: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch"]:
        centred = x - x.mean(-1, keepdim=True) if self.subtracts_mean else x
        return (centred.pow(2).mean(-1) + self.eps).sqrt()


@runtime_checkable
class Reader(Protocol):
    """How a model reads texts: its tokenizer, with what stands before every prompt."""

    @property
    def name(self) -> str: ...

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of `text` (beginning-of-sequence token included where the model wants one) and, for
        each, its character span in `text` ((0, 0) for special tokens). Raises PromptError for a text that
        is longer than the model's context."""

    def token_string(self, token: int) -> str:
        """How the vocabulary spells a token."""

    def is_unknown(self, token: int) -> bool:
        """Whether the token stands for words that the vocabulary lacks."""


@runtime_checkable
class Model(Reader, Protocol):
    """A decoder-only language model, in eval mode.

    device: where all that comes out of it lies, also where the model itself is spread over several.
    """

    @property
    def graph(self) -> Graph: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def d_model(self) -> int: ...
    @property
    def weights(self) -> Weights | None:
        """For the exact engine; None where it does not cover the model, which then takes the portable path."""

    @property
    def path(self) -> str:
        """Which path patching takes, in words, and why where it is not the engine."""

    @property
    def memory(self) -> int:
        """Bytes that work above the model may use at once."""

    def run(
        self,
        tokens: Int[Tensor, "batch pos"],
        *,
        capture: Collection[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        resume: Resume | None = None,
    ) -> Run:
        """One forward pass without gradients. Edits of a site happen before its capture.

        resume: `tokens`, and what is captured and edited, are those of the columns that run; sites below its
        layer are not passed. Only as far as `resumption` allows.
        """

    def past(self, tokens: Int[Tensor, "batch pos"]) -> object:
        """Keys and values of the columns `tokens`, for any number of resumed runs, none of which changes them."""

    def resumption(self, length: int, column: int) -> Resumption:
        """What runs that begin at `column` of prompts of `length` tokens may leave out. Probed at the first
        question (see circuits.engine.check), then known."""

    def gradients(
        self, tokens: Int[Tensor, "batch pos"], sites: Collection[Site], metric: LastLogitsMetric
    ) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
        """What passes at the sites, and the gradient there of the metric of each prompt; both detached.

        One forward pass and a backward."""

    def head_writer(
        self, layer: int
    ) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, "d_model"]]:
        """W_O by head, and the bias that attention adds once a layer (zero where there is none):
        attention writes sum_h z[h] @ W_O[h] + b_O."""

    def unembedding(self) -> Unembedding:
        """Raises ModelError where logits are no linear function of the normalised residual (soft caps)."""
