"""Where the heads of a network look, between the named positions of a task's prompts.

Read with the effects: a head that matters and looks from END to the asked thing moves it; one that looks from
each word to the word before is a previous-token head. Attention alone proves nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.prompts import PromptPair
from tasks.training.accuracy import by_length
from tasks.training.network import Block, Network
from tasks.training.rows import Words
from tasks.training.vocabulary import split

LEAST_SHOWN = 0.3


@torch.no_grad()
def patterns(
    network: Network, tokens: Int[Tensor, "batch pos"]
) -> list[Float[Tensor, "batch head dest source"]]:
    """The attention of every layer."""
    found = []
    x = network.wte(tokens) + network.wpe(torch.arange(tokens.shape[1]))
    future = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
    for block in network.blocks:
        assert isinstance(block, Block)
        normed = block.ln_1(x)
        q, k = (part(normed).unflatten(-1, (block.n_heads, -1)) for part in (block.query, block.key))
        scores = torch.einsum("bdhk,bshk->bhds", q, k) / q.shape[-1] ** 0.5
        found.append(scores.masked_fill(future, -torch.inf).softmax(-1))
        x = block(x)
    return found


def _places(pair: PromptPair) -> dict[str, int]:
    """Named position -> index of its token, the beginning counted."""
    return {name: len(split(pair.clean[:stop])) for name, (_, stop) in pair.positions.items()}


def links(
    network: Network, words: Words, pairs: Sequence[PromptPair], heads: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Head -> "DEST->SOURCE" -> mean attention, for each pair of different named positions."""
    wanted = {head: tuple(int(part[1:]) for part in head.split(".")) for head in heads}
    total: dict[str, dict[str, float]] = {head: defaultdict(float) for head in wanted}
    for index, tokens in by_length(words, [pair.clean for pair in pairs]):
        attention = patterns(network, tokens)
        for row, i in enumerate(index):
            places = _places(pairs[i])
            for head, (layer, number) in wanted.items():
                pattern = attention[layer][row, number].tolist()
                for dest, d in places.items():
                    for source, s in places.items():
                        if s < d:
                            total[head][f"{dest}->{source}"] += pattern[d][s] / len(pairs)
    return {
        head: {link: round(value, 2) for link, value in found.items() if value >= LEAST_SHOWN}
        for head, found in total.items()
    }
