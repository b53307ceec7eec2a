"""The page of a comparison: its report, with graphs and matrices that move, read off the files of its folder.

The one idea: the folder says all that is drawn, so the page can be made again where the runs are gone. A comparison
that was made before records held shapes keeps its pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.graph import Graph
from circuits.records import read_json, read_table
from cli.comparison_output import MEMBERS, RECORD
from cli.page.alignment_plot import Column, alignment_plot
from cli.page.comparison_matrices import (
    LEVEL,
    above_chance,
    finest,
    of_granularity,
    overlap_matrix,
    transfer_matrix,
)
from cli.page.matrix_plot import matrix_plot
from cli.page.overlay_plot import BOTH, FIRST, SECOND, Member, Overlay, overlay_plot
from cli.page.page import Page, heading
from cli.page.plot import Plot, shortened
from cli.wording import number, p_value

Entry = Mapping[str, Any]
_LONGEST = 60


def folder_page(folder: Path) -> Page:
    held = read_json(folder / RECORD)
    words = (folder / "report.md").read_text(encoding="utf-8")
    return Page(words, folder, verdict=list(verdict(held)), plots=_plots(folder, held))


def _plots(folder: Path, held: Entry) -> dict[str, Sequence[Plot]]:
    """Every plot, by the picture or the heading where it stands."""
    plots: dict[str, Sequence[Plot]] = dict(matrices(held))
    runs = held["runs"]
    if not all("shape" in run for run in runs):
        return plots
    if held["alignment"]["by"] == "behaviour":
        plots["alignment.png"] = [_aligned(held)]
    elif len(runs) == 2 and (folder / MEMBERS).is_file():
        plots["overlay.png"] = [_two(folder, held)]
    for i, match in enumerate(held["references"]):
        plot = _reference(f"reference-{i}", held, match)
        if len(runs) == 1 and not i:
            plots["overlay.png"] = [plot]
        else:
            plots[heading(f"{match['run']} against {match['reference']}, {match['of']}")] = [plot]
    return plots


def matrices(held: Entry, name: str = "") -> Iterator[tuple[str, Sequence[Plot]]]:
    """Those that the report has as pictures, by their files. name: what tells the plots of one page apart."""
    n = len(held["runs"])
    if held.get("transfer"):
        title = f"Circuits on each other's tasks: {about(held)}"
        yield "transfer.png", [matrix_plot(f"{name}transfer", title, transfer_matrix(held))]
    if n > 2:
        for granularity, file in (("node", "matrix.png"), ("edge", "matrix-edges.png")):
            if of_granularity(held, granularity):
                title = f"What {n} circuits share, {granularity}s: {about(held)}"
                plot = matrix_plot(f"{name}overlap-{granularity}", title, overlap_matrix(held, granularity))
                yield file, [plot]


def about(held: Entry) -> str:
    """ioi and colored-objects in plain-4l, circuits of sae."""
    tasks, models, methods = (
        few([run[part] for run in held["runs"]]) for part in ("task", "model", "method")
    )
    return f"{tasks} in {models}, circuits of {methods}"


def few(values: Sequence[str], most: int = 3) -> str:
    """a and b; a, b and 4 more."""
    known = [shortened(str(value)) for value in dict.fromkeys(values)]
    if len(known) > most:
        return f"{', '.join(known[: most - 1])} and {len(known) - most + 1} more"
    return " and ".join(known)


def _graph(run: Entry) -> Graph:
    return Graph(**run["shape"])


def _names(held: Entry) -> tuple[str, str]:
    first, second = held["runs"]
    return first["name"], second["name"]


def _aligned(held: Entry) -> Plot:
    alone, (pairs,) = held["alignment"]["kept_without_partner"], held["comparisons"]
    kept: tuple[set[str], set[str]] = (set(), set())
    for part, sides in (("shared", (0, 1)), ("only_first", (0,)), ("only_second", (1,))):
        for pair in pairs[part]:
            for side in sides:
                kept[side].add(pair.split("~")[side])
    columns = [
        Column(run["name"], _graph(run), frozenset({*kept[i], *alone[run["name"]]}))
        for i, run in enumerate(held["runs"])
    ]
    title = f"Heads matched by what they do: {about(held)}, {held['alignment']['n_prompts']} prompts"
    return alignment_plot("alignment", title, (columns[0], columns[1]), held["alignment"]["pairs"])


def _two(folder: Path, held: Entry) -> Plot:
    members: dict[str, list[Member]] = {"node": [], "edge": []}
    table = read_table(folder / MEMBERS)
    table = table.astype(object).where(table.notna(), None)
    for kind, name, first, second, *scores in table.itertuples(index=False):
        side = BOTH if first and second else FIRST if first else SECOND
        members[kind].append(Member(name, side, (scores[0], scores[1])))
    nodes, edges = members["node"], members["edge"]
    overlay = Overlay(_graph(held["runs"][0]), _names(held), nodes, edges)
    return overlay_plot("overlay", f"Two circuits over one another: {about(held)}", overlay)


def _reference(name: str, held: Entry, match: Entry) -> Plot:
    """What the run keeps of the kind that the reference lists, and the reference."""
    groups = (
        (BOTH, match["found"]),
        (FIRST, match["extra"]),
        (SECOND, (*match["missed"], *match["unscored"])),
    )
    listed = [Member(member, side) for side, some in groups for member in some]
    run = next(run for run in held["runs"] if run["name"] == match["run"])
    nodes, edges = (listed, []) if match["of"] != "edges" else (_touched(groups), listed)
    who = f"{shortened(match['run'])} over {shortened(match['reference'])}"
    title = f"{who}: {match['of']}, {run['task']} in {run['model']}"
    return overlay_plot(name, title, Overlay(_graph(run), (match["run"], match["reference"]), nodes, edges))


def _touched(groups: Sequence[tuple[int, Sequence[str]]]) -> list[Member]:
    """The nodes of edges: of both where both have an edge of theirs."""
    from circuits.circuit import ends

    by: dict[str, set[int]] = {}
    for side, edges in groups:
        for edge in edges:
            for node in ends(edge):
                if node[0] in "am":
                    by.setdefault(node, set()).add(side)
    return [Member(node, sides.pop() if len(sides) == 1 else BOTH) for node, sides in by.items()]


# The verdict


def verdict(held: Entry) -> Iterator[str]:
    """What was compared, what came out, and against what chance."""
    pairs, runs = finest(held), held["runs"]
    if len(runs) == 1:
        yield from _found(held["references"][0])
    else:
        asked, *found = _pair(held, pairs[0]) if len(runs) == 2 else _many(held, pairs)
        yield asked
        yield from [" ".join(found), _travelled(held["transfer"])] if held.get("transfer") else found


def _run(run: Entry) -> str:
    return (
        f"{shortened(run['name'], _LONGEST)} ({run['task']} in {run['model']} by {run['method']}: "
        f"{run['kept']:,} {run['granularity']}s)"
    )


def _found(match: Entry) -> Iterator[str]:
    run, reference = (shortened(match[side], _LONGEST) for side in ("run", "reference"))
    members = len(match["found"]) + len(match["missed"])
    yield f"The circuit of {run} is held against {reference}, which others report."
    yield (
        f"It finds {len(match['found'])} of its {members} {match['of']}: precision {number(match['precision'])}, "
        f"recall {number(match['recall'])}, F1 {number(match['f1'])}."
    )
    within = match["within"]
    yield (
        f"A random circuit with as many in each layer would find {number(within['expected_shared'], 1)} of them "
        f"(p {p_value(within['p_value'])}): {_more(within['p_value'])}."
    )


def _more(p: float) -> str:
    return "this is more than chance gives" if p <= LEVEL else "this is no more than chance gives"


def _pair(held: Entry, pair: Entry) -> Iterator[str]:
    overlap, within, kind = pair["overlap"], pair["within"], f"{pair['granularity']}s"
    aligned = held["alignment"]["by"] == "behaviour"
    how = f", {kind} matched by what they do" if aligned else ""
    yield f"{_run(held['runs'][0])} is compared with {_run(held['runs'][1])}{how}."
    jaccard = "undefined" if overlap["jaccard"] is None else number(overlap["jaccard"])
    redrawn = pair["largest"]
    reach = f"; redrawn scores give {number(redrawn['low'])} to {number(redrawn['high'])}" if redrawn else ""
    shared = f"{overlap['shared']:,} of the {pair['union']:,} {kind} that either keeps"
    yield f"They share {shared}: Jaccard {jaccard}{reach}."
    chance = "no figure" if within["jaccard"] is None else number(within["jaccard"])
    p = held["alignment"].get("p_value", 0.0)
    matching = f", and the matching of heads is itself no better (p {p_value(p)})" if p > LEVEL else ""
    yield (
        f"Random circuits with as many in each layer would give {chance} (p {p_value(within['p_value'])}): "
        f"{_more(within['p_value'])}{matching}."
    )


def _many(held: Entry, pairs: Sequence[Entry]) -> Iterator[str]:
    kind = f"{pairs[0]['granularity']}s"
    yield f"{len(held['runs'])} circuits are compared two at a time: {about(held)}."
    known = sorted(
        (pair["overlap"]["jaccard"], i)
        for i, pair in enumerate(pairs)
        if pair["overlap"]["jaccard"] is not None
    )
    if known:
        (least, _), (most, i) = known[0], known[-1]
        who = " and ".join(shortened(pairs[i][side], _LONGEST) for side in ("first", "second"))
        yield f"They share {kind} with a Jaccard of {number(least)} to {number(most)}; most is shared by {who}."
    sure = sum(above_chance(pairs))
    yield (
        f"{sure} of {len(pairs)} pairs share more than random circuits with as many in each layer would "
        f"(Holm-corrected p ≤ {LEVEL})."
    )


def _travelled(journeys: Sequence[Entry]) -> str:
    """At home and away."""
    home, away = ([j for j in journeys if j["at_home"] == at] for at in (True, False))
    words = []
    for some, where in ((home, "on their own tasks"), (away, "on the others'")):
        if some:
            values = [j["faithfulness"] for j in some]
            beyond = sum(j["faithfulness"] > j["random_high"] for j in some)
            words.append(
                f"{where} circuits reach a faithfulness of {number(min(values))} to {number(max(values))}, {beyond} "
                f"of {len(some)} times above the 95% band of random circuits"
            )
    joined = "; ".join(words)
    return f"{joined[:1].upper()}{joined[1:]}."
