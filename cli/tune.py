"""`circuit tune`: trains the matrices of chosen heads alone, and writes the model as a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded
from cli.options import Device
from cli.run_source import folder_beside, known_tasks, methods_of, model_of, prompt_sets

if TYPE_CHECKING:
    from circuits.evaluation.run_evaluation import PromptSet
    from circuits.runs import RunFolder


@guarded
def tune(
    run: Annotated[Path, typer.Argument(help="A run folder, as `circuit discover` makes them.")],
    head: Annotated[
        list[str] | None,
        typer.Option("--head", help="A head, such as a9.h6; repeat for more. The circuit's if not given."),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="Whose circuit; the run's first if not given.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Another task that should not suffer; repeat for more."),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Step size of Adam.")] = 1e-3,
    epochs: Annotated[int, typer.Option(min=1, help="Times that every discovery prompt is seen.")] = 2,
    prompts_at_once: Annotated[int, typer.Option(min=1, help="Prompts in a step of training.")] = 8,
    pairs: Annotated[
        int | None, typer.Option(min=2, help="The first N judged prompts; all if not given.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model; the one that the run names if not given.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seeds training, controls, other tasks; the run's if not given."),
    ] = None,
    device: Device = "cpu",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The model's folder to write; RUN-tuned if not given."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the tuned model that stands there.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print tune.json, and nothing else.")] = False,
) -> None:
    """Train the matrices of a few heads and nothing else; judge it here, on other tasks, and against random heads.

    [bold]circuit tune runs/name-copying --task ioi --task arithmetic[/bold]
    """
    import math

    from circuits.errors import CircuitError
    from circuits.runs import read_run
    from circuits.tuning.run_tuning import Asked
    from circuits.tuning.run_tuning import tune as on_prompts
    from circuits.tuning.training import Schedule
    from cli.intervene import circuitry
    from cli.reading_output import put_out
    from cli.render import progress
    from cli.tune_output import RECORD, Done, reading_of

    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise CircuitError(f"--learning-rate {learning_rate} is no step size. Give a number above 0.")
    held = read_run(run)
    folder = folder_beside(run, output, force, "tuned", RECORD)
    tasks = known_tasks(task or [])
    chosen = methods_of(held, [method] if method else None)[0]
    seeded = seed if seed is not None else int((held.run.get("config") or {}).get("seed", 0))
    schedule = Schedule(learning_rate, epochs, prompts_at_once)
    with progress(quiet=json) as say:
        loaded, _ = model_of(held, model, device, None, None, say)
        circuit = circuitry(held, chosen, loaded.graph)
        heads = tuple(dict.fromkeys(head or circuit.heads))
        if not heads:
            raise CircuitError(f"The circuit of {chosen} holds no head. Name one with --head.")
        own, others = prompt_sets(held, loaded, tasks, pairs, seeded)
        asked = Asked(schedule, seeded)
        result = on_prompts(loaded, heads, _taught(held, own), (own, *others), asked, say)
    done = Done(held, loaded, chosen, asked, result)
    put_out(reading_of(done, folder), folder, force=force, json=json)


def _taught(run: RunFolder, own: PromptSet) -> PromptSet:
    """The run's discovery prompts. Raises RunFolderError where it has none."""
    from dataclasses import replace

    from circuits.errors import RunFolderError
    from circuits.evaluation.run_evaluation import prompt_numbers, prompts_of

    pairs = prompts_of(run, "discovery")
    if not pairs:
        raise RunFolderError(
            f"{run.path} holds no discovery prompts to train on. Make it with `circuit discover`."
        )
    names = tuple(f"prompt {number + 1}" for number in prompt_numbers(run, "discovery"))
    return replace(own, pairs=pairs, names=names, about=f"discovery prompts of {own.task}")
