"""What each head is worth for a task: single-head resample patching on a small network.

The noising effect of a head is the share of the logit difference that is lost when its output z, at all
positions, comes from the corrupted run: (clean - patched) / (clean - corrupt), mean over pairs. The shipped
cards state these numbers; the toolkit's own methods must find them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.prompts import PromptPair
from tasks.training.accuracy import by_length
from tasks.training.network import Edit, Network
from tasks.training.rows import BEGIN, Words


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
def noising_effects(
    network: Network, words: Words, pairs: Sequence[PromptPair], chosen: Bool[Tensor, "set layer head"]
) -> Float[Tensor, set]:
    """The effect of replacing each set of heads at once. Costs a forward pass for each set, and two more."""
    lost, span = torch.zeros(len(chosen)), 0.0
    for index, tokens in by_length(words, [pair.clean for pair in pairs]):
        corrupt = torch.tensor([(BEGIN, *words.encode(pairs[i].corrupt)) for i in index])
        right, wrong = (
            torch.tensor([words.encode(getattr(pairs[i], side)[0])[0] for i in index])
            for side in ("answers", "distractors")
        )
        source_hidden, source = captured(network, corrupt)
        clean = logit_differences(network, network(tokens), right, wrong).sum()
        span += float(clean - logit_differences(network, source_hidden, right, wrong).sum())
        for number, heads in enumerate(chosen):
            hidden = network(tokens, edit=replaced(source, heads))
            lost[number] += clean - logit_differences(network, hidden, right, wrong).sum()
    return lost / span


def head_effects(network: Network, words: Words, pairs: Sequence[PromptPair]) -> Float[Tensor, "layer head"]:
    """The noising effect of each head alone."""
    n_layers, n_heads = network.shape.n_layers, network.shape.n_heads
    each = torch.eye(n_layers * n_heads, dtype=torch.bool).view(-1, n_layers, n_heads)
    return noising_effects(network, words, pairs, each).view(n_layers, n_heads)


def off_list(network: Network, listed: frozenset[str]) -> Bool[Tensor, "layer head"]:
    """Which heads are not on the list."""
    n_layers, n_heads = network.shape.n_layers, network.shape.n_heads
    return torch.tensor(
        [[head_name(la, he) not in listed for he in range(n_heads)] for la in range(n_layers)]
    )


def kept_alone(network: Network, words: Words, pairs: Sequence[PromptPair], listed: frozenset[str]) -> float:
    """The share of the logit difference that is left when all heads off the list are replaced at once."""
    return 1 - float(noising_effects(network, words, pairs, off_list(network, listed)[None]))


def named_effects(effects: Float[Tensor, "layer head"]) -> dict[str, float]:
    """Head name -> effect, largest first."""
    named = {
        head_name(layer, head): round(float(value), 4)
        for layer, row in enumerate(effects)
        for head, value in enumerate(row)
    }
    return dict(sorted(named.items(), key=lambda item: -item[1]))
