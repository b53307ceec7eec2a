"""Reddy's task learned from nothing: first the labels of the context, all alike, then all at once the right one.

Smaller than the paper's (arXiv 2312.03002, section 2) to fit into seconds: 4 pairs of 32 dimensions, 32 labels, Adam,
and items of a new kind in every sequence, so that nothing can be learned by heart. As there, two layers of one head
without scale, norms or output matrix, positions as one-hot vectors, and an MLP that reads the last token.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from circuits.over_training.induction_progress import Sequences, looks, said
from circuits.over_training.series import first_for_good

PAIRS, LABELS, D, HIDDEN, BATCH = 4, 32, 32, 64, 64
LENGTH, WIDTH = 2 * PAIRS + 1, D + 2 * PAIRS + 1
ITEMS = torch.arange(0, LENGTH - 1, 2)
STEPS, EVERY = 700, 50


class Toy:
    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.labels = self._normal(LABELS, D)
        sizes = [(WIDTH, WIDTH)] * 6 + [(WIDTH, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, LABELS)]
        self.weights = [self._normal(*size, width=size[0]).requires_grad_() for size in sizes]

    def _normal(self, *shape: int, width: int = D) -> Tensor:
        return torch.randn(*shape, generator=self.generator) / width**0.5

    def draw(self, n: int) -> tuple[Tensor, Sequences]:
        """Vectors, and which labels stand where."""
        items = self._normal(n, PAIRS, D)
        labels = torch.stack([torch.randperm(LABELS, generator=self.generator)[:PAIRS] for _ in range(n)])
        asked = torch.randint(PAIRS, (n,), generator=self.generator)
        x, tokens = torch.zeros(n, LENGTH, WIDTH), torch.zeros(n, LENGTH, dtype=torch.long)
        x[:, ITEMS, :D], x[:, ITEMS + 1, :D] = items, self.labels[labels]
        x[:, -1, :D] = items[torch.arange(n), asked]
        x[:, :, D:] = torch.eye(LENGTH)
        tokens[:, ITEMS + 1] = labels
        return x, Sequences(tokens, ITEMS, asked)

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits of the labels, and the pattern of each layer."""
        late, patterns = torch.full((LENGTH, LENGTH), -torch.inf).triu(1), []
        for q, k, v in (self.weights[:3], self.weights[3:6]):
            patterns.append(((x @ q) @ (x @ k).transpose(1, 2) + late).softmax(-1))
            x = x + patterns[-1] @ (x @ v)
        up, across, down = self.weights[6:]
        return functional.relu(functional.relu(x[:, -1] @ up) @ across) @ down, patterns

    @torch.no_grad()
    def measured(self) -> dict[str, float]:
        x, drawn = self.draw(512)
        logits, (first, second) = self.run(x)
        ila, _, _ = looks(first[:, None], drawn)
        _, tila, tla = looks(second[:, None], drawn)
        cla, ica = said(logits.double().softmax(-1), drawn)
        values = {"ILA1": ila, "TILA2": tila, "TLA2": tla, "CLA": cla, "ICA": ica}
        return {name: float(value.mean()) for name, value in values.items()}


def trained(seed: int) -> dict[int, dict[str, float]]:
    """Step -> progress."""
    toy, found = Toy(seed), {}
    optimiser = torch.optim.Adam(toy.weights, lr=3e-3)
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            found[step] = toy.measured()
        x, drawn = toy.draw(BATCH)
        right = drawn.tokens[torch.arange(BATCH), drawn.labels[drawn.asked]]
        optimiser.zero_grad()
        functional.cross_entropy(toy.run(x)[0], right).backward()
        optimiser.step()
    return found


def test_the_labels_are_known_long_before_the_right_one_is() -> None:
    curve = trained(seed=1)
    steps = list(curve)

    def passes(name: str, share: float) -> int:
        found = first_for_good(steps, [curve[step][name] >= share for step in steps])
        assert found is not None, (name, share)
        return found

    start = curve[0]
    assert start["TILA2"] < 0.2
    assert abs(start["ICA"] - 1 / PAIRS) < 0.1
    slow, rise, done = passes("CLA", 0.4), passes("ICA", 0.4), passes("ICA", 0.9)
    assert slow < rise <= done
    plateau = [curve[step]["ICA"] for step in steps if slow <= step < rise]
    assert all(value < 0.4 for value in plateau)
    assert done - rise < rise / 2, "the rise is steep beside what went before"
    assert curve[STEPS]["TILA2"] > 0.8
    assert curve[STEPS]["ILA1"] > 0.7
