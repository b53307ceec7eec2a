"""The report of a study: an index of its runs, and the matrices over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from circuits.records import read_json
from cli.comparison_output import RECORD as COMPARISON
from cli.comparison_words import ratio
from cli.intervention_output import RECORD as REPAIR
from cli.report.markdown import table
from cli.report.overview import Panel
from cli.wording import number, p_value

Entry = Mapping[str, Any]


def study_pictures(output: Path, record: Entry) -> Iterator[tuple[str, bytes]]:
    """overview.png: a panel for each comparison of more than two runs."""
    from cli.report.figure import png
    from cli.report.overview import overview

    panels = [panel(output, step) for step in _whole(record, "comparison") if len(step["cells"]) > 2]
    # Panels stand side by side under one list of names.
    alike = [p for p in panels if p.names == panels[0].names]
    if alike:
        yield "overview.png", png(overview(alike))


def panel(output: Path, step: Entry) -> Panel:
    """The figures of a comparison as matrices, in the order of its runs."""
    held = read_json(output / step["folder"] / COMPARISON)
    names = [run["name"] for run in held["runs"]]
    place, n = {name: i for i, name in enumerate(names)}, len(names)
    overlap, chance = np.eye(n), np.full((n, n), np.nan)
    for entry in _finest(held):
        i, j = place[entry["first"]], place[entry["second"]]
        jaccard, expected = entry["overlap"]["jaccard"], entry["within"]["jaccard"]
        overlap[i, j] = overlap[j, i] = np.nan if jaccard is None else jaccard
        chance[i, j] = chance[j, i] = np.nan if expected is None else expected
    fixed = [
        str(step["about"][axis]) for axis in ("task", "model", "method", "seed") if axis in step["about"]
    ]
    title = "\n".join(Path(value).name for value in fixed if not value.isdigit())
    journeys = held.get("transfer") or []
    if not journeys:
        return Panel(title, tuple(names), overlap, chance)
    homes = {j["circuit"]: j["prompts"] for j in journeys if j["at_home"]}
    faithfulness, random = np.full((n, n), np.nan), np.full((n, n), np.nan)
    for j in journeys:
        for name, home in homes.items():
            if home == j["prompts"]:
                at = place[j["circuit"]], place[name]
                faithfulness[at], random[at] = j["faithfulness"], j["random_median"]
    return Panel(title, tuple(names), overlap, chance, faithfulness, random)


def _finest(held: Entry) -> list[Entry]:
    """The pairs of a comparison: of edges where there are any, else of nodes."""
    kinds = [entry["granularity"] for entry in held["comparisons"]]
    wanted = "edge" if "edge" in kinds else kinds[0] if kinds else ""
    return [entry for entry in held["comparisons"] if entry["granularity"] == wanted]


def _whole(record: Entry, kind: str) -> list[Entry]:
    return [step for step in record["steps"] if step["kind"] == kind and step["whole"]]


def study_report(output: Path, record: Entry, pictures: Sequence[str]) -> str:
    """The whole report as Markdown; what failed comes first."""
    compared = _whole(record, "comparison")
    parts = [
        f"# {record['title'] or output.name}",
        *_failures(record),
        *(f"![Overlap of circuits, and what each does on the others' tasks]({name})" for name in pictures),
        *_gates(record),
        "## Circuits",
        _cells(record),
        *_evaluations(output, _whole(record, "evaluation")),
        *_pairs(output, [step for step in compared if _is_pair(step)]),
        *(part for step in compared if not _is_pair(step) for part in _comparison(output, step)),
        *_repairs(output, _whole(record, "repair")),
    ]
    return "\n\n".join(parts) + "\n"


def _failures(record: Entry) -> Iterator[str]:
    failed = [(e["name"], e["problem"]) for e in (*record["cells"], *record["steps"]) if e["problem"]]
    failed += [(e["cell"], e["problem"]) for e in record["gates"] if e["problem"]]
    if failed:
        yield "## What failed"
        yield "\n".join(f"- **{name}**: {problem.strip().splitlines()[-1]}" for name, problem in failed)


def _cells(record: Entry) -> str:
    header = ("task", "model", "method", "seed", "keeps", "faithfulness", "random", "p")
    return table(header, [_cell(entry) for entry in record["cells"]])


def _cell(entry: Entry) -> tuple[str, ...]:
    who = (f"[{entry['task']}]({entry['folder']}/report.md)", Path(entry["model"]).name, entry["method"])
    if not entry["whole"]:
        return (*who, str(entry["seed"]), "failed", "", "", "")
    found = entry["faithfulness"]
    return (
        *who,
        str(entry["seed"]),
        f"{entry['kept']:,} {entry['granularity']}s",
        _estimate(found),
        number(entry["random_median"]),
        p_value(entry["p_value"]),
    )


def _is_pair(step: Entry) -> bool:
    """Whether one row says it all."""
    return len(step["cells"]) == 2 and not step["about"]["transfer"]


def _pairs(output: Path, steps: Sequence[Entry]) -> Iterator[str]:
    """Comparisons of two circuits in one table, for a sweep has many."""
    if not steps:
        return
    yield "## Two at a time"
    rows = [
        (f"[{' and '.join(step['about']['between'])}]({step['folder']}/report.md)", _fixed(step), *row[1:])
        for step in steps
        for row in _rows(read_json(output / step["folder"] / COMPARISON))
    ]
    yield table(("circuits", "of", "shared", "Jaccard", "chance", "p"), rows)


def _fixed(step: Entry) -> str:
    """What the circuits of a comparison have in common."""
    about = step["about"]
    words = [Path(str(about[axis])).name for axis in ("task", "model", "method") if axis in about]
    return ", ".join([*words, *([f"seed {about['seed']}"] if "seed" in about else [])])


def _comparison(output: Path, step: Entry) -> Iterator[str]:
    held = read_json(output / step["folder"] / COMPARISON)
    yield f"## {' and '.join(step['about']['between'])}: {_fixed(step)}"
    yield table(("circuits", "shared", "Jaccard", "chance", "p"), _rows(held))
    if held["alignment"]["by"] == "behaviour":
        yield _alignment(held["alignment"])
    if held.get("transfer"):
        yield _transfer(held["transfer"])
    yield f"[Everything that was compared]({step['folder']}/report.md)"


def _alignment(found: Entry) -> str:
    """How far the matching of heads that the row above rests on is to be believed."""
    sure = "above chance" if found["p_value"] <= 0.05 else "no better than chance"
    return (
        f"Heads matched by what they do: mean similarity {number(found['similarity'], 3)}, chance "
        f"{number(found['chance'], 3)}, p {p_value(found['p_value'])}: {sure}; {found['sure']} of "
        f"{len(found['pairs'])} pairs return in nearly all redraws of the prompts."
    )


def _rows(held: Entry) -> list[tuple[str, ...]]:
    return [
        (
            f"{entry['first']}, {entry['second']}",
            f"{entry['overlap']['shared']}/{entry['union']} {entry['granularity']}s",
            ratio(entry["overlap"]["jaccard"]),
            ratio(entry["within"]["jaccard"]),
            p_value(entry["within"]["p_value"]),
        )
        for entry in held["comparisons"]
    ]


def _transfer(journeys: Sequence[Entry]) -> str:
    """A row a circuit, a column a place; in brackets the median of random circuits of that size."""
    columns = list(dict.fromkeys(j["prompts"] for j in journeys))
    rows: dict[str, dict[str, str]] = {}
    for j in journeys:
        words = f"{number(j['faithfulness'])} ({number(j['random_median'])})"
        rows.setdefault(j["circuit"], {})[j["prompts"]] = f"**{words}**" if j["at_home"] else words
    cells = [(name, *(found.get(column, "") for column in columns)) for name, found in rows.items()]
    return table(("faithfulness of, on", *columns), cells)


def _gates(record: Entry) -> Iterator[str]:
    """Those that fell first."""
    if not record["gates"]:
        return
    yield "## Gates"
    rows = [
        (
            "passed" if gate["passed"] else "**failed**",
            gate["cell"],
            gate["name"],
            f"{gate['value']:.3g}" if "value" in gate else "",
            f"{'at least' if gate['at_least'] else 'at most'} {gate['limit']:g}" if "limit" in gate else "",
            gate["baseline"] or "",
        )
        for gate in sorted(record["gates"], key=lambda gate: bool(gate["passed"]))
    ]
    yield table(("", "circuit", "gate", "is", "bound", "held to"), rows)


def _evaluations(output: Path, found: Sequence[Entry]) -> Iterator[str]:
    if not found:
        return
    yield "## Evaluations"
    header = ("circuit", "replaced by", "faithfulness", "CPR", "CMD", "completeness gap", "members needed")
    yield table(header, [row for step in found for row in _evaluation(output, step)])


def _evaluation(output: Path, step: Entry) -> Iterator[tuple[str, ...]]:
    """A row for each ablation; empty cells for what was skipped."""
    for entry in read_json(output / step["folder"] / "evaluation.json")["circuits"]:
        for of in entry["evaluations"]:
            curves, gaps, members = of["curves"], of["completeness"], of["minimality"]
            matter = [m for m in members["members"] if m["verdict"] == "needed"] if members else []
            yield (
                f"[{step['cells'][0]}]({step['folder']}/evaluation.md)",
                of["ablation"],
                _estimate(of["verdict"]["faithfulness"]),
                _estimate(curves["signed"]["cpr"]) if curves else "",
                _estimate(curves["absolute"]["cmd"]) if curves else "",
                _estimate(gaps["mean_gap"]) if gaps else "",
                f"{len(matter)} of {len(members['members'])}" if members else "",
            )


def _estimate(found: Entry) -> str:
    return f"{number(found['value'])} [{number(found['low'])}, {number(found['high'])}]"


def _repairs(output: Path, found: Sequence[Entry]) -> Iterator[str]:
    if not found:
        return
    yield "## Repairs"
    yield (
        "What heads do on one task, done on another that the model gets wrong: the share of correct answers before "
        "and after, with 95% bootstrap intervals; prompts put right, and new errors; and how often as many random "
        "heads of the same layers, or the same heads onto random positions, do as much (p)."
    )
    header = ("bad task, by good task", "model", "heads", "correct before", "after", "fixed", "new errors")
    records = [(step, read_json(output / step["folder"] / REPAIR)["results"][0]) for step in found]
    yield table((*header, "p, heads", "p, positions"), [_repair(step, held) for step, held in records])
    for step, _ in records:
        about = step["about"]
        words = f"Repair of {about['bad']} by {about['good']} in {Path(about['model']).name}"
        yield f"![{words}]({step['folder']}/effect.png)"


def _repair(step: Entry, held: Entry) -> tuple[str, ...]:
    about, effect = step["about"], held["effect"]
    chance = {control["kind"]: p_value(control["correct"]["p_value"]) for control in held["controls"]}
    return (
        f"[{about['bad']}, by {about['good']}]({step['folder']}/report.md)",
        Path(about["model"]).name,
        ", ".join(held["heads"]) or "none",
        _percent(effect["correct"]["before"]),
        _percent(effect["correct"]["after"]),
        f"{effect['fixed']} of {effect['n_prompts']}",
        str(effect["new_errors"]),
        chance.get("random heads", ""),
        chance.get("random positions", ""),
    )


def _percent(found: Entry) -> str:
    return f"{found['value']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"
