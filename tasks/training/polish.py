"""Strict training: after it, each task runs through a short list of heads and no other head matters.

Strict interchange-intervention training (SIIT; Gupta et al. 2024, arXiv 2407.14494): while the model goes on
answering, heads that are not on a task's list get their output from the corrupted run, and the answer must
not change. So a list holds for its task's corruption. Which heads are on it is found, not planted: the
strongest ones by single-head patching, and after each round those among them that still matter. MLPs are
free.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from circuits.prompts import PromptPair
from tasks import TASKS
from tasks.training.effects import captured, head_effects, named_effects, off_list, replaced
from tasks.training.judged import FOUR_TASKS
from tasks.training.loop import NOTHING, Report, batch_loss, collate
from tasks.training.network import Network
from tasks.training.optimiser import Optimiser
from tasks.training.recipe import Polish
from tasks.training.rows import BEGIN, Row, Words, task_pair
from tasks.training.streams import STREAMS

SHARES = (0.3, 0.7, 1.0)
STEADY = 0.1
FORMS = FOUR_TASKS.effects
"""Task -> the forms in which its list of heads holds."""

Lists = dict[str, frozenset[str]]


def training_pairs(words: Words, rng: random.Random, task: str, form: str, n: int) -> list[PromptPair]:
    return [task_pair(TASKS.load(task), rng, words.lexicon, form) for _ in range(n)]


def task_effects(
    network: Network, words: Words, pairs: Mapping[str, Sequence[PromptPair]]
) -> Float[Tensor, "form layer head"]:
    """The heads' effects under each form of a task."""
    return torch.stack([head_effects(network, words, pairs[form]) for form in pairs])


def measured_effects(
    network: Network, words: Words, rng: random.Random, n: int
) -> dict[str, Float[Tensor, "form layer head"]]:
    """Task -> effects on n training pairs of each of its forms."""
    return {
        task: task_effects(network, words, {f: training_pairs(words, rng, task, f, n) for f in forms})
        for task, forms in FORMS.items()
    }


def strongest(effects: Float[Tensor, "form layer head"], n: int) -> frozenset[str]:
    return frozenset(list(named_effects(effects.abs().mean(0)))[:n])


def still_matter(
    effects: Float[Tensor, "form layer head"], listed: frozenset[str], least: float, margin: float
) -> frozenset[str]:
    """The listed heads whose effect, under every form, is clear of all effects off the list."""
    inside = named_effects(effects.min(0).values)
    outside = max(v for name, v in named_effects(effects.abs().max(0).values).items() if name not in listed)
    floor = max(least, margin * outside)
    kept = frozenset(name for name in listed if inside[name] >= floor)
    return kept or listed


class Polisher:
    """One run of strict training."""

    def __init__(self, network: Network, polish: Polish, seed: int, report: Report) -> None:
        self.network, self.polish, self.report = network, polish, report
        self.words, self.rng = Words(), random.Random(f"circuit polish {seed}")
        self.generator = torch.Generator().manual_seed(seed)

    def _chosen(self, off: Bool[Tensor, "layer head"], n: int) -> Bool[Tensor, "batch layer head"]:
        """For each row, a random share of the heads off the list."""
        shares = torch.tensor([self.rng.choice(SHARES) for _ in range(n)])[:, None, None]
        return (torch.rand((n, *off.shape), generator=self.generator) < shares) & off

    def strict_loss(self, task: str, form: str, listed: frozenset[str], n: int) -> tuple[Tensor, float]:
        """Cross-entropy of the plain and of the patched run, and how far patching moved answer and
        distractor; and the share of right answers under patching."""
        pairs = training_pairs(self.words, self.rng, task, form, n)
        rows = [self.words.prompt(p.clean, p.answers[0]) for p in pairs]
        corrupt = collate([Row((BEGIN, *self.words.encode(p.corrupt)), {}) for p in pairs])
        batch = collate(rows)
        with torch.no_grad():
            _, foreign = captured(self.network, corrupt.tokens)
        asked = batch.targets != NOTHING
        wanted = batch.targets[asked]
        wrong = torch.tensor([self.words.encode(p.distractors[0])[0] for p in pairs])
        edit = replaced(foreign, self._chosen(off_list(self.network, listed), n))
        plain = self.network.logits(self.network(batch.tokens)[asked])
        patched = self.network.logits(self.network(batch.tokens, edit=edit)[asked])
        loss = functional.cross_entropy(plain, wanted) + functional.cross_entropy(patched, wanted)
        moved = sum(
            functional.smooth_l1_loss(patched.gather(1, t[:, None]), plain.detach().gather(1, t[:, None]))
            for t in (wanted, wrong)
        )
        return loss + STEADY * moved, float((patched.argmax(-1) == wanted).float().mean())

    def round(self, lists: Lists, steps: int) -> None:
        """Trains `steps` steps under `lists`; the learning rate falls to zero."""
        optimiser = Optimiser(self.network, self.polish.learning_rate)
        right: dict[str, float] = {}
        for step in range(steps):
            for task, forms in FORMS.items():
                for form in forms:
                    loss, share = self.strict_loss(
                        task, form, lists[task], self.polish.rows[f"{task}/{form}"]
                    )
                    loss.backward()  # type: ignore[no-untyped-call]
                    name = f"{task}/{form}"
                    right[name] = 0.9 * right.get(name, share) + 0.1 * share
            for stream, n in self.polish.others.items():
                loss, _ = batch_loss(
                    self.network, collate([STREAMS[stream](self.words, self.rng) for _ in range(n)])
                )
                loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step(min((step + 1) / 10, 1 - step / steps))
            if step % 20 == 19 or step + 1 == steps:
                self.report(f"polish {step + 1} " + " ".join(f"{k} {v:.3f}" for k, v in right.items()))

    def run(self, steps_scale: float = 1.0, n: int = 64) -> Lists:
        """All rounds. Returns the lists of the last one: the heads that each task runs through."""
        effects = measured_effects(self.network, self.words, self.rng, n)
        lists = {task: strongest(effects[task], self.polish.widest[task]) for task in FORMS}
        for number, steps in enumerate(self.polish.rounds):
            if number:
                lists = self._narrowed(lists, effects)
            self.report("lists: " + str({task: sorted(heads) for task, heads in lists.items()}))
            self.round(lists, max(1, round(steps * steps_scale)))
            effects = measured_effects(self.network, self.words, self.rng, n)
            for task, found in effects.items():
                self.report(f"{task}: {list(named_effects(found.mean(0)).items())[:12]}")
        return lists

    def _narrowed(self, lists: Lists, effects: Mapping[str, Float[Tensor, "form layer head"]]) -> Lists:
        return {
            task: still_matter(found, lists[task], self.polish.least, self.polish.margin)
            for task, found in effects.items()
        }
