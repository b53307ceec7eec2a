"""The Typer app: one command a file; nothing heavy is imported before a command runs."""

from __future__ import annotations

import gc

import typer

from cli.check import check
from cli.compare import compare
from cli.discover import discover
from cli.evaluate import evaluate
from cli.export import export
from cli.heads import heads
from cli.import_ import import_
from cli.in_context import in_context
from cli.intervene import intervene
from cli.listings import methods, models
from cli.mlp import mlp
from cli.plan import plan
from cli.rank import rank
from cli.run import run as run_study
from cli.show import show
from cli.subspace import subspace
from cli.tasks_group import tasks_app
from cli.tokens import tokens
from cli.train import train
from cli.tune import tune
from cli.weights_group import weights_app

app = typer.Typer(
    name="circuit",
    help="Find, judge and compare the circuits inside transformer language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    discover,
    show,
    evaluate,
    compare,
    check,
    heads,
    intervene,
    subspace,
    in_context,
    mlp,
    plan,
    rank,
    models,
    methods,
    tokens,
    train,
    tune,
    export,
):
    app.command()(command)
app.add_typer(tasks_app, name="tasks")
app.add_typer(weights_app, name="weights")
app.command("import")(import_)
app.command("run")(run_study)


def run() -> None:
    """The `circuit` command."""
    try:
        app()
    finally:
        # On its way out Python would search all that torch and its kin have made for garbage: a second for nothing.
        gc.freeze()
