"""`circuit answers`: what every node of a model writes for each label of a question, and which nodes answer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded
from cli.options import Device, Dtype, ModelName, ReplaceFolder, TablesFolder

if TYPE_CHECKING:
    from circuits.batches import Batch
    from circuits.models.bridge import BridgeModel
    from circuits.prompts import PromptPair
    from cli.prompt_source import Prompts

PAIRS = 128
ALL = "all"


@guarded
def answers(
    model: ModelName,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="A task whose prompts have labels: answers and distractors."),
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Your own prompts instead of a task's.")] = None,
    form: Annotated[str | None, typer.Option(help="Which form of the task.")] = None,
    corruption: Annotated[
        str | None, typer.Option(help="Which corrupted twins; they should have other answers.")
    ] = None,
    mutation: Annotated[
        list[str] | None,
        typer.Option(
            "--mutation",
            help="Judge the set on changed prompts too, of multiple-choice or its layout: random-capitals, "
            "other-letters, digits, permuted-labels, separators, no-preamble, or all; repeat for more.",
        ),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=16, help="How many prompts; 128 of a task, all of yours, if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds prompts, halves, draws, intervals.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    output: TablesFolder = None,
    force: ReplaceFolder = False,
    json: Annotated[bool, typer.Option("--json", help="Print answers.json, and nothing else.")] = False,
) -> None:
    """Say what each node writes for every label of a question, alone and through others; and which set answers.

    [bold]circuit answers plain-4l --task colored-objects[/bold]

    [bold]circuit answers gpt2 --task multiple-choice --mutation all --output answers[/bold]
    """
    from circuits.answers.study import read_answers
    from circuits.halves import split
    from circuits.models.bridge import load_model
    from circuits.models.source import find_model
    from circuits.runs import check_output
    from cli.answer_nodes_output import RECORD, reading_of
    from cli.prompt_source import draw_prompts, own_prompts
    from cli.reading_output import put_out
    from cli.render import progress

    own, source, wanted = own_prompts(task, prompts), find_model(model), _mutations(mutation or [])
    if output:
        check_output(output, force, RECORD)
    with progress(quiet=json) as say:
        loaded = load_model(source, device=device, dtype=dtype)
        drawn = draw_prompts(
            loaded, task, own, form=form, corruption=corruption, n=pairs or _most(own), seed=seed
        )
        drawn = replace(drawn, pairs=drawn.pairs[: pairs or _most(own)])
        halves = split(drawn.pairs, seed)
        judged = [drawn.pairs[i] for i in halves.judged]
        found = read_answers(
            loaded,
            _batches(loaded, [drawn.pairs[i] for i in halves.discovery], halves.discovery),
            _batches(loaded, judged, halves.judged),
            _changed(loaded, judged, halves.judged, wanted, seed, skip=ALL in (mutation or [])),
            seed=seed,
            progress=say,
        )
    put_out(reading_of(loaded, drawn, found, seed), output, force=force, json=json)


def _most(own: Prompts | None) -> int | None:
    return PAIRS if own is None else None


def _mutations(names: list[str]) -> tuple[str, ...]:
    """Raises UnknownNameError."""
    from circuits.errors import UnknownNameError
    from tasks.mutations import MUTATIONS

    for name in names:
        if name not in (ALL, *MUTATIONS):
            raise UnknownNameError("mutation", name, (ALL, *MUTATIONS))
    return tuple(MUTATIONS) if ALL in names else tuple(dict.fromkeys(names))


def _changed(
    model: BridgeModel,
    pairs: Sequence[PromptPair],
    called: Sequence[int],
    names: Sequence[str],
    seed: int,
    *,
    skip: bool,
) -> dict[str, tuple[Batch, ...]]:
    """skip: leave out, and say so, what the tokenizer has no words for."""
    from circuits.errors import CircuitError, PromptError
    from cli.prompt_source import lexicon_of
    from cli.render import warning
    from tasks.mutations import mutated

    lexicon, found = lexicon_of(model), {}
    for name in names:
        try:
            changed = mutated(pairs, name, seed=seed, lexicon=lexicon)
        except CircuitError as problem:
            if not skip or isinstance(problem, PromptError):
                raise
            warning(f"Mutation {name} is left out: {problem}")
            continue
        found[name] = _batches(model, changed, called, f", {name}")
    return found


def _batches(
    model: BridgeModel, pairs: Sequence[PromptPair], called: Sequence[int], how: str = ""
) -> tuple[Batch, ...]:
    from circuits.batches import make_batches

    return make_batches(model, pairs, names=[f"prompt {i + 1}{how}" for i in called])
