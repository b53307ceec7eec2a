"""`circuit heads`: what every head of a model does, role by role, against chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.roles.role import Evidence, Role
    from cli.heads_output import Roles
    from cli.prompt_source import Prompts

PAIRS = 64
"""Prompts to draw of a task: scores are means of shares, known to 0.06 or better."""


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
    form: Annotated[str | None, typer.Option(help="Which form of the task.")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", "-r", help="A role; repeat for more. All that can be measured if not given."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many heads of each role to show.")] = 3,
    pairs: Annotated[int, typer.Option(min=2, help="How many prompts to draw.")] = PAIRS,
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
    from circuits.runs import check_output
    from cli.heads_output import RECORD, record, show, write
    from cli.prompt_source import own_prompts
    from cli.render import progress

    wanted = _roles(role)
    own = own_prompts(task, prompts) if task or prompts else None
    source = find_model(model)
    if output:
        check_output(output, force, RECORD)
    with progress(quiet=json) as say:
        loaded = load_model(source, device=device, dtype=dtype)
        drawn = _drawn(loaded, task, own, form, pairs, seed)
        found = _measured(loaded, drawn, wanted, bool(role), seed, say)
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
    model: BridgeModel, task: str | None, own: Prompts | None, form: str | None, pairs: int, seed: int
) -> Prompts | None:
    from circuits.errors import CircuitError
    from cli.prompt_source import draw_prompts

    if task is None and own is None:
        if form:
            raise CircuitError(f"--form {form} is a form of a task: say which with --task.")
        return None
    return draw_prompts(model, task, own, form=form, corruption=None, n=pairs, seed=seed)


def _measured(
    model: BridgeModel, drawn: Prompts | None, wanted: tuple[Role, ...], asked: bool, seed: int, say: Progress
) -> Roles:
    """asked: whether the roles were named, so that one which cannot be measured on the prompts is a mistake."""
    from circuits.roles.role import Evidence, score
    from cli.heads_output import Roles

    evidence = Evidence(model, seed=seed) if drawn is None else _evidence(model, drawn, seed)
    found, left_out = [], {}
    for n, role in enumerate(wanted):
        reason = role.lacking(evidence)
        scored = None if reason and not asked else score(role, evidence)
        if scored is None:
            left_out[role.name] = reason or role.absent
        else:
            found.append(scored)
        say("roles", n + 1, len(wanted))
    return Roles(tuple(found), left_out, drawn)


def _evidence(model: BridgeModel, drawn: Prompts, seed: int) -> Evidence:
    from circuits.batches import make_batches
    from circuits.roles.role import Evidence

    names = [f"{drawn.name}, prompt {i + 1}" for i in range(len(drawn.pairs))]
    return Evidence(model, make_batches(model, drawn.pairs, names=names), drawn.name, seed)
