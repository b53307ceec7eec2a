"""The recipe: which streams, how many rows a step, and when a stage is over.

Stages end when the share of right answers in the training batches passes the gate, or at max_steps; the last
stage lets the learning rate fall to zero. Everything is counted in steps and drawn from one seed.

Why in this order: binding a colour to its thing is the hard part and is not learned beside all the rest, so
it comes first, on few words and quick look-ups (`bind`). Then all tasks together (`mix`); then long prompts
and names that mislead (`widen`), at random positions, so that nothing depends on where a prompt begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tasks.training.judged import CONTEXT, FOUR_TASKS, Judged
from tasks.training.network import Shape
from tasks.training.vocabulary import context_vocabulary, vocabulary

LEARNING_RATE = 2e-3
WARM_UP = 20
LM_WEIGHT = 0.05
LM_SHARE = 0.25
OFFSET_SHARE = 0.5
WITHOUT_LM = frozenset({"arithmetic", "repeats", "colors-after-example"})
"""Streams whose other words teach nothing, or would say the answer of a held-out question in passing."""


@dataclass(frozen=True)
class Stage:
    """rows: stream -> rows a step. gate: stream -> share of right answers that ends the stage.

    offsets: streams that begin at a random position in half of the batches.
    """

    name: str
    rows: Mapping[str, int]
    max_steps: int
    gate: Mapping[str, float] = field(default_factory=dict)
    offsets: frozenset[str] = frozenset()
    falls: bool = False


@dataclass(frozen=True)
class Recipe:
    """A shape and its stages; the words that the model knows, and what it is judged on."""

    summary: str
    shape: Shape
    stages: tuple[Stage, ...]
    words: Callable[[], tuple[str, ...]] = vocabulary
    judged: Judged = FOUR_TASKS


@dataclass(frozen=True)
class Polish:
    """Strict training of a model that is trained already (tasks/training/polish.py).

    base: the built-in model to begin with. rows: task/form -> pairs a step. others: stream -> rows a step, to
    keep what else was learned. rounds: steps of each round. widest: how many heads each task has in the
    first round. A head stays on the list when its effect is at least `least`, and `margin` times the largest
    effect off the list.
    """

    summary: str
    base: str
    rows: Mapping[str, int]
    others: Mapping[str, int]
    rounds: tuple[int, ...]
    widest: Mapping[str, int]
    least: float = 0.04
    margin: float = 4.0
    learning_rate: float = 1e-3


_CONTEXT = frozenset({"ioi", "hard-ioi", "colors", "colors-after-example", "pairs", "statements", "repeats"})
_SMALL = {"facts": 32, "ioi": 16, "colors": 12, "pairs": 12, "statements": 10, "repeats": 24}
_WIDE = _SMALL | {"hard-ioi": 40, "colors-after-example": 20}

STAGES = (
    Stage(
        "bind",
        {"pairs": 32, "statements": 32, "few-colors": 16},
        max_steps=700,
        gate={"pairs": 0.97, "statements": 0.97, "few-colors": 0.95},
    ),
    Stage(
        "mix",
        _SMALL | {"arithmetic": 448},
        max_steps=800,
        gate={"arithmetic": 0.97, "facts": 0.97, "ioi": 0.97, "colors": 0.97},
        offsets=_CONTEXT,
    ),
    Stage(
        "widen",
        _WIDE | {"arithmetic": 192},
        max_steps=700,
        gate={"colors-after-example": 0.97, "hard-ioi": 0.81, "ioi": 0.98, "facts": 0.98},
        offsets=_CONTEXT,
    ),
    Stage("settle", _WIDE | {"arithmetic": 384}, max_steps=600, offsets=_CONTEXT, falls=True),
)

_LOOKED_UP = {"examples": 16, "examples-again": 16, "choices": 32, "lists": 24, "repeats": 24}

CONTEXT_STAGES = (
    Stage(
        "look-up",
        {"pairs": 32, "examples-again": 20, "few-choices": 32, "short-lists": 32},
        max_steps=900,
        gate={"pairs": 0.95, "examples-again": 0.97, "few-choices": 0.95, "short-lists": 0.95},
    ),
    Stage(
        "context",
        _LOOKED_UP,
        max_steps=1200,
        gate={"examples": 0.97, "lists": 0.97},
        offsets=frozenset(_LOOKED_UP),
    ),
    Stage("settle", _LOOKED_UP, max_steps=400, offsets=frozenset(_LOOKED_UP), falls=True),
)

RECIPES: Mapping[str, Recipe] = {
    "plain-4l": Recipe("four layers of eight heads, trained on all tasks", Shape(4), STAGES),
    "plain-6l": Recipe("six layers of eight heads, trained on all tasks", Shape(6), STAGES),
    "context-4l": Recipe(
        "four layers of eight heads, trained on tasks whose answer is read off the context",
        Shape(4),
        CONTEXT_STAGES,
        context_vocabulary,
        CONTEXT,
    ),
}

POLISHES: Mapping[str, Polish] = {
    "strict-4l": Polish(
        "plain-4l, trained on until each task runs through a short list of heads",
        base="plain-4l",
        rows={
            "ioi/plain": 16,
            "colored-objects/zero-shot": 12,
            "colored-objects/one-shot": 8,
            "factual-recall/mixed": 24,
            "arithmetic/mixed": 320,
        },
        others={"hard-ioi": 32, "repeats": 16, "pairs": 8, "statements": 8},
        rounds=(250, 200, 150),
        widest={"ioi": 8, "colored-objects": 8, "factual-recall": 8, "arithmetic": 12},
    )
}

NAMES = (*RECIPES, *POLISHES)
