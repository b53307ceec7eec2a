"""`circuit tokens`: which tokens of a prompt the model's next one rests on, and how far that is to be believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded
from cli.options import Device, Dtype, ModelName, ReplaceFolder, TablesFolder

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from cli.prompt_source import Prompts

PAIRS = 16


@guarded
def tokens(
    model: ModelName,
    prompt: Annotated[
        str | None, typer.Argument(help="A prompt; or take those of --task, or of --prompts.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Read prompts of this task.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Read your own prompts.")] = None,
    form: Annotated[str | None, typer.Option(help="Which form of the task.")] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="How many prompts; 16 of a task, all of yours, if not given.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="ReAGent's runs of a prompt, averaged.")] = 5,
    rate: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="How likely a step replaces a token.")
    ] = 0.3,
    steps: Annotated[int, typer.Option(min=1, help="Most steps of a run.")] = 300,
    top: Annotated[
        int, typer.Option(min=1, help="A run stops when so many tokens do without the others.")
    ] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seeds prompts, replacements, judges.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    output: TablesFolder = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print tokens.json, and nothing else.")] = False,
) -> None:
    """Say which tokens matter to what the model says next: ReAGent, and input x gradient, both judged.

    [bold]circuit tokens plain-4l "The capital of France is"[/bold]

    [bold]circuit tokens plain-4l --task ioi --output ioi-tokens[/bold]
    """
    from circuits.batches import unknown_in
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.runs import check_output
    from circuits.token_importance.reading import read_prompts
    from circuits.token_importance.reagent import Search
    from cli.prompt_source import own_prompts, warn_of_unknown
    from cli.reading_output import put_out
    from cli.render import progress
    from cli.tokens_output import RECORD, reading_of

    own = None if prompt is not None and not (task or prompts) else own_prompts(task, prompts)
    _require_one(prompt, task or prompts, ["--form"] * (form is not None) + ["--pairs"] * (pairs is not None))
    source, search = find_model(model), Search(runs, rate, steps, top)
    if output:
        check_output(output, force, RECORD)
    with progress(quiet=json) as say:
        loaded = load_model(source, device=device, dtype=dtype)
        drawn = None if prompt is not None else _drawn(loaded, task, own, form, pairs, seed)
        texts = [pair.clean for pair in drawn.pairs] if drawn else [str(prompt)]
        warn_of_unknown(loaded, unknown_in(loaded, texts))
        found = read_prompts(loaded, texts, search, seed=seed, progress=say)
    put_out(reading_of(loaded, drawn, texts, found, search, seed), output, force=force, json=json)


def _require_one(prompt: str | None, other: object, options: list[str]) -> None:
    from circuits.errors import CircuitError

    if prompt is not None and other:
        raise CircuitError("Give a prompt, or --task or --prompts, not both.")
    if prompt is not None and options:
        raise CircuitError(
            f"{' and '.join(options)} belong to prompts of --task or --prompts; leave them out."
        )
    if prompt is not None and not prompt.strip():
        raise CircuitError(
            f"{prompt!r} is an empty prompt. Write a text whose next token the model shall say."
        )


def _drawn(
    model: BridgeModel, task: str | None, own: Prompts | None, form: str | None, pairs: int | None, seed: int
) -> Prompts:
    from cli.prompt_source import draw_prompts

    n = pairs or (PAIRS if own is None else None)
    drawn = draw_prompts(model, task, own, form=form, corruption=None, n=n, seed=seed)
    return replace(drawn, pairs=drawn.pairs[:n])
