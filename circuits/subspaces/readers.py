"""What reads at a place, and which part of the space it can see: the row space of its weights.

The one idea: a direction is the sum of a part that the reading weights see and a part that they are blind to. For an
MLP's activations the reader is its output matrix, all of it. A residual stream has many readers, of which all
together see everything, so the test needs some that are named (Makelov et al. 2023 take the queries of the three name
movers). Where nobody names them we take the parts above through which the source's value changes the logit difference
most, up to three (our definition): heads, by attribution patching of what they put out, which read with their queries
at the last token and with keys and values elsewhere; and the unembedding, by what the change does to the last norm's
input directly, which sees what tells the answers of all prompts apart. The list ends before it sees over half of the
space: where the first alone does, nothing is split, for a test that leaves the main reader out would take what it
reads for unread. MLPs above are left out: each sees all of the stream.
Source: Makelov et al. 2023 (arXiv 2311.17030).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.forward import climb
from circuits.engine.weights import Affine, Norm, Weights
from circuits.errors import CircuitError
from circuits.graph import LOGITS, Graph
from circuits.metrics import logit_difference
from circuits.subspaces.directions import spanned
from circuits.subspaces.place import Place, stream_behind
from circuits.subspaces.swaps import Swap

DEFAULT = 3
"""Heads, or the unembedding, that are taken for readers where none is named."""


def require_readers(names: Sequence[str], place: Place, graph: Graph) -> tuple[str, ...]:
    """The names, a head standing for all its inputs. Raises CircuitError for one that the model lacks, or that does
    not read at the place."""
    if names and not place.in_stream:
        raise CircuitError(
            f"--reader {names[0]} reads the residual stream; {place} is read by the MLP's own output matrix alone. "
            "Leave --reader out."
        )
    found: dict[str, None] = {}
    for name in names:
        inputs = graph.inputs(name) if "<" not in name else (name,)
        for each in inputs:
            if each not in graph.readers:
                raise CircuitError(
                    f"Nothing reads as {each!r} in a model of {graph.n_layers} layers x {graph.n_heads} heads. Name "
                    f"a head's input, such as {graph.inputs(graph.heads[-1])[0]}, a head, an MLP, or logits."
                )
            node = graph.node(each.split("<")[0])
            from_mid = place.kind in ("resid_mid", "attn_out") and node.kind == "mlp" and not graph.parallel
            if node.layer < place.above - from_mid:
                raise CircuitError(
                    f"{name} reads before {place} is written. Name one of a later layer, or logits."
                )
            found[each] = None
    return tuple(found)


def row_space(
    weights: Weights, place: Place, readers: Sequence[str], tokens: Collection[int]
) -> Float[Tensor, "width seen"]:
    """Orthonormal columns that span what the readers see; of the unembedding what tells `tokens` apart; of an MLP's
    activations what its output matrix reads."""
    if not place.in_stream:
        return spanned(weights.layers[place.layer].mlp_out.weight.float())
    parts = [_matrix(weights, name) if name != LOGITS else _unembedding(weights, tokens) for name in readers]
    return spanned(torch.cat(parts, 1)) if parts else weights.final_norm.gain.new_zeros(weights.d_model, 0)


def answers_of(some: Sequence[Swap]) -> set[int]:
    """The tokens that any prompt has for an answer."""
    return {
        token for swap in some for side in (swap.right, swap.counterfactual) for ids in side for token in ids
    }


def _unembedding(weights: Weights, tokens: Collection[int]) -> Float[Tensor, "d_model token"]:
    some = weights.unembed.weight[:, sorted(tokens)].float()
    return _behind(weights.final_norm, some - some.mean(1, keepdim=True))


def _matrix(weights: Weights, name: str) -> Float[Tensor, "d_model column"]:
    node, _, kind = name.partition("<")
    layer = weights.layers[int(node.lstrip("am").split(".")[0])]
    if not kind:
        sides = [layer.mlp_in] if layer.gate is None else [layer.mlp_in, layer.gate]
        return _behind(layer.mlp_norm, torch.cat([side.weight.float() for side in sides], 1))
    side: Affine = {"q": layer.query, "k": layer.key, "v": layer.value}[kind[0]]
    head = int(node.split("h")[1])
    if kind[0] != "q":
        head //= weights.n_heads // weights.n_kv_heads
    part = slice(head * weights.d_head, (head + 1) * weights.d_head)
    return _behind(layer.attention_norm, side.weight[:, part].float())


def _behind(norm: Norm, matrix: Float[Tensor, "d_model column"]) -> Float[Tensor, "d_model column"]:
    """How the matrix reads the stream before the norm, its scale aside: gain folded in, blind to the mean."""
    folded = norm.gain[:, None] * matrix
    return folded - folded.mean(0) if norm.centres else folded


def likely_readers(some: Sequence[Swap], graph: Graph, n: int = DEFAULT) -> tuple[str, ...]:
    """Those through which the whole source value passes most, see the module; none for an MLP's activations.

    Two passes of the layers above and one back, a prompt and way.
    """
    if not some or not some[0].place.in_stream:
        return ()
    effects: dict[str, float] = {}
    at_last = all(swap.at_last for swap in some)
    for swap in some:
        for name, effect in _effects(swap).items():
            effects[name] = effects.get(name, 0.0) + effect
    if not at_last:
        effects.pop(LOGITS, None)
    first, found = some[0], tuple[str, ...]()
    for name in sorted(effects, key=lambda name: -abs(effects[name]))[:n]:
        more = tuple(dict.fromkeys((*found, *_inputs(name, graph, at_last))))
        if 2 * row_space(first.weights, first.place, more, answers_of(some)).shape[1] > first.value.shape[1]:
            break
        found = more
    return found


def _inputs(name: str, graph: Graph, at_last: bool) -> tuple[str, ...]:
    if name == LOGITS:
        return (LOGITS,)
    if at_last:
        return (f"{name}<q>",)
    group, node = graph.n_heads // graph.n_kv_heads, graph.node(name)
    leader = f"a{node.layer}.h{node.index - node.index % group}"
    return f"{leader}<k>", f"{leader}<v>"


def _effects(swap: Swap) -> dict[str, float]:
    """Summed over prompts: (patched - base) times the gradient at the base, for heads above and the last norm."""
    base, slopes = _outputs(swap, swap.value, with_slopes=True)
    patched, _ = _outputs(swap, swap.value + swap.difference)
    found: dict[str, float] = {}
    for layer, slope in slopes.items():
        if layer == LOGITS:
            continue
        by_head = ((patched[layer] - base[layer]) * slope).sum((0, 1, 2, 4))
        found |= {f"a{layer}.h{head}": float(effect) for head, effect in enumerate(by_head)}
    places = swap.weights, swap.place, swap.base, swap.columns
    with torch.no_grad():
        one, two = (
            stream_behind(*places, value[None]) for value in (swap.value, swap.value + swap.difference)
        )
    return found | {LOGITS: float(((two - one) * slopes[LOGITS]).sum())}


def _outputs(
    swap: Swap, value: Tensor, with_slopes: bool = False
) -> tuple[dict[str | int, Tensor], dict[str | int, Tensor]]:
    """z of each layer above, and the last residual under "logits"; and gradients of the logit difference there."""
    seen: dict[str | int, Tensor] = {}

    def keep(kind: str, depth: int, first: int, compute: Callable[[], Tensor]) -> Tensor:
        output = compute()
        if kind == "z":
            seen[depth] = output
        return output

    with torch.set_grad_enabled(with_slopes):
        x = swap.stream(value.clone().requires_grad_(with_slopes)[None])
        end = climb(swap.weights, swap.base, swap.place.above, x, swap.base.first, keep)
        seen[LOGITS] = end
        if not with_slopes:
            return seen, {}
        total = logit_difference(swap.weights.logits(end)[0], swap.right, swap.counterfactual).sum()
        slopes = torch.autograd.grad(total, list(seen.values()))
    return {k: v.detach() for k, v in seen.items()}, dict(zip(seen, slopes, strict=True))
