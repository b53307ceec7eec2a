"""`circuit weights ...`: what the weights of a model say of its heads, each reading a command of its own."""

from __future__ import annotations

import typer

from cli.weights_composition import composition
from cli.weights_low_rank import low_rank
from cli.weights_observables import observables

weights_app = typer.Typer(
    help="Read a model's weights: what heads can say to each other, what raises an observable, and the like.",
    no_args_is_help=True,
)
weights_app.command("composition")(composition)
weights_app.command("observables")(observables)
weights_app.command("low-rank")(low_rank)
