"""Observable propagation: which direction of the residual stream a head or MLP turns into an observable.

The one idea: an observable is a direction n over the vocabulary (she minus he), so a map towards the logits, run
backwards, carries it to a direction of what is read: the feature vector y. Through a head y = W_V W_O n; behind the
unembedding and every norm the gain is folded in and the mean taken off, but what norms divide by is left out, so a
head that looks at x alone adds x . y / (scale of its norm * scale of the last). Queries and keys are not looked at.
Coupling of two observables in one head: C(y1, y2) = y1 . y2 / |y1|^2, what x . y2 grows by per x . y1.
Source: Dunefsky and Cohan 2023 (Observable Propagation, arXiv 2312.16291).
Cost: no forward pass; the checks one pass a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.batches import continuation
from circuits.engine.weights import Weights
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.model import Model
from circuits.weight_reading.heads import Thin, folded, read_ov

DRAWS = 200


class Observable(NamedTuple):
    """Mean logit of `answers` minus mean logit of `distractors`, by token."""

    answers: tuple[int, ...]
    distractors: tuple[int, ...]

    def spelled(self, model: Model) -> str:
        """she/he."""
        sides = (",".join(model.token_string(t).strip() for t in side) for side in self)
        return "/".join(sides)


def parse_observable(text: str, model: Model) -> Observable:
    """she/he, or three,four/one,two. Raises CircuitError for words that are not one token of the model each."""
    sides = text.split("/")
    if len(sides) != 2 or not all(side.strip() for side in sides):
        raise CircuitError(f"{text!r} is no observable: give words for and against, such as she/he.")
    words = [[word.strip() for word in side.split(",")] for side in sides]
    found, problems = {}, []
    for word in dict.fromkeys(word for side in words for word in side):
        tokens = continuation(model, "the", " " + word) if word else ()
        if len(tokens) != 1 or model.is_unknown(tokens[0]):
            problems.append(f"{word!r} of {text!r} is not one token that {model.name} knows.")
        else:
            found[word] = tokens[0]
    if problems:
        raise CircuitError("\n".join([*problems, "Choose other words, or another model."]))
    one, two = (tuple(dict.fromkeys(found[word] for word in side)) for side in words)
    if both := set(one) & set(two):
        named = ", ".join(model.token_string(token).strip() for token in sorted(both))
        raise CircuitError(f"{text!r} holds {named} on both sides, where it cancels. Leave it out on one.")
    return Observable(one, two)


def directions(weights: Weights, observables: Sequence[Observable]) -> Float[Tensor, "observable d_model"]:
    """Of the last residual stream: the last norm's gain and centring, then the unembedding."""
    unembed = weights.unembed.weight.double()
    contrasts = [
        unembed[:, list(o.answers)].mean(1) - unembed[:, list(o.distractors)].mean(1) for o in observables
    ]
    return folded(weights.final_norm, torch.stack(contrasts, 1)).T


def through(ov: Thin, n: Float[Tensor, "*some d_model"]) -> Float[Tensor, "*some head d_model"]:
    """Feature vectors of each head of a layer."""
    inside = torch.einsum("...m,hrm->...hr", n, ov.right) * ov.size
    return torch.einsum("...hr,hmr->...hm", inside, ov.left)


@dataclass(frozen=True)
class Path:
    """Heads in the order in which they are passed, the last writing to the logits; and its feature vectors' norm.

    norm: mean over observables. chance: mean of random contrasts of two tokens, of equal norm at the logits.
    reached: share of those with a norm as large.
    """

    heads: tuple[str, ...]
    norm: float
    chance: float
    reached: float
    vectors: Float[Tensor, "observable d_model"]


@dataclass(frozen=True)
class Reader:
    """The OV maps of all layers, and what random observables are: contrasts of two tokens each, of unit norm."""

    weights: Weights
    graph: Graph
    layers: tuple[Thin, ...]
    random: Float[Tensor, "draw d_model"]

    @staticmethod
    def of(
        weights: Weights, graph: Graph, tokens: Sequence[int], seed: int = 0, draws: int = DRAWS
    ) -> Reader:
        generator = torch.Generator().manual_seed(seed)
        pairs = [torch.randperm(len(tokens), generator=generator)[:2].tolist() for _ in range(draws)]
        drawn = directions(weights, [Observable((int(tokens[a]),), (int(tokens[b]),)) for a, b in pairs])
        layers = tuple(read_ov(weights, depth) for depth in range(graph.n_layers))
        return Reader(weights, graph, layers, drawn / drawn.norm(dim=-1, keepdim=True).clamp_min(1e-30))

    def follow(self, heads: Sequence[str], n: Float[Tensor, "some d_model"]) -> Float[Tensor, "some d_model"]:
        """Feature vectors of a path, backwards from the logits."""
        for node in map(self.graph.node, reversed(heads)):
            n = through(self.layers[node.layer], n)[:, node.index]
        return n

    def path(self, heads: tuple[str, ...], n: Float[Tensor, "observable d_model"]) -> Path:
        vectors, size = self.follow(heads, n), n.norm(dim=-1).mean()
        random = self.follow(heads, self.random).norm(dim=-1) * size
        norm = vectors.norm(dim=-1).mean()
        reached = (random >= norm).double().mean()
        return Path(heads, float(norm), float(random.mean()), float(reached), vectors)

    def paths(self, n: Float[Tensor, "observable d_model"], length: int, width: int) -> tuple[Path, ...]:
        """A beam: at each length up to `length` the `width` paths of largest norm, all of length 1."""
        ends = [self.path((head,), n) for head in self.graph.heads]
        found, beam = sorted(ends, key=_by_norm), sorted(ends, key=_by_norm)[:width]
        for _ in range(length - 1):
            beam = sorted((p for end in beam for p in self._before(end, n, width)), key=_by_norm)[:width]
            found += beam
        return tuple(found)

    def _before(self, end: Path, n: Tensor, width: int) -> list[Path]:
        """The strongest extensions of a path by one earlier head."""
        first = self.graph.node(end.heads[0]).layer
        norms = [through(ov, end.vectors).norm(dim=-1).mean(0) for ov in self.layers[:first]]
        ranked = torch.cat(norms).argsort(descending=True)[:width].tolist() if norms else []
        return [self.path((self.graph.heads[place], *end.heads), n) for place in ranked]

    def raises(self, y: Float[Tensor, "d_model"]) -> Float[Tensor, "vocab"]:
        """What the bare embedding of every token adds along a feature vector."""
        every = torch.arange(self.weights.vocab_size, device=y.device)
        return self.weights.token_embedding(every).double() @ y


def _by_norm(path: Path) -> float:
    return -path.norm


class Coupling(NamedTuple):
    """Of two observables in a head. random: mean size of the cosine of the first and a random contrast there."""

    coefficient: float
    cosine: float
    random: float


def coupling(reader: Reader, head: str, n: Float[Tensor, "two d_model"]) -> Coupling:
    one, two = reader.follow((head,), n)
    others = torch.cosine_similarity(reader.follow((head,), reader.random), one[None], dim=-1)
    size = (one @ one).clamp_min(1e-30)
    cosine = torch.cosine_similarity(one, two, dim=0)
    return Coupling(float(one @ two / size), float(cosine), float(others.abs().mean()))
