"""`circuit train`: makes a built-in model anew, from the tasks' own prompts."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from tasks.training.checkpoints import Steps


@guarded
def train(
    name: Annotated[str, typer.Argument(help="A built-in model, see `circuit models`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write the model to.")],
    seed: Annotated[int, typer.Option(min=0, help="Where all chance comes from.")] = 0,
    steps_scale: Annotated[
        float, typer.Option(help="Multiplies the steps of every stage; 0.01 is a trial run.", min=0.0)
    ] = 1.0,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="A folder to write the model to on the way as well, as step-000100 and so on."),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=1, help="A checkpoint every N steps, the start and the end with them; 100 if not given."
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Checkpoints after these steps instead, such as 0,50,100, and the end.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the model that --output names, and the checkpoints.")
    ] = False,
) -> None:
    """Make a built-in model again, seeded and counted in steps. Half an hour of one core; the planted one a second.

    [bold]circuit train plain-4l --output my-model --seed 1[/bold]

    [bold]circuit train plain-4l --output my-model --checkpoints my-steps --every 50[/bold]
    """
    from circuits.errors import UnknownNameError
    from circuits.models.builtin_models import CARD, builtin_names
    from circuits.over_training.checkpoints import RECORD
    from circuits.runs import check_output, writing_run
    from cli.render import note

    if name not in builtin_names():
        raise UnknownNameError("built-in model", name, builtin_names())
    check_output(output, force, record=CARD)
    steps = _steps(name, steps_scale, output, checkpoints, every, at)
    if checkpoints:
        check_output(checkpoints, force, record=RECORD)
    import torch

    from tasks.training.build import build
    from tasks.training.checkpoints import Checkpoints

    torch.set_num_threads(1)
    with ExitStack() as folders:
        folder = folders.enter_context(writing_run(output, force, record=CARD))
        aside = folders.enter_context(writing_run(checkpoints, force, record=RECORD)) if checkpoints else None
        kept = Checkpoints(aside, steps) if aside else None
        build(name, folder, seed=seed, steps_scale=steps_scale, report=note, checkpoints=kept)
    print(output)


def _steps(
    name: str, steps_scale: float, output: Path, checkpoints: Path | None, every: int | None, at: str | None
) -> Steps:
    """Which steps to keep; all that can be wrong with them is found before any work."""
    from circuits.errors import CircuitError
    from tasks.training.build import most_steps
    from tasks.training.checkpoints import parse_steps

    steps = parse_steps(every, at)
    if checkpoints is None:
        if every is not None or at is not None:
            asked = f"--every {every}" if at is None else f"--at {at}"
            raise CircuitError(f"{asked} is for checkpoints: say where they go with --checkpoints FOLDER.")
        return steps
    one, other = output.absolute(), checkpoints.absolute()
    if one == other or one in other.parents or other in one.parents:
        raise CircuitError(
            f"--checkpoints {checkpoints} and --output {output} lie in each other. Choose two folders side by side."
        )
    steps.require_within(most_steps(name, steps_scale))
    return steps
