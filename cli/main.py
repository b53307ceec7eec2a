"""The Typer app: one command a file, imported when it is called."""

from __future__ import annotations

import gc

import typer

from cli.deferred import add_command

COMMANDS = {
    "discover": "Find and judge the circuit that carries out a task.",
    "show": "Draw a circuit as text, from its folder alone; or write a figure for a paper.",
    "evaluate": "Judge the circuits of a run: faithfulness over sizes, completeness, minimality, tests, stability.",
    "compare": "Compare circuits: what they share, and how much of that chance would give.",
    "check": "Check a run against a baseline: exit code 0 where all gates hold, 1 where one fails.",
    "heads": "Say what each head of a model does: previous token, induction, name mover, successor and more.",
    "intervene": "Knock out, mean-ablate, scale, redirect or offset heads, cut channels: what is answered then, by "
    "chance, after.",
    "subspace": "Learn directions that carry a task's answer at one site, and test whether the model really reads "
    "them.",
    "mlp": "Split each MLP's output into heads' outputs, times a number each, and a vector for the task.",
    "answers": "Say what each node writes for every label of a question, alone and through others; and which set "
    "answers.",
    "in-context": "Say how examples in a prompt are summarised, merged into their labels and retrieved; forbid "
    "each step.",
    "plan": "Say what `circuit discover` with these options will do and take; run nothing, write nothing.",
    "rank": "Rank texts by how much they ask of a model's retrieval heads, or by how like some others they are.",
    "models": "List the built-in models with the accuracies that their cards state.",
    "methods": "List the methods; or show one with its options.",
    "tokens": "Say which tokens matter to what the model says next: ReAGent, and input x gradient, both judged.",
    "train": "Make a built-in model again, seeded and counted in steps. Half an hour of one core; the planted one a "
    "second.",
    "timeline": "Follow a task over the checkpoints of a training: behaviour, circuit, heads, pieces of induction.",
    "tune": "Train the matrices of a few heads and nothing else; judge it here, on other tasks, and against random "
    "heads.",
    "export": "Write a run's circuit and scores as a file that another program reads.",
    "import": "Read a circuit that another program found, and write it as a run folder.",
    "run": "Run a study: tasks x models x methods x seeds, compared, in one folder that can be gone on with.",
    "tasks": "List the built-in tasks; show one; say what a prompt file holds.",
    "weights": "Read a model's weights: what heads can say to each other, what raises an observable, and the like.",
}
"""Each with the first sentences of its help, in the order in which help lists them."""

ELSEWHERE = {
    "answers": "cli.answer_nodes:answers",
    "models": "cli.listings:models",
    "methods": "cli.listings:methods",
    "import": "cli.import_:import_",
    "in-context": "cli.in_context:in_context",
    "tasks": "cli.tasks_group:tasks_app",
    "weights": "cli.weights_group:weights_app",
}
"""Where a command is that is not the function NAME of cli/NAME.py."""

app = typer.Typer(
    name="circuit",
    help="Find, judge and compare the circuits inside transformer language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, summary in COMMANDS.items():
    add_command(app, name, ELSEWHERE.get(name, f"cli.{name}:{name}"), summary)


def run() -> None:
    """The `circuit` command."""
    try:
        app()
    finally:
        # On its way out Python would search all that torch and its kin have made for garbage: a second for nothing.
        gc.freeze()
