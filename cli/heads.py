"""`circuit heads`: what every head of a model does, role by role, against chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from circuits.roles.role import Evidence, Role
    from cli.prompt_source import Prompts

PAIRS = 64
"""Prompts of a task: a mean of so many shares has a standard error of 0.063 at most."""


@guarded
def heads(
    model: Annotated[
        str, typer.Argument(help="A built-in model, a Hugging Face directory, or a name on the hub.")
    ],
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="A task whose prompts name the positions that some roles need."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Your own prompts instead of a task's, one JSON object a line.")
    ] = None,
    corrupt_prompts: Annotated[
        Path | None, typer.Option(help="Their twins, where both files are JSON lists of [prompt, label].")
    ] = None,
    form: Annotated[str | None, typer.Option(help="Which form of the task.")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            "-r",
            help="A role; repeat for more, all that can be measured if not given. By random tokens: previous-token, "
            "duplicate-token, induction. By weights: copying, successor. By a task's prompts: name-mover, "
            "negative-mover, s-inhibition, content-gatherer.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many heads of each role to show.")] = 3,
    pairs: Annotated[
        int | None, typer.Option(min=2, help="How many prompts; 64 of a task, all of yours, if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds random tokens, the task's prompts, intervals.")] = 0,
    device: Annotated[
        str, typer.Option(help="Where the model runs, with the same words as for discover.")
    ] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder to write: tables, heatmaps, a report.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder that stands there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print heads.json, and nothing else.")] = False,
) -> None:
    """Say what each head of a model does: previous token, induction, name mover, successor and more.

    [bold]circuit heads plain-6l --task ioi[/bold]

    [bold]circuit heads gpt2 --role induction --role successor --output gpt2-heads[/bold]
    """
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.roles.role import score_all
    from circuits.runs import check_output
    from cli.heads_output import RECORD, Roles, record, show, write
    from cli.prompt_source import own_prompts
    from cli.render import progress

    wanted = _roles(role)
    own = own_prompts(task, prompts, corrupt_prompts) if task or prompts or corrupt_prompts else None
    source = find_model(model)
    if output:
        check_output(output, force, RECORD)
    with progress(quiet=json) as say:
        loaded = load_model(source, device=device, dtype=dtype)
        drawn = _drawn(loaded, task, own, form, pairs, seed)
        evidence = _evidence(loaded, drawn, seed)
        for named in wanted if role else ():
            named.require(evidence)
        found = Roles(*score_all(wanted, evidence, say), drawn)
    kept = record(found, loaded, seed)
    if output:
        write(output, found, kept, loaded.graph, force=force)
    if json:
        from circuits.records import json_text

        print(json_text(kept), end="")
        return
    show(found, loaded.name, top, output)


def _roles(names: list[str] | None) -> tuple[Role, ...]:
    from circuits.roles import ROLES

    return tuple(ROLES.load(name) for name in dict.fromkeys(names or ROLES.names()))


def _drawn(
    model: BridgeModel, task: str | None, own: Prompts | None, form: str | None, pairs: int | None, seed: int
) -> Prompts | None:
    from circuits.errors import CircuitError
    from cli.prompt_source import draw_prompts

    if task is None and own is None:
        if form:
            raise CircuitError(f"--form {form} is a form of a task: say which with --task.")
        return None
    drawn = draw_prompts(model, task, own, form=form, corruption=None, n=pairs, seed=seed)
    return replace(drawn, pairs=drawn.pairs[: pairs or (PAIRS if own is None else None)])


def _evidence(model: BridgeModel, drawn: Prompts | None, seed: int) -> Evidence:
    from circuits.batches import make_batches
    from circuits.roles.role import Evidence

    if drawn is None:
        return Evidence(model, seed=seed)
    names = [f"{drawn.name}, prompt {i + 1}" for i in range(len(drawn.pairs))]
    return Evidence(model, make_batches(model, drawn.pairs, names=names), drawn.name, seed)
