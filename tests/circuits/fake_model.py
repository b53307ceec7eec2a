"""A model of random tensors behind the protocol: no transformer, but head outputs that depend on the prompt.

Tokens from `marker` on are read by `planted` heads alone: each such token has a long direction of its own
there, while other heads write the same for all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from circuits.batches import Batch, TokenPair
from circuits.graph import Graph
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.model import Edit, LastLogitsMetric, Resume, Resumption, Run, Site, Unembedding


class Bare:
    """What all models of tests share: no weights, no text, nothing left out; and what no test may ask of them."""

    device = torch.device("cpu")
    weights, memory, dtype, path = None, 2**20, torch.float32, "portable: it has no weights"

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        raise NotImplementedError

    def token_string(self, token: int) -> str:
        return str(token)

    def is_unknown(self, token: int) -> bool:
        return False

    def gradients(
        self, tokens: Tensor, sites: Collection[Site], metric: LastLogitsMetric
    ) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
        raise NotImplementedError

    def past(self, tokens: Tensor) -> object:
        raise NotImplementedError

    def resumption(self, length: int, column: int) -> Resumption:
        return Resumption(layers=False, columns=False)

    def head_writer(self, layer: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def unembedding(self) -> Unembedding:
        raise NotImplementedError


class Differentiable(Bare):
    """A model whose `run` takes edits that gradients pass through, and captures what they make."""

    def gradients(
        self, tokens: Tensor, sites: Collection[Site], metric: LastLogitsMetric
    ) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
        def leaf(value: Tensor) -> Tensor:
            return value if value.requires_grad else value.requires_grad_()

        run = self.run(tokens, edit=dict.fromkeys(sites, leaf))
        found = torch.autograd.grad(metric(run.logits).sum(), [run.captured[site] for site in sites])
        return {site: run.captured[site].detach() for site in sites}, dict(zip(sites, found, strict=True))


class FakeModel(Bare):
    name = "fake"

    def __init__(
        self, n_layers: int = 2, n_heads: int = 4, d_head: int = 8, planted: Collection[str] = ()
    ) -> None:
        self.graph = Graph(n_layers, n_heads, n_heads)
        self.d_model = n_heads * d_head
        generator = torch.Generator().manual_seed(0)
        self.vocab, self.marker = 60, 40
        # [layer, token, head, d_head]
        self.values = torch.randn(n_layers, self.vocab, n_heads, d_head, generator=generator)
        for layer in range(n_layers):
            for head in range(n_heads):
                if f"a{layer}.h{head}" in planted:
                    self.values[layer, self.marker :, head] *= 4
                else:
                    self.values[layer, self.marker :, head] = self.values[layer, 0, head]
        self.writers = torch.randn(n_layers, n_heads, d_head, self.d_model, generator=generator) / d_head**0.5
        self.runs = 0

    def run(
        self,
        tokens: Tensor,
        *,
        capture: Collection[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        resume: Resume | None = None,
    ) -> Run:
        self.runs += 1
        captured = {site: self.values[site.layer][tokens] for site in capture}
        return Run(torch.zeros(len(tokens), self.vocab), captured)

    def head_writer(self, layer: int) -> tuple[Tensor, Tensor]:
        return self.writers[layer], torch.ones(self.d_model)


def fake_problem(n_pairs: int = 30, *, seed: int = 0, batch_size: int = 16, **settings: object) -> Problem:
    """Clean prompts of 6 tokens, the last a marker; negatives of 5 or 7 tokens without one."""
    generator = torch.Generator().manual_seed(100 + seed)
    pairs = []
    for i in range(n_pairs):
        clean = [*torch.randint(1, 4, (5,), generator=generator).tolist(), 40 + i % 20]
        negative = torch.randint(1, 4, (5 + 2 * (i % 2),), generator=generator).tolist()
        pairs.append(TokenPair(tuple(clean), tuple(clean), (1,), (2,), {}, tuple(negative)))
    batches = []
    for start in range(0, n_pairs, batch_size):
        part = tuple(pairs[start : start + batch_size])
        tokens = torch.tensor([p.clean for p in part])
        batches.append(Batch(tuple(range(start, start + len(part))), tokens, tokens, part))
    return Problem(tuple(batches), logit_difference, seed=seed, **settings)  # type: ignore[arg-type]
