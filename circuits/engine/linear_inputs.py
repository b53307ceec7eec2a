"""What heads read, patched to first order: q, k, v and pattern, with softmax bent as it is (AtP*'s QK fix).

The one idea: behind a head's output everything is taken as linear, so all that is needed is the gradient there.
Queries and keys act through softmax, which a large change saturates; so the pattern is worked out anew with the
donor's query or key, and only what it leads to is linear. A key at one position moves one logit of each query, for
which there is a closed form; all keys of a head at once are another run of softmax.
Source: Kramár et al. 2024 (AtP*, arXiv 2403.00745), section 3.1; the closed form for keys is ours.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.engine.forward import Trace
from circuits.engine.inputs import LayerInputs
from circuits.engine.linear import Estimate, joined
from circuits.engine.weights import Weights


def input_effects(
    weights: Weights, own: Trace, given: Trace, slopes: tuple[Tensor, ...], length: int, qk_fix: bool
) -> Estimate:
    """Of head_part_names of every layer, in turn. slopes: gradient of the metric at z of each layer."""
    with torch.no_grad():
        found = [
            effect
            for layer, slope in enumerate(slopes)
            for effect in _layer(LayerInputs(weights, layer, own, given), slope, qk_fix)
        ]
    return joined(found, length)


def _layer(
    inputs: LayerInputs, slope: Float[Tensor, "prompt query head d_head"], qk_fix: bool
) -> Iterator[Estimate]:
    """In einsum's words: prompt p, query q, source s, kv head k, member of its group g, width d."""
    (k, v), (more_k, more_v) = (inputs.k[0], inputs.v[0]), (inputs.given_k[0], inputs.given_v[0])

    def shaped(x: Float[Tensor, "prompt kv_head 1 queries source"]) -> Tensor:
        return x.view(*x.shape[:2], inputs.n_queries, -1, x.shape[-1])

    def patterns(kind: str = "") -> Float[Tensor, "prompt kv_head query member source"]:
        return shaped(inputs.pattern(kind))

    def grouped(x: Float[Tensor, "prompt query head d_head"]) -> Tensor:
        return x.reshape(*x.shape[:2], k.shape[2], -1, x.shape[-1])

    scale = inputs.attention.layer.scale
    slope, q, given_q = grouped(slope), scale * grouped(inputs.q[0]), scale * grouped(inputs.given_q[0])
    own, to_pattern = patterns(), torch.einsum("pqkgd,pskd->pkqgs", slope, v)
    to_scores = own * (to_pattern - (own * to_pattern).sum(-1, keepdim=True))
    moved = torch.einsum("pqkgd,pskd->pkqgs", q, more_k - k)

    if qk_fix:
        yield _of_queries((patterns("q") - own) * to_pattern)
        together = ((patterns("k") - own) * to_pattern).sum((2, 3, 4)).T
        yield Estimate(
            one_logit_moved(shaped(inputs.scores()), moved, to_pattern).sum((2, 3)).transpose(0, 1), together
        )
    else:
        yield _of_queries(to_scores * torch.einsum("pqkgd,pskd->pkqgs", given_q - q, k))
        yield Estimate.adding_up((to_scores * moved).sum((2, 3)).transpose(0, 1))
    to_values = torch.einsum("pkqgs,pqkgd->pskd", own, slope)
    yield Estimate.adding_up((to_values * (more_v - v)).sum(-1).permute(2, 0, 1))
    yield _of_queries((patterns("pattern") - own) * to_pattern)


def _of_queries(effects: Float[Tensor, "prompt kv_head query member source"]) -> Estimate:
    return Estimate.adding_up(effects.sum(-1).permute(1, 3, 0, 2).flatten(0, 1))


def one_logit_moved(
    scores: Float[Tensor, "*rows source"],
    by: Float[Tensor, "*rows source"],
    slope: Float[Tensor, "*rows source"],
) -> Float[Tensor, "*rows source"]:
    """(softmax where this source's logit moves by so much - softmax) . slope, for each source alone.

    What a source gains is taken from the others alike, so it counts against their mean. The largest source has
    its own case: where softmax is saturated, the others must be summed without it, not as what it leaves of one.
    """
    pattern = scores.softmax(-1)
    largest = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.argmax(-1, keepdim=True), True)
    without = scores.masked_fill(largest, -torch.inf)
    share = pattern.masked_fill(largest, 0.0)
    others = scores.logsumexp(-1, keepdim=True) + (-share).log1p()
    others = torch.where(largest, without.logsumexp(-1, keepdim=True), others)
    mean = ((pattern * slope).sum(-1, keepdim=True) - pattern * slope) / (1 - share)
    # A first token sees itself alone: there are no others, and nothing changes.
    among_rest = without.softmax(-1).nan_to_num(0.0)
    mean = torch.where(largest, (among_rest * slope).sum(-1, keepdim=True), mean)
    return ((scores + by - others).sigmoid() - pattern) * (slope - mean)
