"""`circuit timeline`: when a behaviour, its circuit and the roles of heads appear during training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded
from cli.options import Device, ReplaceFolder

if TYPE_CHECKING:
    from circuits.methods.method import Method
    from circuits.models.bridge import BridgeModel
    from circuits.over_training.checkpoints import Checkpoint
    from circuits.over_training.timeline import Question
    from circuits.roles.role import Role
    from cli.prompt_source import Prompts

ROLES = ("previous-token", "duplicate-token", "induction", "name-mover", "s-inhibition", "negative-mover")
"""Those that are measured where none is named: what circuits of copying and of naming are made of."""


@guarded
def timeline(
    checkpoints: Annotated[
        Path,
        typer.Argument(
            help="A folder of models of one training whose names end in their step, such as step-000500; `circuit "
            "train --checkpoints` writes one."
        ),
    ],
    task: Annotated[str, typer.Option("--task", "-t", help="A built-in task, see `circuit tasks`.")],
    method: Annotated[
        str, typer.Option("--method", "-m", help="Whose circuits, see `circuit methods`.")
    ] = "activation-patching",
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            "-r",
            help="A role of heads to follow, see `circuit heads --help`; repeat for more. previous-token, "
            "duplicate-token, induction, name-mover, s-inhibition and negative-mover if not given.",
        ),
    ] = None,
    form: Annotated[str | None, typer.Option(help="Which form of the task.")] = None,
    corruption: Annotated[str | None, typer.Option(help="Which corruption of the task.")] = None,
    pairs: Annotated[int, typer.Option(min=4, help="Prompt pairs, half of them to discover on.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seeds prompts, halves, methods, intervals.")] = 0,
    device: Device = "cpu",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder to write: tables, a picture, a report."),
    ] = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print timeline.json, and nothing else.")] = False,
) -> None:
    """Follow a task over the checkpoints of a training: behaviour, circuit, heads, pieces of induction.

    [bold]circuit train plain-4l --output my-model --checkpoints my-steps[/bold]

    [bold]circuit timeline my-steps --task ioi --output ioi-over-training[/bold]
    """
    from circuits.over_training.checkpoints import find_checkpoints
    from circuits.over_training.timeline import timeline as over_training
    from circuits.runs import check_output
    from cli.prompt_source import sample_task
    from cli.reading_output import put_out
    from cli.render import progress
    from cli.timeline_output import RECORD, reading_of, told
    from tasks import TASKS

    wanted, (scorer, roles) = TASKS.load(task), _loaded(method, role)
    training = find_checkpoints(checkpoints)
    if output:
        check_output(output, force, RECORD)
    with progress(quiet=json) as say:
        load = _loader(training.checkpoints[-1], device)
        model = load(training.checkpoints[-1])
        drawn = sample_task(model, wanted, form=form, corruption=corruption, n=pairs, seed=seed)
        asked = _question(drawn, scorer, roles, seed)
        found = told(over_training(training, load, asked, say), asked, drawn)
    put_out(reading_of(found), output, force=force, json=json)


def _loaded(method: str, role: list[str] | None) -> tuple[Method, tuple[Role, ...]]:
    from circuits.methods import METHODS
    from circuits.roles import ROLES as KNOWN

    return METHODS.load(method), tuple(KNOWN.load(name) for name in dict.fromkeys(role or ROLES))


def _loader(last: Checkpoint, device: str) -> Callable[[Checkpoint], BridgeModel]:
    """The last checkpoint is asked for first of all and again, and so kept; of the others one at a time."""
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model

    def load(checkpoint: Checkpoint) -> BridgeModel:
        return load_model(find_model(str(checkpoint.directory.absolute())), device=device)

    kept = load(last)
    return lambda checkpoint: kept if checkpoint is last else load(checkpoint)


def _question(drawn: Prompts, method: Method, roles: tuple[Role, ...], seed: int) -> Question:
    from circuits.discovery import Plan
    from circuits.over_training.timeline import Question

    plan = Plan(((method, method.configure({})),), drawn.metric, seed=seed, ablations=("resample",))
    return Question(drawn.pairs, plan, roles, drawn.name)
