"""The run folder of an import: what a foreign file says, in the same files as a discovery's, and nothing made up.

The one idea: scores go into the tables with all their digits, so what is exported again is what was imported; what
would need the model or prompts (baseline, verdicts, intervals) is left blank, and the report says so.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.circuit import ends
from circuits.runs import write_records, writing_run
from circuits.scored_circuit import Measured, ScoredCircuit, input_of

if TYPE_CHECKING:
    import pandas as pd

    from circuits.exchange.files import Imported
    from circuits.scores import Scores

DRAWN = 400
"""Links in a picture: of more, the largest are drawn."""
LISTED = 15


def write_import(path: Path, found: Imported, *, force: bool) -> None:
    """Writes the whole run folder, or nothing. Raises RunFolderError where the disk refuses."""
    from cli.page.page import write_page
    from cli.page.run_page import folder_page

    with writing_run(path, force) as folder:
        write_records(folder, **records(found))
        for name, content in documents(found):
            (folder / name).write_bytes(content)
        write_page(folder_page(folder))


def records(found: Imported) -> dict[str, Any]:
    """What circuits.runs.write_records writes, by the names that it gives them."""
    return {
        "run": run_record(found),
        "prompts": (),
        "nodes": nodes_table(found.scored),
        "edges": edges_table(found.scored),
        "circuit": circuit_record(found.scored),
        "evaluation": {"baseline": None, "rounding": None, "methods": {}, "overlaps": []},
    }


def run_record(found: Imported) -> dict[str, Any]:
    """run.json: which file this is. No prompts, no seed, no cost: nothing was run."""
    from circuits.exchange.run_folder import UNKNOWN_MODEL

    scored = found.scored
    model = scored.model or UNKNOWN_MODEL
    source = {name: getattr(found, name) for name in ("file", "sha256", "format", "sign_reversed")}
    return {
        "imported": source,
        "config": {"task": Path(found.file).stem, "model": model, "methods": {scored.circuit.method: {}}},
        "model": {"name": model, **asdict(scored.graph)},
        "prompts": {"discovery": [], "judged": []},
        "references": {},
        "versions": {"python": platform.python_version(), "circuit-toolkit": version("circuit-toolkit")},
    }


# Records


def nodes_table(scored: ScoredCircuit) -> pd.DataFrame:
    """One row a component, and one for the input where it has a score; blank where nothing was measured."""
    import pandas as pd

    listed = [name for name in scored.graph.sources if name in scored.scores or name != "input"]
    rank = {name: n for n, name in enumerate(_by_size(scored.scores), start=1)}
    return pd.DataFrame([_node_row(scored, name, rank.get(name)) for name in listed])


def _node_row(scored: ScoredCircuit, name: str, rank: int | None) -> dict[str, object]:
    node = scored.graph.node(name)
    return {
        "method": scored.circuit.method,
        "component": name,
        "kind": node.kind,
        "layer": node.layer,
        "head": str(node.index) if node.kind == "head" else None,
        "position": "all",
        **_cells(scored.scores.get(name)),
        "low": None,
        "high": None,
        "rank": None if rank is None else str(rank),
        "in_circuit": name in scored.circuit,
    }


def _by_size(scores: Mapping[str, Measured]) -> list[str]:
    return sorted(scores, key=lambda name: -abs(scores[name][0]))


def _cells(measured: Measured | None) -> dict[str, str | None]:
    """Score and error with all digits: as texts, which tables do not round."""
    score, stderr = measured or (None, None)
    return {
        "score": None if score is None else repr(score),
        "stderr": None if stderr is None else repr(stderr),
    }


def edges_table(scored: ScoredCircuit) -> pd.DataFrame:
    """One row a scored or kept edge; for a node circuit also one row a link, whose input is blank."""
    import pandas as pd

    columns = ["method", "source", "target", "input", "score", "stderr", "in_circuit"]
    method, kept = scored.circuit.method, set(scored.circuit.edges or ())
    rows = [
        {
            "method": method,
            "source": link[0],
            "target": link[1],
            "in_circuit": True,
            **_cells(None if score is None else (score, None)),
        }
        for link, score in scored.links.items()
    ]
    for edge in scored.listed:
        source, target = ends(edge)
        about = {"method": method, "source": source, "target": target, "input": input_of(edge)}
        rows.append({**about, **_cells(scored.edges.get(edge)), "in_circuit": edge in kept})
    return pd.DataFrame(rows, columns=columns)


def circuit_record(scored: ScoredCircuit) -> dict[str, Any]:
    """circuit.json: what the file keeps; `extras` is what it says that we have no field for."""
    from circuits.exchange.run_folder import UNKNOWN_MODEL

    circuit = scored.circuit
    entry: dict[str, Any] = {
        "method": circuit.method,
        "selection": circuit.selection,
        "selection_reached": True,
        "granularity": scored.granularity,
        "component_set": sorted({scored.graph.node(name).kind for name in scored.graph.components}),
        "nodes": [{"name": name, **_fields(scored.scores.get(name))} for name in circuit.nodes],
        "edges": [
            {"source": source, "target": target, "input": None, "score": score, "stderr": None}
            for (source, target), score in scored.links.items()
        ]
        + [
            {"source": source, "target": target, "input": input_of(edge), **_fields(scored.edges.get(edge))}
            for edge in circuit.edges or ()
            for source, target in [ends(edge)]
        ],
        "evaluation": [],
    }
    if scored.extras:
        entry["extras"] = scored.extras
    model = {"name": scored.model or UNKNOWN_MODEL, **asdict(scored.graph)}
    return {"schema": "circuit/1", "model": model, "circuits": [entry]}


def _fields(measured: Measured | None) -> dict[str, float | None]:
    score, stderr = measured or (None, None)
    return {"score": score, "stderr": stderr}


# Pictures and report


def documents(found: Imported) -> Iterator[tuple[str, bytes]]:
    """The circuit as GraphML and as pictures, and the report."""
    from circuits.exchange.graphml import to_graphml
    from cli.report.drawing import drawing
    from cli.report.figure import png, svg

    scored = found.scored
    links, words = drawn_links(scored)
    scores, unit = drawn_scores(scored)
    turned = " with its sign reversed" if found.sign_reversed else ""
    title = f"{found.file} ({found.format}), imported{turned}; {words}"
    picture = drawing(scored.graph, scored.circuit, scores, links, title=title, unit=unit, signed=True)
    yield "circuit.graphml", to_graphml(scored).encode()
    yield "circuit.svg", svg(picture)
    yield "circuit.png", png(picture)
    yield "report.md", report(found, words).encode()


def drawn_links(scored: ScoredCircuit) -> tuple[dict[tuple[str, str], float | None], str]:
    """The links of a picture, the largest where there are too many, and how many that is in words.

    A link stands for all kept edges between two nodes, with the sum of their scores.
    """
    links: dict[tuple[str, str], float | None] = dict(scored.links)
    for edge in scored.circuit.edges or ():
        before, measured = links.get(ends(edge)), scored.edges.get(edge)
        links[ends(edge)] = before if measured is None else (before or 0.0) + measured[0]
    n = len(scored.circuit.edges) if scored.circuit.edges is not None else len(links)
    words = f"{n:,} {'edges' if scored.circuit.edges is not None else 'links'} kept"
    if scored.circuit.edges is not None and len(links) < n:
        words += f", drawn as {len(links):,} links (q, k and v together)"
    if len(links) <= DRAWN:
        return links, words
    largest = set(sorted(links, key=lambda link: -abs(links[link] or 0.0))[:DRAWN])
    return {
        k: v for k, v in links.items() if k in largest
    }, f"{words}, of which the {DRAWN} largest are shown"


def drawn_scores(scored: ScoredCircuit) -> tuple[Scores, str]:
    """What colours the nodes: their own scores, or the sums over the edges that leave them; and what that is."""
    import numpy as np

    from circuits.scores import Scores

    values = {name: score for name, (score, _) in scored.scores.items()}
    unit = "score" if values or not scored.edges else "sum of scores of edges out of it"
    if not values:
        for edge, (score, _) in scored.edges.items():
            values[ends(edge)[0]] = values.get(ends(edge)[0], 0.0) + score
    samples = np.array([list(values.values())], dtype=np.float64).reshape(1, -1)
    return Scores(scored.circuit.method, tuple(values), samples), unit


def report(found: Imported, drawn: str) -> str:
    """report.md: what was imported from where, and that nothing was evaluated."""
    from cli.report.markdown import table

    scored = found.scored
    sign = "reversed here, as asked for" if found.sign_reversed else "as in the file, which does not say it"
    origin = [("file", found.file), ("sha256", found.sha256), ("format", found.format), ("sign", sign)]
    parts = [
        f"# Imported: {found.file}",
        "**This circuit was imported. Nothing was run or evaluated here:** no prompts, no model, no faithfulness, no "
        "intervals. Scores and the choice of what is kept are the file's. Here a positive score supports the "
        "behaviour; where the file means the opposite, import it with --reverse-sign.",
        table(("source", ""), origin),
        "![The imported circuit](circuit.svg)",
        f"The picture: {drawn}.",
        table(("what", ""), _counts(scored)),
        *_largest(scored),
    ]
    return "\n\n".join(parts) + "\n"


def _counts(scored: ScoredCircuit) -> list[tuple[str, str]]:
    graph, circuit = scored.graph, scored.circuit
    groups = "" if graph.n_kv_heads == graph.n_heads else f", {graph.n_kv_heads} kv heads"
    kept = "" if circuit.edges is None else f", {len(circuit.edges):,} of {len(graph.places):,} edges"
    return [
        ("model", scored.model or "the file does not say"),
        ("shape", f"{graph.n_layers} layers x {graph.n_heads} heads{groups}{', parallel' * graph.parallel}"),
        ("method", circuit.method),
        ("kept by", circuit.selection),
        ("kept", f"{len(circuit):,} of {len(graph.components):,} components{kept}"),
        ("scored", f"{len(scored.scores):,} nodes, {len(scored.edges):,} edges"),
    ]


def _largest(scored: ScoredCircuit) -> Iterator[str]:
    from cli.report.markdown import table

    kept = {*scored.circuit.nodes, *(scored.circuit.edges or ())}
    for what, scores in (("edge", scored.edges), ("node", scored.scores)):
        rows = [
            (str(n), name, f"{scores[name][0]:.4g}", "yes" if name in kept else "")
            for n, name in enumerate(_by_size(scores)[:LISTED], start=1)
        ]
        if rows:
            yield f"## The largest {what} scores"
            yield table(("rank", what, "score", "in circuit"), rows)
