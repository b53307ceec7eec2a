"""Direct and total effects on the right label's net logit, and what every node writes for every label.

The one idea: with m the right label's logit less the mean over the labels,
    net_n[l] = (w_n / s) . (W_U[l] - mean over labels of W_U)          what node n writes for label l: they sum to m
    DE_n     = ((w_n(x) - w_n(x')) / s) . (W_U[right] - mean W_U)      n as on x', for the last residual alone
    TE_n     = m(x) - m(x, n <- n(x')),                                n as on x', and all behind it computed anew
w_n what n writes at the last token, s the last norm's scale on x, frozen but for TE, which patches n at all tokens.
The net logit of the right label is (labels - 1) / labels of logit-attribution's score, and TE the same of
activation-patching's, since the mean over all labels holds the right one too.
Source: Lieberum et al. 2023 (arXiv 2307.09458). Cost: a forward pass of x and x', and one for each component.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.answers.labels import Labels, in_order, net, on_right
from circuits.batches import Batch
from circuits.engine.forward import steps
from circuits.engine.weights import Weights
from circuits.graph import INPUT
from circuits.methods import activation_patching
from circuits.methods.logit_attribution import unembedding_of
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.removal import weights_of

BIASES = "biases"


@dataclass(frozen=True)
class Written:
    """onto: what each part writes onto each label's logit before the last norm divides; scale: what that divides by.

    Parts: components, input, biases of attention. constant: what is added behind the norm, by label.
    """

    onto: Float[np.ndarray, "prompt part label"]
    scale: Float[np.ndarray, "prompt"]
    constant: Float[np.ndarray, "label"]

    def logits(self) -> Float[np.ndarray, "prompt part label"]:
        """The parts of the labels' logits, all constants in the last."""
        parts = self.onto / self.scale[:, None, None]
        parts[:, -1] += self.constant
        return np.asarray(parts)


@dataclass(frozen=True)
class Effects:
    """parts: components, then input; net has the biases behind them, and NaN for labels that are not a prompt's.

    centred: m of x and of x'. All in logits, prompts in the order of the prompt set.
    """

    parts: tuple[str, ...]
    net: Float[np.ndarray, "prompt part_and_biases label"]
    direct: Float[np.ndarray, "prompt part"]
    total: Float[np.ndarray, "prompt part"]
    centred: Float[np.ndarray, "prompt side"]


def written(model: Model, batches: Sequence[Batch], tokens: Sequence[int], side: str = "clean") -> Written:
    """One forward pass. side: clean or corrupt. Needs the engine, see circuits.patching.require_engine."""
    weights = weights_of(model, batches)
    ids = torch.tensor(tokens, device=model.device)
    found = unembedding_of(weights, ids)
    parts, scales = [], []
    with torch.inference_mode():
        for batch in batches:
            onto, final = _onto(weights, getattr(batch, side), found.weight)
            parts.append(onto)
            scales.append(found.scale(final))
    constant = found.bias.double().cpu().numpy()
    return Written(in_order(batches, parts), in_order(batches, scales), constant)


def _onto(
    weights: Weights, tokens: Int[Tensor, "prompt pos"], labels: Float[Tensor, "d_model label"]
) -> tuple[Float[Tensor, "prompt part label"], Float[Tensor, "prompt d_model"]]:
    """Layer by layer, so that no layer's outputs are held behind it."""
    x = weights.embed(tokens)
    columns, bias = [], x.new_zeros(weights.d_model)
    for layer, step in zip(weights.layers, steps(weights, x, answer_alone=True), strict=True):
        writer = layer.out.weight.float().view(weights.n_heads, weights.d_head, -1)
        columns.append(torch.einsum("phd,hdl->phl", step.z[:, -1].float(), writer @ labels))
        columns.append(((step.after - step.between)[:, -1].float() @ labels)[:, None])
        bias = bias if layer.out.bias is None else bias + layer.out.bias.float()
        final = step.after[:, -1].float()
    constants = (bias @ labels).expand(len(tokens), 1, -1)
    return torch.cat([*columns, (x[:, -1].float() @ labels)[:, None], constants], 1), final


def effects(model: Model, batches: Sequence[Batch], labels: Labels, progress: Progress = silent) -> Effects:
    clean, corrupt = (written(model, batches, labels.tokens, side) for side in ("clean", "corrupt"))
    own, right = labels.own, labels.right
    change = (clean.onto - corrupt.onto)[:, :-1] / clean.scale[:, None, None]
    centred = np.stack([on_right(net(one.logits().sum(1), own), right) for one in (clean, corrupt)], 1)
    total = patched_alone(model, batches, labels, progress)
    # To patch the input is to run the other prompt.
    swapped = (centred[:, 0] - centred[:, 1])[:, None]
    return Effects(
        (*model.graph.components, INPUT),
        net(clean.logits(), own),
        on_right(net(change, own), right),
        np.concatenate([total, swapped], 1),
        centred,
    )


def patched_alone(
    model: Model, batches: Sequence[Batch], labels: Labels, progress: Progress = silent
) -> Float[np.ndarray, "prompt component"]:
    """TE of every component."""
    problem = Problem(tuple(batches), logit_difference, progress=progress)
    scores = activation_patching.score(model, problem, activation_patching.ActivationPatchingOptions())
    return np.asarray(scores.samples * wrong_share(labels)[:, None])


def wrong_share(labels: Labels) -> Float[np.ndarray, "prompt"]:
    """What m is of the logit difference between right and wrong labels."""
    return np.asarray((labels.own & ~labels.right).sum(1) / labels.own.sum(1))
