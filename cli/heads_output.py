"""What `circuit heads` found: in the terminal, as a record, and as a folder of tables, heatmaps and a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.prompt_source import Prompts
from cli.wording import number, p_value

if TYPE_CHECKING:
    from circuits.graph import Graph
    from circuits.models.bridge import BridgeModel
    from circuits.roles.role import RoleScores

RECORD, FORMAT_VERSION = "heads.json", 1
"""heads.json, by which the folder is known, and its version."""

COLUMNS = ("role", "head", "score", "95% interval", "chance", "p")
IN_REPORT = 10


class Roles(NamedTuple):
    """left_out: role -> why it was not measured. prompts: those of the task, where one was given."""

    measured: tuple[RoleScores, ...]
    left_out: Mapping[str, str]
    prompts: Prompts | None


def record(found: Roles, model: BridgeModel, seed: int) -> dict[str, Any]:
    """heads.json: every score beside what it was measured on. Nothing in it varies from run to run."""
    from circuits.models.source import weights_hash

    prompts = found.prompts
    return {
        "format_version": FORMAT_VERSION,
        "model": {"name": model.name, "weights_sha256": weights_hash(model.directory)},
        "prompts": prompts and {"task": prompts.name, "form": prompts.form, "n": len(prompts.pairs)},
        "seed": seed,
        "roles": {scored.role.name: _role(scored) for scored in found.measured},
        "left_out": dict(found.left_out),
    }


def _role(scored: RoleScores) -> dict[str, Any]:
    return {
        "definition": scored.role.definition,
        "paper": scored.role.paper,
        "samples": len(scored.scores.samples),
        "unit": scored.scores.unit,
        "chance": scored.chance,
        "heads": {line.pop("head"): line for line in _lines(scored)},
    }


def _lines(scored: RoleScores) -> Iterator[dict[str, Any]]:
    columns = zip(
        scored.scores.components,
        scored.scores.values.tolist(),
        scored.scores.stderr.tolist(),
        scored.interval.low.tolist(),
        scored.interval.high.tolist(),
        scored.p_values.tolist(),
        strict=True,
    )
    names = ("head", "score", "stderr", "low", "high", "p_value")
    yield from (dict(zip(names, line, strict=True)) for line in columns)


def _rows(scored: RoleScores, n: int) -> Iterator[tuple[str, ...]]:
    """The n heads that have the role most, in words: COLUMNS without the first."""
    lines = list(_lines(scored))
    for place in scored.top(n):
        line = lines[place]
        interval = f"{number(line['low'])} to {number(line['high'])}"
        chance = number(scored.chance, 4)
        yield line["head"], number(line["score"]), interval, chance, p_value(line["p_value"])


def show(found: Roles, model: str, n: int, folder: Path | None) -> None:
    """The table of the first n heads of each role."""
    from cli.render import note, say, table

    rows = [
        (scored.role.name if first else "", *row)
        for scored in found.measured
        for first, row in zip([True] + [False] * n, _rows(scored, n), strict=False)
    ]
    if rows:
        table(COLUMNS, rows, title=f"Heads of {model}{_on(found)}", numeric=("score", "chance", "p"))
    for name, reason in found.left_out.items():
        note(f"{name} is left out: it {reason}.")
    if folder:
        say(
            f"Written to {folder}: report.html (open it in a browser), report.md, {RECORD}, a table and pictures."
        )


def _on(found: Roles) -> str:
    return f", prompts of {found.prompts.name}" if found.prompts else ""


def write(folder: Path, found: Roles, kept: Mapping[str, Any], graph: Graph, *, force: bool) -> None:
    """Writes the whole folder, or nothing. Raises RunFolderError where the disk refuses."""
    from circuits.records import write_json, write_table, write_text
    from circuits.runs import writing_run
    from cli.page.heads_page import folder_page
    from cli.page.page import write_page

    with writing_run(folder, force, RECORD) as place:
        write_json(place / RECORD, kept)
        write_table(place / "heads.csv", _table(found, graph))
        write_text(place / "report.md", _report(found, kept))
        for name, content in _pictures(found, kept["model"]["name"], graph):
            (place / name).write_bytes(content)
        write_page(folder_page(place))


def _table(found: Roles, graph: Graph) -> Any:
    import pandas as pd

    rows = []
    for scored in found.measured:
        for line in _lines(scored):
            node = graph.node(line["head"])
            place = {"role": scored.role.name, "head": line["head"], "layer": node.layer, "index": node.index}
            rows.append(place | line | {"chance": scored.chance})
    columns = ["role", "head", "layer", "index", "score", "stderr", "low", "high", "p_value", "chance"]
    return pd.DataFrame(rows, columns=columns)


def _pictures(found: Roles, model: str, graph: Graph) -> Iterator[tuple[str, bytes]]:
    from cli.report.figure import png
    from cli.report.heatmap import heatmap

    for scored in found.measured:
        name = scored.role.name
        title = f"{name} heads of {model}"
        yield f"heatmap-{name}.png", png(heatmap(graph, scored.scores, title=title, signed=False))


def _report(found: Roles, kept: Mapping[str, Any]) -> str:
    return "\n\n".join(_sections(found, kept)) + "\n"


def _sections(found: Roles, kept: Mapping[str, Any]) -> Iterator[str]:
    from cli.report.markdown import table

    yield f"# Heads of {kept['model']['name']}"
    yield (
        f"Every head has a score between 0 and 1 for each role{_on(found)}; seed {kept['seed']}. Intervals are 95% "
        "bootstrap intervals of the mean over samples. Chance is what a head without the role scores on average; "
        "p is for scoring no more than that, one-sided, corrected over all heads (Holm). A small p says that a head "
        "differs from chance, not that the role is what it is for: that takes an intervention."
    )
    for scored in found.measured:
        role, scores = scored.role, scored.scores
        yield f"## {role.name}"
        yield (
            f"{role.definition[0].upper()}{role.definition[1:]}: mean of {len(scores.samples)} {scores.unit}s; "
            f"chance {number(scored.chance, 4)}. Source: {role.paper}."
        )
        rows = [(row[0], *row[1:3], row[4]) for row in _rows(scored, IN_REPORT)]
        yield table(("head", "score", "95% interval", "p"), rows)
        yield f"![{role.name}](heatmap-{role.name}.png)"
    if found.left_out:
        yield "## Left out"
        yield "\n".join(f"- {name} {reason}." for name, reason in found.left_out.items())
