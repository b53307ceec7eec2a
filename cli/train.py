"""`circuit train`: makes a built-in model anew, from the tasks' own prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.guard import guarded


@guarded
def train(
    name: Annotated[str, typer.Argument(help="A built-in model, see `circuit models`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write the model to.")],
    seed: Annotated[int, typer.Option(min=0, help="Where all chance comes from.")] = 0,
    steps_scale: Annotated[
        float, typer.Option(help="Multiplies the steps of every stage; 0.01 is a trial run.", min=0.0)
    ] = 1.0,
    force: Annotated[bool, typer.Option("--force", help="Replace the model that --output names.")] = False,
) -> None:
    """Make a built-in model again, seeded and counted in steps. Half an hour of one core; the planted one a second.

    [bold]circuit train plain-4l --output my-model --seed 1[/bold]
    """
    from circuits.errors import UnknownNameError
    from circuits.models.builtin_models import CARD, builtin_names
    from circuits.runs import check_output, writing_run
    from cli.render import note

    if name not in builtin_names():
        raise UnknownNameError("built-in model", name, builtin_names())
    check_output(output, force, record=CARD)
    import torch

    from tasks.training.build import build

    torch.set_num_threads(1)
    with writing_run(output, force, record=CARD) as folder:
        build(name, folder, seed=seed, steps_scale=steps_scale, report=note)
    print(output)
