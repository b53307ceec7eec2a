"""`circuit import`: a circuit from another program becomes a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from circuits.exchange.files import Imported


@guarded
def import_(
    file: Annotated[Path, typer.Argument(help="The file to read.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder to write.")],
    format_: Annotated[
        str | None,
        typer.Option("--format", help="eap-ig, graphml ...; by extension or content if not given."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Keep the N largest scores by size instead of what the file marks."),
    ] = None,
    reverse_sign: Annotated[
        bool, typer.Option("--reverse-sign", help="For files in which a negative score helps.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run folder that --output names.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
    ] = False,
) -> None:
    """Read a circuit that another program found, and write it as a run folder.

    [bold]circuit import importances.json --output runs/theirs[/bold]

    [bold]circuit import graph.pt --format eap-ig-pt --top 200 --output runs/top-200[/bold]
    """
    from circuits.runs import check_output

    check_output(output, force)
    found = _read(file, format_, top, reverse_sign)
    from cli.import_records import write_import

    write_import(output, found, force=force)
    _report(found, output, json)


def _read(file: Path, name: str | None, n: int | None, reverse: bool) -> Imported:
    from dataclasses import replace

    from circuits.exchange.files import read_circuit
    from circuits.scored_circuit import reversed_sign, top

    found = read_circuit(file, name)
    if reverse:
        found = replace(found, scored=reversed_sign(found.scored), sign_reversed=True)
    return found if n is None else replace(found, scored=top(found.scored, n))


def _report(found: Imported, folder: Path, json: bool) -> None:
    scored = found.scored
    edges = scored.circuit.edges
    if json:
        from circuits.records import json_text

        brief = {
            "output": str(folder),
            "file": found.file,
            "format": found.format,
            "sha256": found.sha256,
            "granularity": scored.granularity,
            "nodes": list(scored.circuit.nodes),
            "edges": None if edges is None else len(edges),
            "scored_nodes": len(scored.scores),
            "scored_edges": len(scored.edges),
        }
        print(json_text(brief), end="")
        return
    from cli.render import say, warning

    kept = f"{len(scored.circuit)} nodes" + ("" if edges is None else f" and {len(edges):,} edges")
    say(f"{found.file} ({found.format}) keeps {kept}; {len(scored.edges):,} edges are scored.")
    if edges is not None and not edges:
        warning("It keeps no edge, so the circuit is empty; --top N keeps the N largest scores.")
    say(f"Written to {folder}; nothing was evaluated.")
