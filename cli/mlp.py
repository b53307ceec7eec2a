"""`circuit mlp`: what the MLPs of a model make of what heads wrote, and what its last layer does to answers."""

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

PAIRS = 80


@guarded
def mlp(
    model: ModelName,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Whose prompts the MLPs are read on.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Your own prompts instead of a task's.")] = None,
    form: Annotated[str | None, typer.Option(help="Which form of the task.")] = None,
    layer: Annotated[
        list[int] | None, typer.Option("--layer", help="An MLP, by layer; repeat for more. All if not given.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="General text, a line each; pieces of other prompts if not given."),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=4, help="How many prompts; 80 of a task, all of yours, if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds prompts, halves, shuffles, intervals.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    output: TablesFolder = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print mlp.json, and nothing else.")] = False,
) -> None:
    """Split each MLP's output into heads' outputs, times a number each, and a vector for the task.

    [bold]circuit mlp plain-4l --task ioi[/bold]

    [bold]circuit mlp gpt2 --task factual-recall --layer 9 --layer 10 --output gpt2-mlps[/bold]
    """
    from circuits.batches import make_batches, unknown_words
    from circuits.halves import split
    from circuits.metrics import metric_named
    from circuits.mlp_reading.overconfidence import read_last_layer
    from circuits.mlp_reading.reading import read_mlps
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.runs import check_output
    from cli.mlp_output import RECORD, reading_of
    from cli.prompt_source import draw_prompts, own_prompts, warn_of_unknown
    from cli.reading_output import put_out
    from cli.render import progress
    from cli.text_source import lines_of, pieces_of

    own, source = own_prompts(task, prompts), find_model(model)
    lines = lines_of(text) if text else None
    if output:
        check_output(output, force, RECORD)
    with progress(quiet=json) as say:
        loaded = load_model(source, device=device, dtype=dtype)
        layers = _layers(loaded, layer)
        drawn = draw_prompts(loaded, task, own, form=form, corruption=None, n=pairs, seed=seed)
        drawn = replace(drawn, pairs=drawn.pairs[: pairs or (PAIRS if own is None else None)])
        _require_single(drawn)
        halves = split(drawn.pairs, seed)
        fitted, judged = (
            make_batches(loaded, [drawn.pairs[i] for i in half], names=[f"prompt {i + 1}" for i in half])
            for half in (halves.discovery, halves.judged)
        )
        missing = {*unknown_words(loaded, drawn.pairs), *(lines.unknown(loaded) if lines else ())}
        warn_of_unknown(loaded, sorted(missing))
        general = lines.batches(loaded) if lines else pieces_of(judged, seed)
        metric = metric_named(drawn.metric)
        found = read_mlps(loaded, fitted, judged, metric, layers, seed=seed, progress=say)
        last = read_last_layer(loaded, fitted, judged, general, seed=seed)
    about = text.name if text else "pieces of the judged prompts, cut at random"
    put_out(reading_of(loaded, drawn, found, last, about, seed), output, force=force, json=json)


def _layers(model: BridgeModel, asked: list[int] | None) -> list[int]:
    from circuits.errors import CircuitError

    n = model.graph.n_layers
    for layer in asked or ():
        if not 0 <= layer < n:
            raise CircuitError(f"{model.name} has no layer {layer}: its {n} are 0 to {n - 1}.")
    return sorted(set(asked)) if asked else list(range(n))


def _require_single(drawn: Prompts) -> None:
    from circuits.errors import CircuitError

    if any(pair.scoring == "whole-string" for pair in drawn.pairs):
        raise CircuitError(
            f"Answers of {drawn.name} are scored as whole strings, of whose tokens the last prompt token tells the "
            "first alone. Use answers of one token."
        )
