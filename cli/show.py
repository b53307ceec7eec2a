"""`circuit show`: what a folder holds, drawn in the terminal; or one figure of it for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.guard import guarded


@guarded
def show(
    folder: Annotated[
        Path, typer.Argument(help="A run folder; or that of a comparison, an evaluation, a study, of heads.")
    ],
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="Which method of a run; its first if not given."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many components, or edges, to list.")] = 10,
    figure: Annotated[
        str | None,
        typer.Option(help="Write a figure instead: circuit, heatmap, curve, attention, waterfall or roles."),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="With --figure attention: the head, such as a3.h1.")
    ] = None,
    prompt: Annotated[
        int | None, typer.Option(help="With --figure attention: which prompt, counted from 1.")
    ] = None,
    width: Annotated[str, typer.Option(help="Of a figure: column (3.3 inches) or page (6.9).")] = "column",
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Of a figure: svg, pdf or png; by the end of --output if not given."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The figure's file; FIGURE-METHOD.FORMAT here if not given."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that stands there.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print what would be shown as JSON, and nothing else.")
    ] = False,
) -> None:
    """Draw a circuit as text, from its folder alone; or write a figure for a paper.

    [bold]circuit show runs/ioi-plain-4l[/bold]

    [bold]circuit show runs/ioi-plain-4l --method sae --json[/bold]

    [bold]circuit show runs/ioi-plain-4l --figure circuit --format pdf --width column[/bold]
    """
    from circuits.runs import RECORD

    if figure is not None:
        from cli.figures import Request, write_figure

        request = Request(folder, figure, method, head, prompt, width, format_, output, force)
        _say_written(write_figure(request), json)
        return
    _refuse_alone(head=head, prompt=prompt, format=format_, output=output)
    if (folder / RECORD).is_file():
        from cli.shown import read_shown
        from cli.shown_text import record, show_run

        shown = read_shown(folder, method)
        if json:
            _print(record(shown, top))
        else:
            show_run(shown, top)
        return
    from cli.shown_folders import read_folder

    found = read_folder(folder)
    if json:
        _print(found.record)
    else:
        found.show()


def _refuse_alone(**options: object) -> None:
    """Raises CircuitError for options of figures where none is asked for."""
    from circuits.errors import CircuitError

    if given := [f"--{name}" for name, value in options.items() if value is not None]:
        verb = "is" if len(given) == 1 else "are"
        raise CircuitError(f"{' and '.join(given)} {verb} for figures: say which with --figure.")


def _say_written(written: dict[str, object], json: bool) -> None:
    if json:
        _print(written)
    else:
        from cli.render import say

        say(f"Written to {written['output']}: {written['title']}.")


def _print(record: object) -> None:
    from circuits.records import json_text

    print(json_text(record), end="")
