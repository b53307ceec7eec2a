"""From a Discovery to the files of a run folder: records, pictures, report."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.records import write_text
from circuits.runs import write_records, writing_run
from cli.run_records import (
    circuit_record,
    edges_table,
    evaluation_record,
    links,
    nodes_table,
    parts_table,
    run_record,
)

if TYPE_CHECKING:
    from circuits.discovery import Discovery, Finding
    from circuits.models.bridge import BridgeModel
    from circuits.scores import Scores
    from cli.prompt_source import Prompts

MANY = 60
"""Components above which a picture by position shows those of the circuit alone."""


def write_run(path: Path, found: Discovery, model: BridgeModel, drawn: Prompts, *, force: bool) -> None:
    """Writes the whole run folder, or nothing. Raises RunFolderError where the disk refuses."""
    from safetensors.numpy import save

    from cli.report.markdown import report

    run = run_record(found, model, drawn)
    with writing_run(path, force) as folder:
        write_records(
            folder,
            run=run,
            prompts=found.prompts,
            nodes=nodes_table(found),
            edges=edges_table(found),
            circuit=circuit_record(found),
            evaluation=evaluation_record(found),
            parts=parts_table(found),
        )
        for finding in found.findings:
            _draw_scores(folder, found, drawn, finding)
            for stem, tensors in finding.scores.artifacts.items():
                (folder / f"{stem}.safetensors").write_bytes(save(dict(tensors)))
        _draw_circuit(folder, found, drawn)
        write_text(folder / "report.md", report(found, run))


def _draw_scores(folder: Path, found: Discovery, drawn: Prompts, finding: Finding) -> None:
    from cli.report.figure import png
    from cli.report.heatmap import heatmap, position_heatmap

    scores, circuit = finding.scores, finding.circuit
    look = _look(found, drawn, scores)
    (folder / f"heatmap-{scores.method}.png").write_bytes(png(heatmap(found.graph, scores, circuit, **look)))
    if scores.by_position:
        rows = circuit.nodes if len(scores.components) > MANY else None
        figure = position_heatmap(scores, rows, circuit, **look)
        (folder / f"positions-{scores.method}.png").write_bytes(png(figure))


def _draw_circuit(folder: Path, found: Discovery, drawn: Prompts) -> None:
    """The first method's circuit as pictures and as GraphML."""
    from circuits.exchange.graphml import scored_circuit, to_graphml
    from cli.report.drawing import drawing
    from cli.report.figure import png, svg

    first = found.findings[0]
    shown = scored_circuit(found.graph, first.circuit, first.scores)
    write_text(folder / "circuit.graphml", to_graphml(replace(shown, links=links(found, first))))
    look = _look(found, drawn, first.scores)
    picture = drawing(found.graph, first.circuit, first.scores, links(found, first), **look)
    (folder / "circuit.svg").write_bytes(svg(picture))
    (folder / "circuit.png").write_bytes(png(picture))


def _look(found: Discovery, drawn: Prompts, scores: Scores) -> dict[str, Any]:
    title = f"{scores.method}, {drawn.name} in {found.model}"
    return {"unit": unit(scores), "signed": signed(scores), "title": title}


def unit(scores: Scores) -> str:
    """What one unit of the method's scores is."""
    return str(scores.details.get("unit", "score"))


def signed(scores: Scores) -> bool:
    """Whether the method's scores can be below zero at all (counts cannot)."""
    return bool(scores.details.get("signed", True))


def summary(found: Discovery, drawn: Prompts, folder: Path) -> dict[str, Any]:
    """What --json prints: enough for a program to go on with."""
    return {
        "output": str(folder),
        "task": drawn.name,
        "model": found.model,
        "baseline": asdict(found.baseline),
        "solves": found.baseline.solves,
        "rounding": None if found.rounding is None else asdict(found.rounding),
        "circuits": [
            {
                "method": finding.scores.method,
                "nodes": list(finding.circuit.nodes),
                "components": len(finding.scores.components),
                "reached": finding.choice.reached,
                "verdicts": [asdict(verdict) for verdict in finding.verdicts],
                "references": [asdict(known) for known in finding.matches],
            }
            for finding in found.findings
        ],
        "overlaps": [asdict(pair) for pair in found.overlaps],
    }
