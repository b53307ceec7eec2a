"""What each head is worth for a task: single-head resample patching on a small network.

The noising effect of a head is the share of the logit difference that is lost when its output z, at all
positions, comes from the corrupted run: (clean - patched) / (clean - corrupt), mean over pairs. The shipped
cards state these numbers; the toolkit's own methods must find them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.prompts import PromptPair
from tasks.training.accuracy import by_length
from tasks.training.network import Edit, Network
from tasks.training.streams import BEGIN, Words


def head_name(layer: int, head: int) -> str:
    return f"a{layer}.h{head}"


def captured(network: Network, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The normalised residual stream, and z of every layer."""
    found: list[Tensor] = []

    def keep(layer: int, z: Tensor) -> Tensor:
        found.append(z)
        return z

    return network(tokens, edit=keep), found


def replaced(source: Sequence[Tensor], chosen: Tensor) -> Edit:
    """Takes z from `source` where `chosen` [layer, head] or [batch, layer, head] says so."""
    by_row = chosen if chosen.ndim == 3 else chosen[None]
    return lambda layer, z: torch.where(by_row[:, layer, None, :, None], source[layer], z)


def logit_differences(network: Network, hidden: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    logits = network.logits(hidden[:, -1])
    return (logits.gather(1, right[:, None]) - logits.gather(1, wrong[:, None]))[:, 0]


@torch.no_grad()
def head_effects(network: Network, words: Words, pairs: Sequence[PromptPair]) -> Float[Tensor, "layer head"]:
    """The noising effect of each head. Costs a forward pass for each head, and two more."""
    n_layers, n_heads = network.shape.n_layers, network.shape.n_heads
    lost, span = torch.zeros(n_layers, n_heads), 0.0
    for index, tokens in by_length(words, [pair.clean for pair in pairs]):
        corrupt = torch.tensor([(BEGIN, *words.encode(pairs[i].corrupt)) for i in index])
        right, wrong = (
            torch.tensor([words.encode(getattr(pairs[i], side)[0])[0] for i in index])
            for side in ("answers", "distractors")
        )
        source_hidden, source = captured(network, corrupt)
        clean = logit_differences(network, network(tokens), right, wrong).sum()
        span += float(clean - logit_differences(network, source_hidden, right, wrong).sum())
        for layer in range(n_layers):
            for head in range(n_heads):
                one = torch.zeros(n_layers, n_heads, dtype=torch.bool)
                one[layer, head] = True
                hidden = network(tokens, edit=replaced(source, one))
                lost[layer, head] += clean - logit_differences(network, hidden, right, wrong).sum()
    return lost / span


def named_effects(effects: Float[Tensor, "layer head"]) -> dict[str, float]:
    """Head name -> effect, largest first."""
    named = {
        head_name(layer, head): round(float(value), 4)
        for layer, row in enumerate(effects)
        for head, value in enumerate(row)
    }
    return dict(sorted(named.items(), key=lambda item: -item[1]))
