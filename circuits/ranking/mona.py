"""MONA: how much a text's sparse features resemble those of target texts.

    z = TopK(W (h - b))      s(text) = mean over tokens of z      p = mean over targets of s
    score = sum_i min(s_i, p_i) / sum_i max(s_i, p_i)                       (generalised Jaccard)

The one idea: two texts are alike to a model where the same few features are active, and as strongly: 1 for the same,
0 for disjoint features, min(c, 1/c) for the same c times as strong. Means over tokens, for sums favour long texts.
Source: MONA (arXiv 2503.15573): penultimate layer, K = 192 of a public dictionary of 131,072, the first 5 % kept; its
formulas were images, so the form of TopK is inferred. A dictionary that is trained here, on the pool's own states, is
ours: small models have no public one. Its rows are unit vectors, tied; a step takes AdamW on the squared error.
Cost: one forward pass a text, and the training.
Chance: the same score against as many texts of the pool, drawn at random, that are not the text itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from circuits.engine.forward import steps
from circuits.errors import CircuitError
from circuits.model import Model
from circuits.progress import Progress, silent
from circuits.ranking.attention_influence import AT_ONCE, require_readable
from circuits.ranking.texts import Text, by_length

DRAWS = 20

Features = Float[np.ndarray, "text feature"]


@dataclass(frozen=True)
class DictionarySettings:
    """features, active: size of the dictionary and K. steps: of training, on `tokens` states each."""

    features: int = 512
    active: int = 16
    steps: int = 300
    tokens: int = 256
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class TopK:
    """A dictionary of unit rows, tied; the K strongest features of a state are kept, those below zero dropped."""

    rows: Float[Tensor, "feature d_model"]
    bias: Float[Tensor, "d_model"]
    active: int

    def encode(self, x: Float[Tensor, "*state d_model"]) -> Float[Tensor, "*state feature"]:
        inward = (x - self.bias) @ self.rows.T
        best = inward.topk(self.active, -1)
        return torch.zeros_like(inward).scatter(-1, best.indices, best.values.relu())

    def decode(self, z: Float[Tensor, "*state feature"]) -> Float[Tensor, "*state d_model"]:
        return z @ self.rows + self.bias


@dataclass(frozen=True)
class Likeness:
    """random: against random texts of the pool, a row a draw. explained: share of the states' variance."""

    scores: Float[np.ndarray, "text"]
    random: Float[np.ndarray, "draw text"]
    explained: float


def mona(
    model: Model,
    texts: Sequence[Text],
    targets: Sequence[Text],
    settings: DictionarySettings,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Likeness:
    """Raises CircuitError for settings that do not fit, ModelError where the engine does not serve."""
    if not 0 < settings.active <= settings.features:
        raise CircuitError(
            f"{settings.active} active features of {settings.features} cannot be. "
            "Give an --active between 1 and --features."
        )
    require_readable(model, [*texts, *targets])
    pool, wanted = (states(model, some) for some in (texts, targets))
    found, explained = train(torch.cat(pool), settings, seed, progress)
    mine, theirs = (means(found, some) for some in (pool, wanted))
    draw = np.random.default_rng([seed, 0x30])
    random = [_against_others(mine, len(targets), draw) for _ in range(DRAWS if len(texts) > 1 else 0)]
    scores = jaccard(mine, theirs.mean(0))
    return Likeness(scores, np.stack(random) if random else np.zeros((0, len(texts))), explained)


def _against_others(features: Features, n: int, draw: np.random.Generator) -> Float[np.ndarray, "text"]:
    """Each text against the mean of n others, or of all where there are fewer."""
    n_texts = len(features)
    rows = []
    for place in range(n_texts):
        others = draw.permutation(np.delete(np.arange(n_texts), place))[:n]
        rows.append(jaccard(features[place : place + 1], features[others].mean(0))[0])
    return np.array(rows)


def jaccard(features: Features, prototype: Float[np.ndarray, "feature"]) -> Float[np.ndarray, "text"]:
    """Generalised Jaccard similarity; 0 where both sides have no feature at all."""
    low, high = (how(features, prototype).sum(1) for how in (np.minimum, np.maximum))
    return np.asarray(np.divide(low, high, out=np.zeros_like(low), where=high > 0))


@torch.inference_mode()
def states(model: Model, texts: Sequence[Text]) -> list[Float[Tensor, "_ d_model"]]:
    """The residual stream before the last layer, of every token but the first, which is like itself everywhere."""
    weights = model.weights
    assert weights is not None, "see require_readable"
    found: dict[int, Tensor] = {}
    for places, tokens in by_length(texts, AT_ONCE):
        for step in steps(weights, weights.embed(tokens.to(model.device))):
            before = step.before
        found |= dict(zip(places, before[:, 1:].float().cpu(), strict=True))
    return [found[place] for place in range(len(texts))]


def means(found: TopK, states: Sequence[Float[Tensor, "_ d_model"]]) -> Features:
    """Mean features of each text's tokens."""
    return np.stack([found.encode(one).mean(0).double().numpy() for one in states])


def train(
    x: Float[Tensor, "state d_model"], settings: DictionarySettings, seed: int, progress: Progress = silent
) -> tuple[TopK, float]:
    """A dictionary for the states, and the share of their variance that it explains."""
    x = x.clone()  # states of inference mode take no gradients
    generator = torch.Generator().manual_seed(seed)
    bias = x.mean(0)
    scale = (x - bias).pow(2).mean()
    rows = normalize(torch.randn(settings.features, x.shape[1], generator=generator), dim=1)
    with torch.enable_grad():
        rows.requires_grad_(True)
        adam = torch.optim.AdamW([rows], lr=settings.learning_rate, weight_decay=0)
        for step in range(settings.steps):
            some = x[torch.randint(len(x), (settings.tokens,), generator=generator)]
            dictionary = TopK(normalize(rows, dim=1), bias, settings.active)
            loss = (dictionary.decode(dictionary.encode(some)) - some).pow(2).mean() / scale
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()
            progress("dictionary", step + 1, settings.steps)
    found = TopK(normalize(rows.detach(), dim=1), bias, settings.active)
    error = (found.decode(found.encode(x)) - x).pow(2).mean() / scale
    return found, float(1 - error)
