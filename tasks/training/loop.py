"""The training loop: one forward and backward pass for each stream and step, then one update.

The one idea: no packing and no padding tricks; each stream's rows form a batch of their own length.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from tasks.arithmetic import RESULTS
from tasks.training.network import Network, start
from tasks.training.optimiser import Optimiser
from tasks.training.recipe import (
    LEARNING_RATE,
    LM_SHARE,
    LM_WEIGHT,
    OFFSET_SHARE,
    WARM_UP,
    WITHOUT_LM,
    Recipe,
    Stage,
)
from tasks.training.rows import BEGIN, N_SPECIAL, Row, Words
from tasks.training.streams import STREAMS

Report = Callable[[str], None]
AfterStep = Callable[[Network, int], None]
"""Told the network and how many steps are done: 0 before the first. Must not change the network."""
NOTHING = -100
SMOOTHING = 0.9


@dataclass(frozen=True)
class TokenBatch:
    """targets: the token that must come next, or NOTHING."""

    tokens: Int[Tensor, "batch pos"]
    targets: Int[Tensor, "batch pos"]


def collate(rows: Sequence[Row]) -> TokenBatch:
    """Rows side by side, filled up on the right with BEGIN, which no target asks for."""
    width = max(len(row.tokens) for row in rows)
    tokens = torch.full((len(rows), width), BEGIN)
    targets = torch.full((len(rows), width), NOTHING)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        for place, token in row.targets.items():
            targets[i, place] = token
    return TokenBatch(tokens, targets)


@dataclass
class Progress:
    """What training has done so far. right: stream -> smoothed share of right answers."""

    steps: int = 0
    seen: set[int] = field(default_factory=set)
    right: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    stages: dict[str, int] = field(default_factory=dict)

    def passed(self, gate: Mapping[str, float]) -> bool:
        return bool(gate) and all(self.right[name] >= share for name, share in gate.items())


def _language_targets(batch: TokenBatch, generator: torch.Generator) -> Tensor:
    """The next token at a random quarter of the places without a target."""
    following = torch.full_like(batch.tokens, NOTHING)
    following[:, :-1] = batch.tokens[:, 1:]
    chosen = torch.rand(batch.tokens.shape, generator=generator) < LM_SHARE
    return following.masked_fill(~chosen | (batch.targets != NOTHING) | (following == BEGIN), NOTHING)


def batch_loss(
    network: Network, batch: TokenBatch, language: Tensor | None = None, offset: int = 0
) -> tuple[Tensor, float]:
    """Cross-entropy of the targets plus LM_WEIGHT times that of `language`; and the share of right ones."""
    hidden = network(batch.tokens, offset=offset)
    asked = batch.targets != NOTHING
    logits, wanted = network.logits(hidden[asked]), batch.targets[asked]
    loss = functional.cross_entropy(logits, wanted)
    right = float((logits.detach().argmax(-1) == wanted).float().mean())
    if language is not None and (said := language != NOTHING).any():
        loss = loss + LM_WEIGHT * functional.cross_entropy(network.logits(hidden[said]), language[said])
    return loss, right


def scaled(stage: Stage, steps_scale: float) -> int:
    """How many steps the stage has at most."""
    return max(1, round(stage.max_steps * steps_scale))


class Trainer:
    """A network, its optimiser and its two sources of chance, all from one seed."""

    def __init__(self, recipe: Recipe, seed: int, report: Report = lambda text: None) -> None:
        self.words, self.report = Words(known=recipe.words()), report
        self.recipe, self.seed = recipe, seed
        self.rng = random.Random(f"circuit train {seed}")
        self.generator = torch.Generator().manual_seed(seed + 1)
        self.network = Network(recipe.shape, len(self.words.ids))
        start(self.network, range(N_SPECIAL, N_SPECIAL + len(RESULTS)), seed, recipe.back)
        self.first_embedding = self.network.wte.weight.detach().clone()
        self.progress = Progress()

    def _stream(self, name: str, stage: Stage) -> float:
        batch = collate([STREAMS[name](self.words, self.rng) for _ in range(stage.rows[name])])
        self.progress.seen.update(batch.tokens.flatten().tolist(), batch.targets.flatten().tolist())
        offset = 0
        if name in stage.offsets and self.rng.random() < OFFSET_SHARE:
            offset = self.rng.randrange(self.recipe.shape.n_ctx - batch.tokens.shape[1] + 1)
        language = None if name in WITHOUT_LM else _language_targets(batch, self.generator)
        loss, right = batch_loss(self.network, batch, language, offset)
        loss.backward()  # type: ignore[no-untyped-call]
        return right

    def _fresh_embeddings(self) -> None:
        """Words that no stream has shown yet go back to where they started: they have only drifted."""
        unseen = [i for i in range(len(self.first_embedding)) if i not in self.progress.seen]
        with torch.no_grad():
            self.network.wte.weight[unseen] = self.first_embedding[unseen]

    def run_stage(
        self, stage: Stage, max_steps: int, after_step: AfterStep = lambda network, step: None
    ) -> None:
        """Trains until the gate is passed or max_steps are done."""
        optimiser, progress, began = (
            Optimiser(self.network, LEARNING_RATE),
            self.progress,
            time.process_time(),
        )
        self._fresh_embeddings()
        progress.right.clear()
        for step in range(max_steps):
            scale = min(1.0, (step + 1) / WARM_UP)
            if stage.falls:
                scale = min(scale, 1 - step / max_steps)
            for name in stage.rows:
                right = self._stream(name, stage)
                progress.right[name] = SMOOTHING * progress.right[name] + (1 - SMOOTHING) * right
            optimiser.step(scale)
            progress.steps += 1
            after_step(self.network, progress.steps)
            done = progress.passed(stage.gate)
            if done or step % 20 == 19 or step + 1 == max_steps:
                shares = " ".join(f"{name} {share:.3f}" for name, share in progress.right.items())
                self.report(f"{stage.name} {step + 1} {time.process_time() - began:.0f}s {shares}")
            if done:
                break
        progress.stages[stage.name] = step + 1

    def run(
        self,
        steps_scale: float = 1.0,
        after_stage: Callable[[str], None] = lambda name: None,
        after_step: AfterStep = lambda network, step: None,
    ) -> Network:
        """All stages. steps_scale multiplies every stage's max_steps (at least 1)."""
        after_step(self.network, self.progress.steps)
        for stage in self.recipe.stages:
            self.run_stage(stage, scaled(stage, steps_scale), after_step)
            after_stage(stage.name)
        return self.network.eval()
