"""`circuit export`: a run's circuit, or its heads, in another program's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from circuits.exchange.format import Format
    from circuits.scored_circuit import ScoredCircuit

GATES = "config.json"
"""By which a folder of gates is known."""


@guarded
def export(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="Circuits: mib, eap-ig, eap-ig-pt, graphml, dot or neuronpedia. Heads: duo-attention (a folder), "
            "razor-attention, compress-kv or head-list.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write; a folder for duo-attention.")
    ],
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

    [bold]circuit export runs/gates --format duo-attention --output patterns[/bold]
    """
    from circuits.exchange.run_folder import circuit_of_run
    from circuits.run_head_lists import RUN_EXPORTS
    from circuits.runs import read_run
    from cli.render import say, warning

    form = _checked(format_, output, force)
    held = read_run(run)
    scored = circuit_of_run(held, method)
    if form is None:
        caveats, size = _write_heads(RUN_EXPORTS[format_](scored, held.run), format_, output, force)
    else:
        caveats, size = _write_circuit(form, scored, output)
    if json:
        from circuits.records import json_text

        about = {"output": str(output), "format": format_, "method": scored.circuit.method, "bytes": size}
        print(json_text(about | {"caveats": caveats}), end="")
        return
    for caveat in caveats:
        warning(caveat)
    what = "circuit" if form else "heads"
    say(f"Written to {output}: the {what} of {scored.circuit.method}, {size:,} bytes.")


def _checked(name: str, output: Path, force: bool) -> Format | None:
    """The format of circuits, or None for head lists. Raises CircuitError where `output` cannot be written."""
    from circuits.errors import UnknownNameError
    from circuits.exchange import FORMATS
    from circuits.exchange.files import check_file, check_place
    from circuits.run_head_lists import RUN_EXPORTS
    from circuits.runs import check_output

    if name in RUN_EXPORTS:
        if name == "duo-attention":
            check_output(output, force, GATES)
        else:
            check_place(output, force)
        return None
    if name not in FORMATS.names():
        raise UnknownNameError("format", name, [*FORMATS.names(), *RUN_EXPORTS])
    form: Format = FORMATS.load(name)
    check_file(output, form, force)
    return form


def _write_circuit(form: Format, scored: ScoredCircuit, output: Path) -> tuple[tuple[str, ...], int]:
    """What a reader should know, and the bytes written."""
    from circuits.exchange.files import write_file

    data = form.write(scored)
    write_file(output, data)
    return form.caveats(scored), len(data)


def _write_heads(
    files: dict[str, bytes], name: str, output: Path, force: bool
) -> tuple[tuple[str, ...], int]:
    """The same: the only file as `output`, or a folder of several."""
    from circuits.exchange.files import write_file
    from circuits.run_head_lists import CAVEATS
    from circuits.runs import writing_run

    if len(files) == 1:
        write_file(output, *files.values())
    else:
        with writing_run(output, force, GATES) as folder:
            for path, data in files.items():
                (folder / Path(path).name).write_bytes(data)
    return tuple(CAVEATS[one] for one in (name,) if one in CAVEATS), sum(map(len, files.values()))
