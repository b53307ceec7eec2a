"""`circuit heads`: what every head of a model does, role by role, against chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded
from cli.options import Device, Dtype, ModelName, ReplaceFolder

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.roles.masking import Masking
    from circuits.roles.role import Evidence, Role, RoleScores
    from cli.prompt_source import Prompts

PAIRS = 64
"""Prompts of a task: a mean of so many shares has a standard error of 0.063 at most."""


@guarded
def heads(
    model: ModelName,
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
            "duplicate-token, induction, razor-echo, razor-induction. By weights: copying, successor. By a task's "
            "prompts: name-mover, negative-mover, s-inhibition, content-gatherer, task-kv. By either: retrieval, "
            "semantic-retrieval, sink, distance, windowed-distance, future-influence.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many heads of each role to show.")] = 3,
    pairs: Annotated[
        int | None, typer.Option(min=2, help="How many prompts; 64 of a task, all of yours, if not given.")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            min=2, help="Tokens of a needle prompt, for the retrieval roles without a task; 64 if not given."
        ),
    ] = None,
    mask_top: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Mask the first N heads of each role, and random ones of the same layers, and say what stays right "
            "of the task's answers, or of needles where there is no task.",
        ),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            help="Also write head lists into --output/export: duo-attention, razor-attention, compress-kv or json; "
            "repeat for more."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds random tokens, the task's prompts, intervals.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder to write: tables, heatmaps, a report.")
    ] = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print heads.json, and nothing else.")] = False,
) -> None:
    """Say what each head of a model does: previous token, induction, name mover, successor and more.

    [bold]circuit heads plain-6l --task ioi[/bold]

    [bold]circuit heads gpt2 --role induction --role successor --output gpt2-heads[/bold]

    [bold]circuit heads plain-6l --role retrieval --mask-top 4[/bold]
    """
    from circuits.head_lists import require_exports
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.roles.role import score_all
    from circuits.runs import check_output
    from cli.heads_output import RECORD, Roles, export_files, record, show, write
    from cli.prompt_source import own_prompts
    from cli.render import progress

    wanted, exports = _roles(role), tuple(dict.fromkeys(export or ()))
    require_exports(exports)
    _require_folder(exports, output)
    own = own_prompts(task, prompts, corrupt_prompts) if task or prompts or corrupt_prompts else None
    source = find_model(model)
    if output:
        check_output(output, force, RECORD)
    with progress(quiet=json) as say:
        loaded = load_model(source, device=device, dtype=dtype)
        drawn = _drawn(loaded, task, own, form, pairs, seed)
        evidence = replace(_evidence(loaded, drawn, seed), length=length)
        for named in wanted if role else ():
            named.require(evidence)
        measured, left_out = score_all(wanted, evidence, say)
        _require_any(measured, left_out, bool(role))
        found = Roles(measured, left_out, drawn, _masked(measured, evidence, mask_top, say))
    kept = record(found, loaded, seed)
    lists = export_files(found, kept, loaded.graph, exports)
    if output:
        write(output, found, kept, evidence, lists, force=force)
    if json:
        from circuits.records import json_text

        print(json_text(kept), end="")
        return
    show(found, loaded.name, top, output)


def _require_folder(exports: tuple[str, ...], output: Path | None) -> None:
    from circuits.errors import CircuitError

    if exports and not output:
        raise CircuitError(f"--export {exports[0]} writes files: say where with --output FOLDER.")


def _require_any(measured: tuple[RoleScores, ...], left_out: Mapping[str, str], asked: bool) -> None:
    """Raises CircuitError where roles were asked for, and there is nothing to say of any."""
    from circuits.errors import CircuitError

    if asked and not measured:
        reasons = "\n".join(f"{name} {reason}." for name, reason in left_out.items())
        raise CircuitError(f"{reasons}\nChoose another role, or another model.")


def _masked(
    measured: tuple[RoleScores, ...], evidence: Evidence, n: int | None, say: Progress
) -> dict[str, Masking]:
    from circuits.roles.masking import masking_test

    if n is None:
        return {}
    first = {one.role.name: [one.scores.components[place] for place in one.top(n)] for one in measured}
    return {name: masking_test(evidence, heads, progress=say) for name, heads in first.items()}


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
