"""Checkpoints whose story is known: the planted model, whose name movers write the opposite at some of the steps.

Writing nothing at all would leave logits of rounding alone, which no two computations share.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file

from circuits.models.builtin_models import FOLDER
from circuits.over_training.checkpoints import folder_name

PLANTED = FOLDER / "planted-ioi"
D_HEAD, MOVERS = 48, ("a2.h1", "a2.h3")
Story = Mapping[int, Mapping[str, float]]
"""Step -> heads that write so many times what they would."""

WHOLE, AGAINST, HALF = {}, dict.fromkeys(MOVERS, -1.0), {MOVERS[0]: 0.0}
STORY: Story = {0: AGAINST, 10: WHOLE, 20: AGAINST, 30: HALF, 40: WHOLE}
"""The behaviour comes, vanishes, and comes to stay."""


def write_checkpoints(folder: Path, story: Story = STORY) -> Path:
    """One directory a step."""
    for step, factors in story.items():
        _write(folder / folder_name(step), factors)
    return folder


def _write(place: Path, factors: Mapping[str, float]) -> None:
    shutil.copytree(PLANTED, place)
    weights = load_file(place / "model.safetensors")
    for name, factor in factors.items():
        layer, head = (int(part[1:]) for part in name.split("."))
        weights[f"transformer.h.{layer}.attn.c_proj.weight"][D_HEAD * head : D_HEAD * (head + 1)] *= factor
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
