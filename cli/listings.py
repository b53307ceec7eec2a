"""`circuit tasks`, `circuit models`, `circuit methods`: what is there, and what each entry is in detail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.guard import guarded
from cli.task_files import TaskFile, named_task

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from circuits.prompts import Scoring
    from cli.prompt_source import Prompts
    from tasks.task import Task

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@guarded
def tasks(
    name: Annotated[str | None, typer.Argument(help="A task to show in detail.")] = None,
    model: Annotated[str, typer.Option(help="Whose tokens to show.")] = "plain-4l",
    form: Annotated[str | None, typer.Option(help="Which form.")] = None,
    corruption: Annotated[str | None, typer.Option(help="Which corruption; all if not given.")] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many pairs: 2 samples of each corruption; to check, as many as discover."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check the pairs, and what the model makes of them; exit code 1 if any is unusable.",
        ),
    ] = False,
    prompts: Annotated[
        Path | None, typer.Option(help="Check your own prompt pairs instead of a task's.", dir_okay=False)
    ] = None,
    corrupt_prompts: Annotated[
        Path | None, typer.Option(help="The corrupted twins of --prompts, as for discover.", dir_okay=False)
    ] = None,
    corrupt_column: Annotated[
        str | None, typer.Option(help="Which corrupted twin of --prompts, as for discover.")
    ] = None,
    make_corrupt: Annotated[
        str | None, typer.Option(help="How twins are made that --prompts lacks, as for discover.")
    ] = None,
    judge_on: Annotated[
        Literal["prompts", "templates"],
        typer.Option(help="Which halves to look for leaks in, as for discover."),
    ] = "prompts",
    seed: Annotated[int, typer.Option(min=0, help="Seeds the samples.")] = 0,
    task_file: TaskFile = None,
    answers: Annotated[
        str | None, typer.Option(help="one-token (the default), first-token or whole-string.")
    ] = None,
    json: Json = False,
) -> None:
    """List the tasks; or show one: sample prompts, their tokens side by side, what differs.

    [bold]circuit tasks[/bold]

    [bold]circuit tasks ioi --model gpt2[/bold]

    [bold]circuit tasks --task-file my_task.py[/bold]

    [bold]circuit tasks import mine.jsonl[/bold] says what a prompt file holds.

    [bold]circuit tasks ioi --model gpt2 --check[/bold]

    [bold]circuit tasks --check --prompts mine.jsonl --model ./my-hf-model[/bold]
    """
    options = locals()
    from tasks import TASKS
    from tasks.own import tasks_of

    if check or prompts is not None:
        from cli.doctor import examine

        examine(options)
        return
    if name is None:
        own = tasks_of(task_file).values() if task_file else None
        entries = own or [TASKS.load(n) for n in TASKS.names()]
        rows = [{"task": t.name, "what": t.summary, "metric": t.metric, "paper": t.paper} for t in entries]
        _show(rows, json, "Tasks")
        return
    task = TASKS.load(named_task(name, task_file) or name)
    task.choose(form, corruption)
    from cli.answers import scoring_named

    scoring = scoring_named(answers)
    from circuits.models.bridge import load_model

    loaded = load_model(model)
    samples = [
        _sample(loaded, task, form, c, pairs or 2, seed, scoring)
        for c in ([corruption] if corruption else task.corruptions)
    ]
    if json:
        _print_json({"task": task.name, "forms": task.forms, "samples": samples})
        return
    from cli.task_view import show_task

    show_task(task, samples, loaded.name)


def _sample(
    model: BridgeModel,
    task: Task,
    form: str | None,
    corruption: str,
    pairs: int,
    seed: int,
    scoring: Scoring | None,
) -> dict[str, Any]:
    """One corruption's pairs, with tokens aligned."""
    from cli.prompt_source import sample_task

    drawn = sample_task(model, task, form=form, corruption=corruption, n=pairs, seed=seed, scoring=scoring)
    return {
        "form": drawn.form,
        "corruption": corruption,
        "rejected": dict(drawn.rejected),
        "pairs": [_tokens(model, drawn, i) for i in range(pairs)],
    }


def _tokens(model: BridgeModel, drawn: Prompts, i: int) -> dict[str, Any]:
    from circuits.batches import tokenize_pair

    pair = drawn.pairs[i]
    tokens = tokenize_pair(model, pair, f"{drawn.name} prompt {i + 1}")
    clean, corrupt = ([model.token_string(t) for t in side] for side in (tokens.clean, tokens.corrupt))
    return {
        "clean": pair.clean,
        "corrupt": pair.corrupt,
        "negative": pair.negative,
        "answers": list(pair.answers),
        "distractors": list(pair.distractors),
        "template": pair.template,
        "tokens": {"clean": clean, "corrupt": corrupt},
        "differs_at": [
            n for n, (a, b) in enumerate(zip(tokens.clean, tokens.corrupt, strict=True)) if a != b
        ],
        "positions": dict(tokens.positions),
    }


@guarded
def models(json: Json = False) -> None:
    """List the built-in models with the accuracies that their cards state.

    [bold]circuit models[/bold]
    """
    from circuits.models.builtin_models import builtin_names, card

    rows = []
    for name in builtin_names():
        about = card(name)
        accuracy = {task: f"{measured['accuracy']:.1%}" for task, measured in about.accuracy.items()}
        rows.append({"model": name, "kind": about.kind, "what": about.summary, "held-out accuracy": accuracy})
    if not json:
        for row in rows:
            row["held-out accuracy"] = "\n".join(f"{k} {v}" for k, v in row["held-out accuracy"].items())  # type: ignore[attr-defined]
    _show(rows, json, "Built-in models (any Hugging Face directory or hub name works too)")


@guarded
def methods(
    name: Annotated[str | None, typer.Argument(help="A method to show with its options.")] = None,
    json: Json = False,
) -> None:
    """List the methods; or show one with its options.

    [bold]circuit methods activation-patching[/bold]
    """
    from circuits.methods import METHODS

    if name is None:
        entries = [METHODS.load(n) for n in METHODS.names()]
        rows = [
            {"method": m.name, "scores": f"{m.granularity}s", "what": m.summary, "paper": m.paper}
            for m in entries
        ]
        _show(rows, json, "Methods")
        return
    method = METHODS.load(name)
    rows = [
        {
            "option": f"--set {method.name}.{field.replace('_', '-')}=",
            "default": str(info.default),
            "what": info.description or "",
        }
        for field, info in method.options.model_fields.items()
    ]
    _show(rows, json, f"{method.name}: {method.summary} ({method.paper})")


def _show(rows: list[dict[str, Any]], json: bool, title: str) -> None:
    if json:
        _print_json(rows)
        return
    from cli.render import table

    table(list(rows[0]) if rows else [], [list(row.values()) for row in rows], title=title)


def _print_json(value: object) -> None:
    from circuits.records import json_text

    print(json_text(value), end="")
