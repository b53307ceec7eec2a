"""`circuit weights ...`: what the weights of a model say of its heads, each reading a command of its own."""

from __future__ import annotations

import typer

from cli.deferred import add_command

READINGS = {
    "composition": "Composition scores of every pair of heads (q, k, v), whole and by singular component, beside "
    "random heads.",
    "observables": "Observable propagation: the direction that each head and MLP turns into answer minus distractor, "
    "and checks.",
    "low-rank": "The smallest rank of a head's queries, keys or values that recovers 95% of a task's loss, beside "
    "random ones.",
}
"""Each with the first sentences of its help."""

weights_app = typer.Typer(
    name="weights",
    help="Read a model's weights: what heads can say to each other, what raises an observable, and the like.",
    no_args_is_help=True,
)
for name, summary in READINGS.items():
    function = name.replace("-", "_")
    add_command(weights_app, name, f"cli.weights_{function}:{function}", summary)
