"""What `circuit heads` found: in the terminal, as a record, and as a folder of tables, heatmaps and a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.prompt_source import Prompts
from cli.wording import number, p_value, share

if TYPE_CHECKING:
    from circuits.graph import Graph
    from circuits.models.bridge import BridgeModel
    from circuits.roles.masking import Masking
    from circuits.roles.role import Evidence, RoleScores

RECORD, FORMAT_VERSION = "heads.json", 1
"""heads.json, by which the folder is known, and its version."""

COLUMNS = ("role", "head", "score", "95% interval", "chance", "p")
IN_REPORT = 10


class Roles(NamedTuple):
    """left_out: role -> why it was not measured. prompts: those of the task, where one was given.

    masked: role -> what its first heads' masking does, where that was asked for.
    """

    measured: tuple[RoleScores, ...]
    left_out: Mapping[str, str]
    prompts: Prompts | None
    masked: Mapping[str, Masking] = {}


def record(found: Roles, model: BridgeModel, seed: int) -> dict[str, Any]:
    """heads.json: every score beside what it was measured on. Nothing in it varies from run to run."""
    from circuits.models.source import weights_hash

    prompts = found.prompts
    return {
        "format_version": FORMAT_VERSION,
        "model": {"name": model.name, "weights_sha256": weights_hash(model.directory)},
        "prompts": prompts and {"task": prompts.name, "form": prompts.form, "n": len(prompts.pairs)},
        "seed": seed,
        "roles": {
            scored.role.name: _role(scored, found.masked.get(scored.role.name)) for scored in found.measured
        },
        "left_out": dict(found.left_out),
    }


def _role(scored: RoleScores, masked: Masking | None) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if scored.groups:
        extras["groups"] = {name: _group(scored, name) for name in scored.groups}
    if scored.features:
        extras["place_modulo_ten"] = {name: one._asdict() for name, one in scored.features.items()}
    if scored.digits:
        classes = {name: one._asdict() for name, one in scored.digits.classes.items()}
        extras["digit_arithmetic"] = {**scored.digits._asdict(), "classes": classes}
    if masked:
        extras["masking"] = {**asdict(masked), "p_value": masked.p_value}
    return {
        "definition": scored.role.definition,
        "paper": scored.role.paper,
        "samples": len(scored.scores.samples),
        "unit": scored.scores.unit,
        "chance": scored.chance,
        "heads": {line.pop("head"): line for line in _lines(scored)},
        **extras,
    }


def _group(scored: RoleScores, name: str) -> dict[str, Any]:
    """A part of the samples by itself."""
    rows, chance = scored.groups[name]
    part = scored.scores.samples[rows]
    values = dict(zip(scored.scores.components, part.mean(0).tolist(), strict=True))
    return {"samples": len(part), "chance": chance, "scores": values}


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
    for name, masked in found.masked.items():
        say(f"{name}: {masking_words(masked)}")
    for name, reason in found.left_out.items():
        note(f"{name} is left out: it {reason}.")
    if folder:
        say(
            f"Written to {folder}: report.html (open it in a browser), report.md, {RECORD}, a table and pictures."
        )


def masking_words(masked: Masking) -> str:
    """What is left of what the model gets right."""
    if masked.p_value is None:
        control = "there are no other heads to mask"
    else:
        mean = sum(masked.random) / len(masked.random)
        where = "the same layers" if masked.same_layers else "any layer"
        control = (
            f"random heads of {where} masked: {mean:.1%} (mean of {len(masked.random)} draws, "
            f"p = {p_value(masked.p_value)})"
        )
    return (
        f"with {', '.join(masked.heads)} looking evenly, {share(masked.masked)} of the tokens asked for are right, "
        f"of {share(masked.whole)} before; {control}."
    )


def export_files(
    found: Roles, kept: Mapping[str, Any], graph: Graph, formats: tuple[str, ...]
) -> dict[str, bytes]:
    """Head lists in the named formats, by file name. Raises CircuitError for a role that is missing."""
    from circuits.head_lists import EXPORTS, HeadList

    scores = {one.role.name: one.scores.values.reshape(graph.n_layers, -1) for one in found.measured}
    samples = {one.role.name: len(one.scores.samples) for one in found.measured}
    model = kept["model"]
    about = {
        "model": model["name"],
        "weights_sha256": model["weights_sha256"],
        "prompts": kept["prompts"],
        "seed": kept["seed"],
        "samples": samples,
    }
    heads = HeadList(graph, scores, about)
    return {name: content for one in formats for name, content in EXPORTS[one](heads).items()}


def _on(found: Roles) -> str:
    return f", prompts of {found.prompts.name}" if found.prompts else ""


def write(
    folder: Path,
    found: Roles,
    kept: Mapping[str, Any],
    evidence: Evidence,
    lists: Mapping[str, bytes],
    *,
    force: bool,
) -> None:
    """Writes the whole folder, or nothing. Raises RunFolderError where the disk refuses."""
    import pandas as pd

    from circuits.records import write_json, write_table, write_text
    from circuits.runs import writing_run
    from cli.page.heads_page import folder_page
    from cli.page.page import write_page

    graph = evidence.model.graph
    with writing_run(folder, force, RECORD) as place:
        write_json(place / RECORD, kept)
        for name, content in lists.items():
            (place / "export" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "export" / name).write_bytes(content)
        write_table(place / "heads.csv", _table(found, graph))
        if groups := _group_rows(found):
            write_table(place / "groups.csv", pd.DataFrame(groups))
        if _RHYTHM & {scored.role.name for scored in found.measured}:
            write_table(place / "tokens.csv", pd.DataFrame(_token_rows(evidence)))
        write_text(place / "report.md", _report(found, kept))
        for name, content in _pictures(found, kept["model"]["name"], graph):
            (place / name).write_bytes(content)
        write_page(folder_page(place))


_RHYTHM = {"distance", "windowed-distance", "future-influence"}
"""Roles beside which the same is written token by token."""


def _group_rows(found: Roles) -> list[dict[str, Any]]:
    """One row a head and part of a role's samples."""
    return [
        {"role": scored.role.name, "group": name, "head": head, "score": value}
        | {"samples": group["samples"], "chance": group["chance"]}
        for scored in found.measured
        for name in scored.groups
        for group in (_group(scored, name),)
        for head, value in group["scores"].items()
    ]


def _token_rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """One row a token: what local and global heads do there."""
    from circuits.roles.rhythm import rhythm

    found = rhythm(evidence)
    for prompt, (tokens, waad, fai) in enumerate(zip(found.tokens, found.waad, found.fai, strict=True)):
        for place, token in enumerate(tokens):
            spelled = evidence.model.token_string(token)
            yield {
                "prompt": prompt,
                "position": place,
                "token": spelled,
                "waad": waad[place],
                "fai": fai[place],
            }


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


def _features(scored: RoleScores) -> Iterator[tuple[str, ...]]:
    for name, one in scored.features.items():
        yield name, str(one.n), number(one.accuracy), number(one.shuffled)


def _best(scored: RoleScores) -> Iterator[tuple[str, ...]]:
    """Of each part of the samples, the head that scores most."""
    for name in scored.groups:
        group = _group(scored, name)
        head = max(group["scores"], key=group["scores"].__getitem__)
        score = number(group["scores"][head])
        yield name, str(group["samples"]), number(group["chance"], 4), head, score


def _report(found: Roles, kept: Mapping[str, Any]) -> str:
    return "\n\n".join(_sections(found, kept)) + "\n"


def _sections(found: Roles, kept: Mapping[str, Any]) -> Iterator[str]:
    from cli.report.markdown import table

    yield f"# Heads of {kept['model']['name']}"
    yield (
        f"Every head has a score for each role{_on(found)}, between 0 and 1 but where it is in tokens; seed "
        f"{kept['seed']}. Intervals are 95% bootstrap intervals of the mean over samples. Chance is what a head "
        "without the role scores on average; p is for scoring no more than that, one-sided, corrected over all heads "
        "(Holm). A small p says that a head differs from chance, not that the role is what it is for: that takes an "
        "intervention."
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
        if scored.groups:
            yield table(("part", "samples", "chance", "best head", "score"), list(_best(scored)))
        if scored.features:
            yield (
                "Place modulo ten, by a probe of numbers, in what the first MLP makes of each class (numbers: "
                "decades held out), beside probes of shuffled places:"
            )
            yield table(("class", "words", "right", "shuffled"), list(_features(scored)))
        if scored.digits:
            yield (
                f"One digit exchanged for another (k = {scored.digits.k:g}, chosen on the first class): how often"
                f" {scored.digits.head} answers with the other's successor, and so for random directions as long:"
            )
            moved = scored.digits.classes.items()
            rows = [(name, str(one.n), number(one.share), number(one.random)) for name, one in moved]
            yield table(("class", "exchanges", "moved", "random"), rows)
        if role.name in found.masked:
            yield f"Masking: {masking_words(found.masked[role.name])}"
        yield f"![{role.name}](heatmap-{role.name}.png)"
    if found.left_out:
        yield "## Left out"
        yield "\n".join(f"- {name} {reason}." for name, reason in found.left_out.items())
