"""`circuit in-context`: how a model learns from the examples in its prompt, in three phases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.guard import guarded
from cli.options import Device, Dtype, ModelName, ReplaceFolder, TablesFolder

TASK, PAIRS = "in-context-classification", 128


@guarded
def in_context(
    model: ModelName,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help=f"A task whose prompts show examples; {TASK} if not given."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Your own few-shot prompts instead, one JSON object a line.")
    ] = None,
    form: Annotated[str | None, typer.Option(help="Which form of the task.")] = None,
    pairs: Annotated[
        int | None, typer.Option(min=2, help="How many prompts; 128 of a task, all of yours, if not given.")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of each control.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seeds prompts, shuffles, draws, intervals.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    output: TablesFolder = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print in-context.json, and nothing else.")] = False,
) -> None:
    """Say how examples in a prompt are summarised, merged into their labels and retrieved; forbid each step.

    [bold]circuit in-context plain-6l --form arbitrary[/bold]

    [bold]circuit in-context gpt2 --output gpt2-in-context[/bold]
    """
    from circuits.batches import make_batches
    from circuits.in_context.study import study
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.runs import check_output
    from cli.in_context_output import RECORD, reading_of
    from cli.prompt_source import draw_prompts, own_prompts, warn_of_words
    from cli.reading_output import put_out
    from cli.render import progress

    asked = task or (None if prompts else TASK)
    own, source = own_prompts(asked, prompts), find_model(model)
    if output:
        check_output(output, force, RECORD)
    with progress(quiet=json) as say:
        loaded = load_model(source, device=device, dtype=dtype)
        n = pairs or (PAIRS if own is None else None)
        drawn = draw_prompts(loaded, asked, own, form=form, corruption=None, n=n, seed=seed)
        if own:
            warn_of_words(loaded, drawn.pairs)
        batches = make_batches(loaded, drawn.pairs)
        found = study(loaded, drawn.pairs, batches, draws=draws, seed=seed, progress=say)
    put_out(reading_of(loaded, drawn, found, draws, seed), output, force=force, json=json)
