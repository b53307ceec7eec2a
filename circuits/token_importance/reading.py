"""Reading prompts: importance by ReAGent and by gradient, each judged beside the same numbers at random tokens.

The one idea: an importance is worth what it says better than its own numbers shuffled; prompts of one length share
forward passes, and every figure is one value a prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.token_importance.prediction import Prediction, gradient_by_input, predict, shuffled, text_tokens
from circuits.token_importance.reagent import Found, Search, reagent
from circuits.token_importance.soft_scores import WAYS, soft_scores

SHUFFLES = 3
AT_ONCE = 16
"""Prompts that share passes: with five runs each, 80 rows."""

METHODS = ("reagent", "gradient")


@dataclass(frozen=True)
class Judged:
    """One importance by one judge's way: sufficiency and comprehensiveness, and those of its numbers shuffled."""

    sufficiency: float
    comprehensiveness: float
    sufficiency_shuffled: float
    comprehensiveness_shuffled: float


@dataclass(frozen=True)
class ReadPrompt:
    """tokens: spelled, those of the text alone, from column `first` on. importance: by method. judged: by method and
    way. stopped, steps: of ReAGent's runs. rationale: whether at least two runs have the token among their top."""

    tokens: tuple[str, ...]
    first: int
    said: str
    probability: float
    importance: dict[str, tuple[float, ...]]
    rationale: tuple[bool, ...]
    stopped: int
    steps: float
    judged: dict[tuple[str, str], Judged]


def read_prompts(
    model: Model, texts: Sequence[str], search: Search, *, seed: int, progress: Progress = silent
) -> tuple[ReadPrompt, ...]:
    """In the order of the texts. Raises PromptError for a text that the model cannot read, CircuitError for one of
    fewer than two tokens."""
    encoded = [model.tokenize(text) for text in texts]
    vocabulary = model.run(torch.tensor([encoded[0][0]], device=model.device)).logits.shape[-1]
    known, groups = text_tokens(model, vocabulary), defaultdict(list)
    for i, (ids, spans) in enumerate(encoded):
        groups[len(ids), next((n for n, (a, b) in enumerate(spans) if a < b), len(ids))].append(i)
    found: dict[int, ReadPrompt] = {}
    for (_, n_opening), places in sorted(groups.items()):
        for start in range(0, len(places), AT_ONCE):
            some = places[start : start + AT_ONCE]
            tokens = torch.tensor([encoded[i][0] for i in some], device=model.device)
            asked = predict(model, tokens, n_opening, known)
            found |= zip(some, _read(asked, search, seed), strict=True)
            progress("asking for tokens", len(found), len(texts))
    return tuple(found[i] for i in range(len(texts)))


def _read(asked: Prediction, search: Search, seed: int) -> Iterator[ReadPrompt]:
    generator = torch.Generator().manual_seed(seed)
    found = reagent(asked, search, generator)
    importance = {"reagent": found.importance, "gradient": gradient_by_input(asked)}
    judged = {
        (method, way): _judged(asked, values, way, seed)
        for method, values in importance.items()
        for way in WAYS
    }
    for row in range(len(asked.tokens)):
        yield _prompt(asked, found, importance, {key: values[row] for key, values in judged.items()}, row)


def _judged(asked: Prediction, importance: Tensor, way: str, seed: int) -> list[Judged]:
    """The same draws for the importance and for its numbers shuffled."""

    def draws() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    own = soft_scores(asked, importance, way, draws())  # type: ignore[arg-type]
    orders, sums = torch.Generator().manual_seed(seed + 1), []
    for _ in range(SHUFFLES):
        others = shuffled(importance, asked.free, orders)
        sums.append(torch.stack(soft_scores(asked, others, way, draws())))  # type: ignore[arg-type]
    by_chance: Float[Tensor, "judge prompt"] = torch.stack(sums).mean(0)
    return [Judged(*values) for values in torch.stack([*own, *by_chance]).T.tolist()]


def _prompt(
    asked: Prediction,
    found: Found,
    importance: dict[str, Tensor],
    judged: dict[tuple[str, str], Judged],
    row: int,
) -> ReadPrompt:
    columns, model = asked.free.nonzero()[:, 0], asked.model
    return ReadPrompt(
        tuple(model.token_string(token) for token in asked.tokens[row, columns].tolist()),
        int(columns[0]),
        model.token_string(int(asked.said[row])),
        float(asked.probability[row]),
        {name: tuple(values[row, columns].tolist()) for name, values in importance.items()},
        tuple(found.rationale[row, columns].tolist()),
        int(found.stopped[row].sum()),
        float(found.steps[row].double().mean()),
        judged,
    )
