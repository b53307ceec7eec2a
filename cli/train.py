"""`circuit train`: trains a built-in model anew, from the tasks' own prompts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from circuits.errors import CircuitError


def train(
    name: Annotated[str, typer.Argument(help="plain-4l, plain-6l or strict-4l.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write the model to.")],
    seed: Annotated[int, typer.Option(help="Where all chance comes from.")] = 0,
    steps_scale: Annotated[
        float, typer.Option(help="Multiplies the steps of every stage; 0.01 is a trial run.", min=0.0)
    ] = 1.0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the folder if it exists.")] = False,
) -> None:
    """Train a built-in model again, on the prompts of the tasks. Takes about half an hour of one core.

    Example: circuit train plain-4l --output my-model --seed 1
    """
    if output.exists() and any(output.iterdir()) and not force:
        raise CircuitError(f"{output} exists and is not empty. Choose another --output, or add --force.")
    import torch

    from tasks.training.build import build

    torch.set_num_threads(1)
    build(name, output, seed=seed, steps_scale=steps_scale, report=lambda text: print(text, file=sys.stderr))
    typer.echo(str(output))
