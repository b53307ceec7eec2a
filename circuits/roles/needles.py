"""Retrieval tests: prompts whose continuation stands in them, and where every head looks while it is said.

The one idea: a needle of random tokens, with a cue before it, lies somewhere among random tokens; the cue is said
again at the end, so a model that retrieves says the needle. A needle of one token is a key-value prompt. Where
prompts of a task are given, those whose answer stands in them take the place of needles.
Source: Wu et al. 2024 (arXiv 2404.15574) and their code: greedy decoding, heads judged by the pass that produces the
token, tests kept whose answer holds more than half of the needle. Random tokens instead of a book are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.engine.forward import steps
from circuits.engine.weights import Weights
from circuits.errors import CircuitError
from circuits.roles.attention import pattern
from circuits.roles.role import Evidence, Measured

TESTS, NEEDLE, LENGTH = 32, 5, 64
"""Tests of each needle length, tokens of the longer needle, and of a prompt where the context allows."""

ENOUGH = 0.5
"""Share of the needle that must have been said."""


class Needles(NamedTuple):
    """prompts end with the cue; the needle begins at `starts`, right behind where the cue stood first."""

    prompts: Int[Tensor, "test pos"]
    needle: Int[Tensor, "test m"]
    starts: Int[Tensor, "test"]


class Said(NamedTuple):
    """A token that the model said. looks: from the position that said it. needle: where the needle stands."""

    token: Int[Tensor, "test"]
    looks: Float[Tensor, "test head source"]
    prompt: Int[Tensor, "test source"]
    needle: Bool[Tensor, "test source"]

    @property
    def copied(self) -> Bool[Tensor, "test source"]:
        """Places of the needle that hold what was said."""
        return self.needle & (self.prompt == self.token[:, None])


def needles(evidence: Evidence) -> tuple[Needles, ...]:
    """Needles of one token and of NEEDLE, at depths from the first place to the last.

    Raises CircuitError for prompts that are too short for a needle, or too long for the model.
    """
    return tuple(_needles(evidence, m) for m in (1, NEEDLE))


def _needles(evidence: Evidence, m: int) -> Needles:
    longest, opening = evidence.weights.longest, evidence.opening
    length = evidence.length or min(LENGTH, longest - m + 1)
    n_body = length - len(opening) - 1
    if n_body < m + 2 or length + m - 1 > longest or len(evidence.tokens) < m + 2:
        raise CircuitError(
            f"A prompt of {length} tokens with a needle of {m} does not fit {evidence.model.name} (context "
            f"{longest}, {len(evidence.tokens)} tokens that stand for text): give a --length from "
            f"{NEEDLE + 3 + len(opening)} to {longest - NEEDLE + 1}."
        )
    draw = np.random.default_rng([evidence.seed, m])
    starts = np.linspace(1, n_body - m, TESTS).round().astype(int)
    rows, secrets = [], []
    for start in starts:
        tokens = draw.permutation(evidence.tokens)
        secret, rest = tokens[: m + 1], tokens[m + 1 :]
        hay = draw.choice(rest, n_body - m - 1)
        rows.append(np.concatenate([opening, hay[: start - 1], secret, hay[start - 1 :], secret[:1]]))
        secrets.append(secret[1:])
    parts = (np.stack(rows), np.stack(secrets), starts + len(opening))
    return Needles(*(torch.tensor(part.astype(np.int64), device=evidence.model.device) for part in parts))


def last_looks(
    weights: Weights, tokens: Int[Tensor, "test pos"]
) -> tuple[Float[Tensor, "test head source"], Float[Tensor, "test vocab"]]:
    """Where all heads look from the last position, and the logits there. One forward pass."""
    rows = []
    for depth, step in enumerate(steps(weights, weights.embed(tokens))):
        rows.append(pattern(weights, depth, step.before)[:, :, -1])
    return torch.cat(rows, 1), weights.logits(step.after[:, -1])


def told(weights: Weights, needles: Needles) -> tuple[list[Said], Bool[Tensor, "test"]]:
    """What the model says behind the prompts, greedily, and which tests it passes. A forward pass a token."""
    said, prompt, m = [], needles.prompts, needles.needle.shape[1]
    for _ in range(m):
        place = torch.arange(prompt.shape[1], device=prompt.device)[None] - needles.starts[:, None]
        looks, logits = last_looks(weights, prompt)
        token = logits.argmax(-1)
        said.append(Said(token, looks, prompt, (place >= 0) & (place < m)))
        prompt = torch.cat([prompt, token[:, None]], 1)
    spoken = torch.stack([one.token for one in said], 1)
    found = (needles.needle[:, :, None] == spoken[:, None]).any(2)
    return said, found.float().mean(1) > ENOUGH


def answered(evidence: Evidence) -> Iterator[tuple[list[Said], Bool[Tensor, "test"]]]:
    """The same of a task's prompts: one token, kept where it is an answer and stands in the prompt."""
    for batch in evidence.batches:
        looks, logits = last_looks(evidence.weights, batch.clean)
        token = logits.argmax(-1)
        right = torch.tensor(
            [int(t) in ids for t, ids in zip(token, batch.answers, strict=True)], device=token.device
        )
        stands = batch.clean == token[:, None]
        yield [Said(token, looks, batch.clean, stands)], right & stands.any(1)


def over_retrievals(evidence: Evidence, measure: Callable[[Said], tuple[Tensor, Tensor]]) -> Measured | None:
    """Mean of `measure` ([test, head], and its chance [test]) over the tokens of each passed test."""
    tests = (
        answered(evidence) if evidence.batches else (told(evidence.weights, one) for one in needles(evidence))
    )
    samples, chances = [], []
    for said, passed in tests:
        found = [measure(one) for one in said]
        samples.append(torch.stack([paid for paid, _ in found]).mean(0)[passed])
        chances.append(torch.stack([even for _, even in found]).mean(0)[passed])
    rows = torch.cat(samples)
    return Measured(rows, "retrieval", float(torch.cat(chances).mean())) if len(rows) else None


ABSENT = "finds no test that the model passes; give it a --task whose answers stand in the prompts"
