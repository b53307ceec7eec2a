"""How often a trained network is right on held-out prompts, by task and form."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

from circuits.prompts import PromptPair
from tasks import TASKS
from tasks.held_out import held_out
from tasks.training.network import Network
from tasks.training.rows import BEGIN, Words


def held_out_pairs(
    words: Words, task: str, form: str, n: int, seed: int, corruption: str | None = None
) -> list[PromptPair]:
    """n held-out pairs, drawn with replacement: a small form has few prompts that differ."""
    entry = TASKS.load(task)
    form, corruption = entry.choose(form, corruption)
    rng, found = random.Random(f"held out {task}/{form}/{corruption}/{seed}"), list[PromptPair]()
    while len(found) < n:
        pair = entry.generate(rng, words.lexicon, form, corruption)
        if held_out(pair):
            found.append(pair)
    return found


def by_length(words: Words, texts: Sequence[str]) -> Iterable[tuple[list[int], torch.Tensor]]:
    """(which texts, their tokens [batch, pos]) for each token length."""
    groups: dict[int, list[int]] = defaultdict(list)
    encoded = [(BEGIN, *words.encode(text)) for text in texts]
    for i, tokens in enumerate(encoded):
        groups[len(tokens)].append(i)
    for _, index in sorted(groups.items()):
        yield index, torch.tensor([encoded[i] for i in index])


@torch.no_grad()
def accuracy(network: Network, words: Words, pairs: Sequence[PromptPair]) -> float:
    """The share of clean prompts after which the most likely word of the whole vocabulary is the answer."""
    right = 0
    for index, tokens in by_length(words, [pair.clean for pair in pairs]):
        best = network.logits(network(tokens)[:, -1]).argmax(-1).tolist()
        right += sum(
            token == words.encode(pairs[i].answers[0])[0] for i, token in zip(index, best, strict=True)
        )
    return right / len(pairs)


def measure(
    network: Network, words: Words, forms: Iterable[tuple[str, str]], n: int, seed: int
) -> dict[str, dict[str, float]]:
    """task/form -> accuracy and n, on held-out prompts."""
    measured = {}
    for task, form in forms:
        share = accuracy(network, words, held_out_pairs(words, task, form, n, seed))
        measured[f"{task}/{form}"] = {"accuracy": round(share, 5), "n": n}
    return measured
