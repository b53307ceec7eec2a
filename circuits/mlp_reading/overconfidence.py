"""The last layer against its own model: which parts of it lower the answer, and what undoing that gives.

The one idea: what a component of the last layer writes goes straight to the logits, so its direct effect is the log
probability of the answer with it less that without it, exactly. Those that lower it on one half of the prompts are
scaled down by a factor that is chosen there, and judged on the other: what becomes of the answer, and of other text.
Source: Lv et al. 2024 (arXiv 2403.19521), who find that the final layer suppresses right answers and moves towards
frequent tokens. Factors, choice and figures are ours, since theirs are in no text that we could read. Token frequency
is the model's own mean prediction over general text, for no corpus comes with a model.
Cost: a forward pass over all prompts; one a factor over the fitted half; three over the judged half and the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.batches import Batch
from circuits.evaluation.faithfulness import Estimate, mean_estimate
from circuits.model import Edit, Model, Site
from circuits.probes import probe

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Suppressor:
    """effect: on the answer's log probability, in nats, of the prompts that are fitted. frequency: correlation over
    the vocabulary of what it adds to logits with the log of how often the model says a token."""

    name: str
    effect: Estimate
    frequency: float


@dataclass(frozen=True)
class Scaled:
    """probability: of the answer; correct: share; divergence: KL(own || scaled) on general text, in nats."""

    probability: Estimate
    correct: Estimate
    divergence: Estimate


@dataclass(frozen=True)
class Overconfidence:
    """parts: of the last layer. scaled: those that lower the answer. chosen: the factor. judged: by what was scaled:
    "none", "suppressors", "random" (as many others of the layer; missing where there are too few)."""

    layer: int
    parts: tuple[Suppressor, ...]
    scaled: tuple[str, ...]
    random: tuple[str, ...]
    chosen: float
    by_factor: dict[float, float]
    judged: dict[str, Scaled]


Text = Sequence[Int[Tensor, "_ _"]]
"""General text, batched by length."""


def read_last_layer(
    model: Model, fitted: Sequence[Batch], judged: Sequence[Batch], text: Text, *, seed: int
) -> Overconfidence:
    """Raises ModelError where what components write does not add up, or logits are no linear function of it."""
    probe(model, fitted[0].clean[:1]).require_additive(model)
    layer = model.graph.n_layers - 1
    names = tuple(name for name in model.graph.components if model.graph.node(name).layer == layer)
    effects, added = _direct(model, fitted, layer)
    said = torch.cat([model.run(tokens).logits.softmax(-1) for tokens in text]).mean(0)
    parts = tuple(
        Suppressor(name, mean_estimate(effects[:, i], seed), _correlation(added[i], said.log()))
        for i, name in enumerate(names)
    )
    scaled = tuple(part.name for part in parts if part.effect.high < 0)
    others = [name for name in names if name not in scaled]
    drawn = np.random.default_rng(seed).permutation(others)[: len(scaled)].tolist()
    random = tuple(name for name in names if name in drawn) if len(drawn) == len(scaled) else ()
    by_factor = {f: float(np.log(_answers(model, fitted, scaled, f)[0]).mean()) for f in FACTORS}
    chosen = max(by_factor, key=lambda f: (by_factor[f], f))
    sets = {"none": (), "suppressors": scaled} | ({"random": random} if random else {})
    own = [model.run(tokens).logits for tokens in text]
    found = {name: _scaled(model, judged, text, own, some, chosen, seed) for name, some in sets.items()}
    return Overconfidence(layer, parts, scaled, random, chosen, by_factor, found)


def _direct(
    model: Model, batches: Sequence[Batch], layer: int
) -> tuple[Float[np.ndarray, "prompt part"], Float[Tensor, "part vocab"]]:
    """Effects on log p(answer) of the layer's heads and MLP, and what each adds to the logits on average."""
    read, writer, effects, added = model.unembedding(), model.head_writer(layer)[0], [], []
    sites = [Site("z", layer), Site("mlp", layer), Site("final")]

    def logits(x: Tensor) -> Tensor:
        return (x / read.scale(x)[:, None]) @ read.weight + read.bias

    for batch in batches:
        z, mlp, final = (
            model.run(batch.clean, capture=sites).captured[site][:, -1].float() for site in sites
        )
        writes = [*torch.einsum("bhd,hdm->hbm", z, writer), mlp]
        whole = _log_probability(logits(final), batch)
        effects.append(torch.stack([whole - _log_probability(logits(final - w), batch) for w in writes], 1))
        added.append(torch.stack([((w / read.scale(final)[:, None]) @ read.weight).sum(0) for w in writes]))
    n = sum(map(len, batches))
    return torch.cat(effects).double().cpu().numpy(), torch.stack(added).sum(0) / n


def _log_probability(logits: Float[Tensor, "prompt vocab"], batch: Batch) -> Float[Tensor, "prompt"]:
    """Of any of the answers."""
    said = logits.log_softmax(-1)
    return torch.stack([said[row, list(ids)].logsumexp(-1) for row, ids in enumerate(batch.answers)])


def _correlation(one: Tensor, other: Tensor) -> float:
    found = torch.corrcoef(torch.stack([one, other]))[0, 1]
    return float(found.nan_to_num())


def _answers(
    model: Model, batches: Sequence[Batch], parts: Sequence[str], factor: float
) -> tuple[Float[np.ndarray, "prompt"], Float[np.ndarray, "prompt"]]:
    """Probability of the answer, and whether it is said first."""
    probability, first = [], []
    for batch in batches:
        logits = model.run(batch.clean, edit=_scaling(model, parts, factor)).logits
        probability.append(_log_probability(logits, batch).exp())
        best = logits.argmax(-1).tolist()
        first.append(torch.tensor([token in ids for token, ids in zip(best, batch.answers, strict=True)]))
    return tuple(torch.cat(part).double().cpu().numpy() for part in (probability, first))  # type: ignore[return-value]


def _scaled(
    model: Model,
    judged: Sequence[Batch],
    text: Text,
    own: Sequence[Tensor],
    parts: Sequence[str],
    factor: float,
    seed: int,
) -> Scaled:
    probability, first = _answers(model, judged, parts, factor)
    apart = []
    for tokens, logits in zip(text, own, strict=True):
        said, now = (
            logits.log_softmax(-1),
            model.run(tokens, edit=_scaling(model, parts, factor)).logits.log_softmax(-1),
        )
        apart.append((said.exp() * (said - now)).sum(-1))
    divergence = torch.cat(apart).double().cpu().numpy()
    return Scaled(*(mean_estimate(values, seed) for values in (probability, first, divergence)))


def _scaling(model: Model, parts: Sequence[str], factor: float) -> dict[Site, Edit]:
    """Everywhere in the prompt."""
    nodes = [model.graph.node(name) for name in parts]
    edits: dict[Site, Edit] = {}
    if heads := [node.index for node in nodes if node.kind == "head"]:
        edits[Site("z", nodes[0].layer)] = _times(factor, heads)
    if any(node.kind == "mlp" for node in nodes):
        edits[Site("mlp", nodes[0].layer)] = lambda value: value * factor
    return edits


def _times(factor: float, heads: Sequence[int]) -> Callable[[Tensor], Tensor]:
    def edit(z: Tensor) -> Tensor:
        z = z.clone()
        z[:, :, list(heads)] *= factor
        return z

    return edit
