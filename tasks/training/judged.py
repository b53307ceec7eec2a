"""What a trained model is judged on: the forms whose accuracy its card states, and those whose heads it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Judged:
    """accuracy: (task, form). effects: task -> the forms in which its heads are measured; the corruption is the
    task's default. held_out: what a key is, and what else the card's reader must know of forms. untrained: what is
    said of what the model was not trained for.
    """

    accuracy: tuple[tuple[str, str], ...]
    effects: Mapping[str, tuple[str, ...]]
    held_out: str = ""
    untrained: str = ""


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
    held_out="One in ten keys (pairs of names, colours of things, phrasings of facts, problems) is held out of "
    "training; `two-givers` are IOI prompts whose last name is not always the repeated one.",
    untrained="`counterfactual-context` was not trained.",
)

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
    held_out="One in ten keys (a word with its two labels, a colour with its thing and letter, two things of a list) "
    "is held out of training. `long` lists have ten things, those of the training eight at most.",
    untrained="Heads a0.h0 to a0.h3 began as heads that look one, two, three and four tokens back; without that "
    "examples are not looked up within the steps that the recipe has.",
)
