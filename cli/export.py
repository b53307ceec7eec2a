"""`circuit export`: a run's circuit in another program's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.guard import guarded


@guarded
def export(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    format_: Annotated[
        str, typer.Option("--format", help="mib, eap-ig, eap-ig-pt, graphml, dot or neuronpedia.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    method: Annotated[
        str | None, typer.Option(help="Whose circuit and scores; the run's first method if not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that --output names.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
    ] = False,
) -> None:
    """Write a run's circuit and scores as a file that another program reads.

    [bold]circuit export runs/ioi --format mib --output importances.json[/bold]

    [bold]circuit export runs/ioi --format dot --method sae --output circuit.dot[/bold]
    """
    from circuits.exchange import FORMATS
    from circuits.exchange.files import check_file, write_file
    from circuits.exchange.run_folder import circuit_of_run
    from circuits.runs import read_run
    from cli.render import say, warning

    form = FORMATS.load(format_)
    check_file(output, form, force)
    scored = circuit_of_run(read_run(run), method)
    data = form.write(scored)
    write_file(output, data)
    caveats = form.caveats(scored)
    if json:
        from circuits.records import json_text

        about = {
            "output": str(output),
            "format": form.name,
            "method": scored.circuit.method,
            "bytes": len(data),
        }
        print(json_text(about | {"caveats": caveats}), end="")
        return
    for caveat in caveats:
        warning(caveat)
    say(f"Written to {output}: the circuit of {scored.circuit.method}, {len(data):,} bytes.")
