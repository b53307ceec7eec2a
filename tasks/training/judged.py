"""What a trained model is judged on: the forms whose accuracy its card states, and those whose heads it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Judged:
    """accuracy: (task, form). effects: task -> the forms in which its heads are measured; the corruption is the
    task's default."""

    accuracy: tuple[tuple[str, str], ...]
    effects: Mapping[str, tuple[str, ...]]


FOUR_TASKS = Judged(
    accuracy=(
        ("ioi", "plain"),
        ("ioi", "distractors"),
        ("ioi", "two-givers"),
        ("colored-objects", "zero-shot"),
        ("colored-objects", "one-shot"),
        ("factual-recall", "mixed"),
        ("factual-recall", "capital"),
        ("factual-recall", "language"),
        ("factual-recall", "country"),
        ("factual-recall", "continent"),
        ("arithmetic", "addition"),
        ("arithmetic", "subtraction"),
    ),
    effects={
        "ioi": ("plain",),
        "colored-objects": ("zero-shot", "one-shot"),
        "factual-recall": ("mixed",),
        "arithmetic": ("mixed",),
    },
)
"""`counterfactual-context` of factual recall is not among it: the models are not trained for it."""

CONTEXT = Judged(
    accuracy=(
        ("in-context-classification", "arbitrary"),
        ("in-context-classification", "real"),
        ("in-context-classification", "flipped"),
        ("multiple-choice", "colours"),
        ("list-recall", "items-2"),
        ("list-recall", "short"),
        ("list-recall", "medium"),
        ("list-recall", "items-8"),
        ("list-recall", "long"),
    ),
    effects={
        "in-context-classification": ("arbitrary",),
        "multiple-choice": ("colours",),
        "list-recall": ("short", "medium"),
    },
)
"""`long` has ten things, more than any list of the training."""
