"""From a Discovery to the files of a run folder: records, pictures, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.runs import write_records, writing_run
from cli.run_records import links, records

if TYPE_CHECKING:
    from circuits.discovery import Discovery, Finding
    from circuits.models.bridge import BridgeModel
    from circuits.scores import Scores
    from cli.prompt_source import Prompts

MANY = 60
"""Components above which a picture by position shows those of the circuit alone."""


def write_run(path: Path, found: Discovery, model: BridgeModel, drawn: Prompts, *, force: bool) -> None:
    """Writes the whole run folder, or nothing. Raises RunFolderError where the disk refuses."""
    from cli.page.page import write_page
    from cli.page.run_page import folder_page

    kept = records(found, model, drawn)
    with writing_run(path, force) as folder:
        write_records(folder, **kept)
        for name, content in documents(found, drawn, kept["run"]):
            (folder / name).write_bytes(content)
        write_page(folder_page(folder))


def documents(found: Discovery, drawn: Prompts, run: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Every file beside the records, as it is made: pictures, tensors, the circuit as a graph, the report.

    run: what run.json holds.
    """
    from safetensors.numpy import save

    from cli.report.markdown import report

    for finding in found.findings:
        yield from _score_pictures(found, drawn, finding)
        for stem, tensors in finding.scores.artifacts.items():
            yield f"{stem}.safetensors", save(dict(tensors))
    yield from _circuit_pictures(found, drawn)
    yield "report.md", report(found, run).encode()


def _score_pictures(found: Discovery, drawn: Prompts, finding: Finding) -> Iterator[tuple[str, bytes]]:
    from cli.report.figure import png
    from cli.report.heatmap import heatmap, position_heatmap

    scores, circuit = finding.scores, finding.circuit
    look = _look(found, drawn, scores)
    yield f"heatmap-{scores.method}.png", png(heatmap(found.graph, scores, circuit, **look))
    if scores.by_position:
        rows = circuit.nodes if len(scores.components) > MANY else None
        yield f"positions-{scores.method}.png", png(position_heatmap(scores, rows, circuit, **look))


def _circuit_pictures(found: Discovery, drawn: Prompts) -> Iterator[tuple[str, bytes]]:
    """The first method's circuit as pictures and as GraphML."""
    from circuits.exchange.graphml import scored_circuit, to_graphml
    from cli.report.drawing import drawing
    from cli.report.figure import png, svg

    first = found.findings[0]
    shown, joined = scored_circuit(found.graph, first.circuit, first.scores), links(found, first)
    if first.circuit.edges is None:
        shown = replace(shown, links=joined)
    yield "circuit.graphml", to_graphml(shown).encode()
    look = _look(found, drawn, first.scores)
    picture = drawing(found.graph, first.circuit, first.scores, joined, **look)
    yield "circuit.svg", svg(picture)
    yield "circuit.png", png(picture)


def _look(found: Discovery, drawn: Prompts, scores: Scores) -> dict[str, Any]:
    title = f"{scores.method}, {drawn.name} in {found.model} (n = {len(found.halves.discovery):,} prompts)"
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
                **({} if finding.circuit.edges is None else {"edges": list(finding.circuit.edges)}),
                "reached": finding.choice.reached,
                "verdicts": [asdict(verdict) for verdict in finding.verdicts],
                "references": [asdict(known) for known in finding.matches],
                **({} if finding.audit is None else {"audit": finding.audit.record()}),
                **({} if finding.missed is None else {"missed": finding.missed.record()}),
            }
            for finding in found.findings
        ],
        "overlaps": [asdict(pair) for pair in found.overlaps],
    }
