"""Trains a built-in model by name and writes it, card and all: what `circuit train` runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import circuits
from circuits.errors import CircuitError, UnknownNameError
from tasks.training.card import make_card, save_card
from tasks.training.checkpoints import Checkpoints
from tasks.training.export import load_network, save_model
from tasks.training.loop import Report, Trainer, scaled
from tasks.training.planted import plant
from tasks.training.polish import Polisher
from tasks.training.recipe import NAMES, POLISHES, RECIPES

PLANTED = "planted-ioi"


def builtin_folder(name: str) -> Path:
    """Where the package keeps a built-in model."""
    return Path(circuits.__file__).parent / "models" / "builtin" / name


def _train_plain(
    name: str, folder: Path, seed: int, steps_scale: float, report: Report, kept: Checkpoints | None
) -> None:
    recipe = RECIPES[name]
    trainer = Trainer(recipe, seed, report)
    if kept is None:
        network = trainer.run(steps_scale)
    else:
        kept = replace(kept, known=trainer.words.known)
        network = trainer.run(steps_scale, after_step=kept.after_step)
        about = {"model": name, "seed": seed, "steps_scale": steps_scale}
        kept.finish(network, trainer.progress.stages, about)
    card = make_card(
        network,
        name=name,
        kind="plain",
        summary=recipe.summary,
        seed=seed,
        stages=trainer.progress.stages,
        words=trainer.words,
        judged=recipe.judged,
    )
    save_model(network, folder, trainer.words.known)
    save_card(card, folder, recipe.judged)


def _train_strict(name: str, folder: Path, seed: int, steps_scale: float, report: Report) -> None:
    polish = POLISHES[name]
    network = load_network(builtin_folder(polish.base))
    lists = Polisher(network, polish, seed, report).run(steps_scale)
    card = make_card(
        network.eval(),
        name=name,
        kind="strict",
        summary=polish.summary,
        seed=seed,
        stages={f"round {i + 1}": max(1, round(n * steps_scale)) for i, n in enumerate(polish.rounds)},
        base=polish.base,
        lists=lists,
    )
    save_model(network, folder)
    save_card(card, folder)


def most_steps(name: str, steps_scale: float = 1.0) -> int:
    """How many steps the training of `name` has at most. Raises CircuitError where it has none to keep."""
    if name not in RECIPES:
        how = "built by hand" if name == PLANTED else f"trained on from {POLISHES[name].base}"
        raise CircuitError(f"{name} is {how}, so there are no checkpoints. Choose {' or '.join(RECIPES)}.")
    return sum(scaled(stage, steps_scale) for stage in RECIPES[name].stages)


def build(
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    steps_scale: float = 1.0,
    report: Report = lambda text: None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Trains `name` and writes the model directory `folder`. Raises UnknownNameError.

    steps_scale multiplies the steps of every stage; below 1 the model is not as good as its name says.
    checkpoints: which steps to keep on the way; raises CircuitError for a model that has none.
    """
    if checkpoints:
        checkpoints.steps.require_within(most_steps(name, steps_scale))
    if name == PLANTED:
        plant(folder, seed=seed)
    elif name in RECIPES:
        _train_plain(name, folder, seed, steps_scale, report, checkpoints)
    elif name in POLISHES:
        _train_strict(name, folder, seed, steps_scale, report)
    else:
        raise UnknownNameError("recipe", name, (*NAMES, PLANTED))
