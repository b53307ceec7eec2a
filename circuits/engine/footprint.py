"""What the exact engine computes and holds, told from shapes alone, before anything runs.

The one idea: every matrix product of circuits.engine.forward and .exact follows from layers, rows, prompts and
columns, so what a row costs is counted, not guessed; the same arithmetic sizes the engine's chunks, the batches of
prompts, and the forecast of `circuit plan`. FLOPs are those of matrix products, multiplications and additions, as
torch.utils.flop_counter counts them. Tests hold both to what is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.engine.forward import mlp_tokens
from circuits.engine.weights import Affine, Weights
from circuits.errors import CircuitError
from circuits.memory import spell_bytes
from circuits.model import Model

Columns = tuple[int, int]
"""First column and the one behind the last."""

CHUNK_BYTES = 64 * 2**20
"""What rows take at once on a CPU, whatever the budget: more is no faster there, and what the system's allocator
does not give back in between grows with it."""

FLOAT = 4
"""Bytes of a number in fp32, which all activations of the engine are."""


@dataclass(frozen=True)
class Footprint:
    """A base run of `n_prompts` prompts of `length` tokens, and patched rows on it.

    first: the column from which rows can differ. resamples: whether the donor is a run of other tokens.
    """

    weights: Weights
    n_prompts: int
    length: int
    first: int
    resamples: bool = True

    @property
    def n_columns(self) -> int:
        """Columns that the base run keeps."""
        return self.length - self.first

    @property
    def head_width(self) -> int:
        return self.weights.n_heads * self.weights.d_head

    # What is held

    @property
    def held_bytes(self) -> int:
        """What the base run and the donor's hold."""
        return self._base_bytes + self.resamples * self._layers_bytes(self.n_columns, self._outputs)

    @property
    def making_bytes(self) -> int:
        """The most that is held while they are made: what is kept of either, and its last layer at work."""
        base = self._base_bytes + self.rows_bytes(1, self.length)
        return max(base, self.resamples * (self.held_bytes + self.rows_bytes(1, self.n_columns)))

    @property
    def _base_bytes(self) -> int:
        """Residual streams and head outputs of the columns that can change, keys and values of all."""
        streams = self._layers_bytes(self.n_columns, 2 * self.weights.d_model + self.head_width)
        answers = FLOAT * self.n_prompts * self.n_columns * self.weights.d_model
        known = self._layers_bytes(self.length, 2 * self.weights.n_kv_heads * self.weights.d_head)
        return streams + answers + known

    def _layers_bytes(self, n_columns: int, width: int) -> int:
        """`width` numbers a token, kept for every layer."""
        return FLOAT * len(self.weights.layers) * self.n_prompts * n_columns * width

    @property
    def _outputs(self) -> int:
        return self.weights.d_model + self.head_width

    def rows_bytes(self, n_rows: int, n_columns: int, n_logits: int = 0) -> int:
        """The most that `n_rows` rows of `n_columns` take while they run; n_logits: how many of each are read."""
        tokens = n_rows * self.n_prompts * n_columns
        in_mlp = tokens * self._mlp_streams + min(tokens, self._mlp_tokens) * self._hidden
        reading = n_rows * self.n_prompts * 3 * n_logits
        return FLOAT * max(tokens * self._attention_width, in_mlp, reading)

    def room(self, memory: int, device: torch.device) -> int:
        """What the base run and rows may take of a budget of `memory`."""
        return min(memory, self.held_bytes + CHUNK_BYTES) if device.type == "cpu" else memory

    def rows_at_once(self, n_columns: int, memory: int, n_logits: int = 0) -> int:
        """How many rows fit `memory` beside the base run; one at least."""
        room = (memory - self.held_bytes) // (FLOAT * self.n_prompts)
        hidden = max(
            room // (self._mlp_streams + self._hidden),
            (room - self._mlp_tokens * self._hidden // self.n_prompts) // self._mlp_streams,
        )
        rows = min(room // self._attention_width, hidden) // n_columns
        return max(1, min(rows, room // (3 * n_logits)) if n_logits else rows)

    @property
    def _attention_width(self) -> int:
        """Numbers a token at the height of attention: streams, queries, keys and values, scores or their mix."""
        weights, scores = self.weights, self.weights.n_heads * self.length
        projected = self.head_width + 2 * weights.n_kv_heads * weights.d_head
        earlier = weights.n_heads * self.first
        return 3 * weights.d_model + projected + scores + max(3 * self.head_width, scores + earlier)

    @property
    def _mlp_streams(self) -> int:
        return 5 * self.weights.d_model

    @property
    def _hidden(self) -> int:
        layer = self.weights.layers[0]
        return layer.mlp_in.weight.shape[1] * (3 if layer.gate else 1)

    @property
    def _mlp_tokens(self) -> int:
        """Tokens that the hidden layer of an MLP is computed for at once."""
        return mlp_tokens(self.weights.layers[0])

    # What is computed

    def columns(self, layer: int, where: Bool[Tensor, "prompt pos"] | None) -> Columns:
        """The columns that are replaced in some prompt and can change the answer."""
        first, end = self.first, self.length
        if where is not None:
            inside = where.any(0).nonzero()
            first = max(first, int(inside.min())) if len(inside) else self.length
            end = int(inside.max()) + 1 if len(inside) else self.length
        return (max(first, self.length - 1), end) if layer + 1 == len(self.weights.layers) else (first, end)

    @property
    def base_flops(self) -> int:
        """The base run over all columns, and the donor's over those behind the first difference."""
        donor = self.trace_flops(self.n_columns) if self.resamples else 0
        return self.trace_flops(self.length) + donor

    def trace_flops(self, n_columns: int, *, answer_alone: bool = False) -> int:
        """One run of the last `n_columns` columns, without logits.

        answer_alone: the last layer at the last of them alone.
        """
        last, first = len(self.weights.layers) - 1, self.length - n_columns
        below = sum(self._layer(layer, n_columns) for layer in range(last))
        if answer_alone:
            return below + self._block(1, last, (first, self.length), heads=True, mlp=True)
        return below + self._layer(last, n_columns)

    def _layer(self, layer: int, n_columns: int) -> int:
        parts = self.weights.layers[layer]
        per_token = sum(map(_flops, (parts.query, parts.key, parts.value, parts.out))) + _mlp(
            self.weights, layer
        )
        return self.n_prompts * n_columns * per_token + self._attention(1, n_columns)

    def linear_flops(self, *, drops: bool = False) -> int:
        """Of circuits.engine.linear.engine_linear: the donor's run, the base run over the columns that differ and the
        way back down to the first head outputs; drops: and from every layer's input for GradDrop. Without logits."""
        n_layers = len(self.weights.layers)
        donor = self.trace_flops(self.length, answer_alone=True) if self.resamples else 0
        there = self.trace_flops(self.n_columns, answer_alone=True)
        back = sum(self._back(layer) for layer in range(n_layers))
        again = sum(self._back(below) for layer in range(n_layers) for below in range(layer))
        return donor + there + back + drops * again

    def _back(self, layer: int) -> int:
        """Gradients through one layer; weights take none, and nobody asks below the heads of the first."""
        parts, last = self.weights.layers[layer], layer + 1 == len(self.weights.layers)
        n_queries = 1 if last else self.n_columns
        mlp = 0 if layer == 0 and self.weights.parallel else _mlp(self.weights, layer)
        behind = self.n_prompts * n_queries * (_flops(parts.out) + mlp)
        if layer == 0:
            return behind
        asking = self.n_columns if parts.joint else n_queries
        changed = self.n_columns * (_flops(parts.key) + _flops(parts.value)) + asking * _flops(parts.query)
        both = 4 * self.n_prompts * n_queries * (self.length + self.n_columns) * self.head_width
        return behind + self.n_prompts * changed + both

    def linear_edges_flops(self, n_points: int, own_run: bool) -> int:
        """Of circuits.engine.linear_edges.embedding_path_edges: passes, and what sources and readers meet in.

        own_run: whether the run itself is one more than the points. Without logits.
        """
        weights, tokens = self.weights, self.n_prompts * self.n_columns
        n_layers, beside = len(weights.layers), 0 if weights.parallel else weights.n_heads
        donor = self.trace_flops(self.length, answer_alone=True) if self.resamples else 0
        there = self.trace_flops(self.n_columns, answer_alone=True)
        back = sum(self._back_to_inputs(layer) for layer in range(n_layers))
        read = self.head_width + 2 * weights.n_kv_heads * weights.d_head
        width, pairs = 2 * tokens * weights.d_model, 1 + n_layers * (weights.n_heads + 1)
        for layer in range(n_layers):
            below = 1 + layer * (weights.n_heads + 1)
            pairs += below * (weights.n_heads + 2 * weights.n_kv_heads) + below + beside
        meeting = width * (pairs + n_layers * (self.head_width + n_points * read))
        return donor + own_run * there + n_points * (there + back) + meeting

    def _back_to_inputs(self, layer: int) -> int:
        """As _back, of the first layer too to what its heads and MLP read."""
        if layer:
            return self._back(layer)
        n_queries = 1 if len(self.weights.layers) == 1 else self.n_columns
        behind = self.n_prompts * n_queries * (_flops(self.weights.layers[0].out) + _mlp(self.weights, 0))
        return behind + 4 * self.n_prompts * n_queries * (self.length + self.n_columns) * self.head_width

    def logits_flops(self, n_rows: int, n_logits: int) -> int:
        return 2 * n_rows * self.n_prompts * self.weights.d_model * n_logits

    def rows_flops(
        self, keep: Bool[Tensor, "row layer unit"], layer: int, kind: str, columns: Columns, *, masked: bool
    ) -> int:
        """Rows that leave the base run together, at the heads ("z") or the MLP ("mlp") of `layer`, without logits.

        masked: whether outputs are replaced at some positions only, so that nothing may be left out.
        """
        first, end = columns
        start = self._start(keep, layer, end - first, masked) if kind == "z" else 0
        return start + sum(self._blocks(keep, layer + 1, columns, masked))

    def _start(self, keep: Bool[Tensor, "row layer unit"], layer: int, width: int, masked: bool) -> int:
        """See ExactRun._behind_attention."""
        weights, n_rows = self.weights, len(keep)
        touched = int((~keep[:, layer, :-1]).any(0).sum())
        written = 2 * self.n_prompts * width * weights.d_model * touched * (weights.d_head + n_rows)
        runs = not weights.parallel and (masked or bool(keep[:, layer, -1].any()))
        return written + runs * n_rows * self.n_prompts * width * _mlp(weights, layer)

    def _blocks(
        self, keep: Bool[Tensor, "row layer unit"], layer: int, columns: Columns, masked: bool
    ) -> Iterator[int]:
        """See circuits.engine.forward.climb: a layer at a time."""
        first, end = columns
        for depth in range(layer, len(self.weights.layers)):
            heads, mlp = (bool(keep[:, depth, units].any()) or masked for units in (slice(-1), -1))
            yield self._block(len(keep), depth, (first, end), heads, mlp)
            end = self.length

    def _block(self, n_rows: int, depth: int, columns: Columns, heads: bool, mlp: bool) -> int:
        """One layer of all rows; heads, mlp: whether any row keeps, and so computes, what they put out."""
        weights, (first, end) = self.weights, columns
        at = self.length - 1 if depth + 1 == len(weights.layers) else first
        n_queries = self.length - at
        written = (n_rows if heads else 1) * self.n_prompts * n_queries * _flops(weights.layers[depth].out)
        total = written + mlp * n_rows * self.n_prompts * n_queries * _mlp(weights, depth)
        return total + heads * self._z(n_rows, depth, (first, end), at)

    def _z(self, n_rows: int, depth: int, columns: Columns, at: int) -> int:
        """Queries, keys, values and the pattern between them; columns behind `columns` are the base run's."""
        (first, end), layer = columns, self.weights.layers[depth]
        own = end - first
        asking = own if layer.joint else max(0, end - max(at, first))
        changed = own * (_flops(layer.key) + _flops(layer.value)) + asking * _flops(layer.query)
        shared = (self.length - max(at, end)) * _flops(layer.query)
        projected = self.n_prompts * (n_rows * changed + shared)
        return projected + self._attention(n_rows, self.length - at)

    def _attention(self, n_rows: int, n_queries: int) -> int:
        """Scores and the mix of values, over all columns."""
        return 4 * n_rows * self.n_prompts * n_queries * self.length * self.head_width


def _flops(affine: Affine) -> int:
    """Of one token."""
    return 2 * affine.weight.shape[0] * affine.weight.shape[1]


def _mlp(weights: Weights, layer: int) -> int:
    parts = weights.layers[layer]
    return _flops(parts.mlp_in) + _flops(parts.mlp_out) + (_flops(parts.gate) if parts.gate else 0)


def prompts_at_once(model: Model, length: int, first: int) -> int:
    """How many prompts of `length` tokens fit half of the model's memory budget; the other half is for rows.

    first: the column from which clean and corrupt prompts differ. Raises CircuitError where not even one prompt
    fits the whole budget.
    """
    held, row = _prompt_bytes(model, length, first)
    if held + row > model.memory:
        raise CircuitError(
            f"A prompt of {length} tokens needs {spell_bytes(held + row)} in {model.name}, and the memory budget is "
            f"{spell_bytes(model.memory)}. Give more (such as --memory {_rounded_up(held + row)}), or use shorter "
            "prompts or a smaller model."
        )
    return max(1, model.memory // 2 // max(held, row))


def _prompt_bytes(model: Model, length: int, first: int) -> tuple[int, int]:
    """What one prompt takes: its base run, and a row on it, at worst of all ablations."""
    if model.weights is None or length > model.weights.longest:
        return portable_held_bytes(model, 1, length, 0), portable_row_bytes(model, 1, length, 0)
    resampled, constant = (
        Footprint(model.weights, 1, length, first),
        Footprint(model.weights, 1, length, 0, False),
    )
    return max(resampled.making_bytes, constant.making_bytes), constant.rows_bytes(1, length)


def portable_row_bytes(model: Model, n_prompts: int, length: int, column: int, n_logits: int = 0) -> int:
    """Memory of one row from `column` on of a model that the engine does not cover: an estimate, for it tells neither
    its MLP's width nor its kernels.

    For each token the block at work holds some 8 vectors of d_model (residual streams, norms, queries, keys,
    values, head outputs), an MLP four times as wide with a gate (12), and scores thrice (masked, softmax);
    for each prompt keys and values of all columns, repeated and joined (4), and the last logits, read in fp32 (3).
    """
    token = 20 * model.d_model + 3 * model.graph.n_heads * length
    prompt = 4 * model.d_model * length + 3 * n_logits
    return FLOAT * n_prompts * ((length - column) * token + prompt)


def portable_held_bytes(model: Model, n_prompts: int, length: int, column: int) -> int:
    """The same of a base run and a donor's: residual streams and outputs from `column` on; of the columns before,
    keys and values as if no heads shared them."""
    vectors = 3 * (length - column) + 2 * column
    return FLOAT * n_prompts * model.graph.n_layers * vectors * model.d_model


def _rounded_up(size: int) -> str:
    """An amount of memory that holds `size` bytes, in few digits."""
    unit, name = (10**9, "GB") if size >= 10**9 else (10**6, "MB")
    return f"{-(-size // unit)}{name}"
