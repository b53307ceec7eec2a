"""The page of a run: its report, with plots of what its folder holds.

The one idea: everything is read back from the folder, so a run that was imported, or made before there were pages,
has one as well; what a folder lacks is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.graph import Graph
from circuits.runs import RunFolder, read_run
from cli.page.attention_plot import attention_plot
from cli.page.circuit_plot import circuit_plot
from cli.page.codes_plot import codes_plot
from cli.page.heatmap_plot import heatmap_plot, position_plot
from cli.page.page import Page
from cli.page.picture import Node, Picture
from cli.page.plot import Plot
from cli.page.prompt_tables import prompts_part
from cli.page.run_picture import band, details_of, interval, picture, rows, scores_of, size_of, table_rows
from cli.page.verdicts_plot import Judged, verdicts_plot
from cli.page.waterfall_plot import steps, waterfall_plot
from cli.wording import number, p_value

Entry = Mapping[str, Any]
JUDGED = "Judged on prompts that nothing was found on"
"""The heading of the report that the verdicts stand under."""
MANY = 60
"""Components above which a picture by position shows those of the circuit alone."""


def folder_page(folder: Path) -> Page:
    return run_page(read_run(folder), (folder / "report.md").read_text(encoding="utf-8"))


def run_page(run: RunFolder, words: str) -> Page:
    """words: the report as Markdown."""
    plots: dict[str, list[Plot]] = {"circuit.svg": []}  # the circuit stands at the top
    for i, entry in enumerate(run.circuit["circuits"]):
        method, shown = entry["method"], picture(run, entry)
        title = f"{about(run)}, {method}"
        own = circuit_plot(f"circuit-{method}", f"{title}: the circuit{judged_on(run)}", shown)
        plots.setdefault(method if i else "", []).append(own)
        if _scored(shown):
            heat = heatmap_plot(f"heatmap-{method}", f"{title}: scores{found_on(run)}", *_scores(shown))
            file = f"heatmap-{method}.png"
            plots.setdefault(file if file in words else "", []).append(heat)
        for place, plot in _of_method(run, method, title, shown):
            plots.setdefault(place, []).append(plot)
    if judged := verdicts(run):
        plots[JUDGED] = [
            verdicts_plot("verdicts", f"{about(run)}: what circuits do alone{judged_on(run)}", judged)
        ]
    if run.attention is not None and run.attention["heads"]:
        plots[""].append(attention_plot("attention", about(run), run.attention))
    ends = [("Prompts", prompts_part(run))] if run.prompts else []
    return Page(words, run.path, verdict=list(verdict(run)), plots=plots, ends=ends)


def verdicts(run: RunFolder) -> list[Judged]:
    """Every circuit under every ablation that it was judged under."""
    return [
        Judged(
            f"{entry['method']}, {one['ablation']}",
            *interval(one["faithfulness"]),
            one.get("random") and band(one),
        )
        for entry in run.circuit["circuits"]
        for one in entry["evaluation"]
    ]


def _scored(shown: Picture) -> bool:
    return any(node.score is not None for node in shown.nodes)


def _scores(shown: Picture) -> tuple[Graph, Sequence[Node], str, bool]:
    return shown.graph, shown.nodes, shown.unit, shown.signed


def _of_method(run: RunFolder, method: str, title: str, shown: Picture) -> Iterator[tuple[str, Plot]]:
    """What a method shows besides its scores and its circuit, and where."""
    details = details_of(run, method)
    if "parts" in details and (scores := scores_of(run, method)):
        bars = steps(scores, details["parts"], details["logit_difference"])
        yield (
            method,
            waterfall_plot(f"waterfall-{method}", f"{title}: the logit difference{found_on(run)}", bars),
        )
    if method == "sae" and run.codes is not None:
        ranked = sorted(scores_of(run, method).items(), key=lambda item: -item[1])
        heads = [head for head, _ in ranked]
        yield method, codes_plot("codes", f"{title}{found_on(run)}", table_rows(run.codes), heads)
    if by_position := _by_position(run, method):
        kept = {node.name for node in shown.nodes if node.inside}
        if len(by_position) > MANY:
            by_position = {name: values for name, values in by_position.items() if name in kept}
        where = f"positions-{method}.png"
        yield (
            where,
            position_plot(
                f"positions-{method}",
                f"{title}: scores by position{found_on(run)}",
                by_position,
                kept,
                shown.unit,
                shown.signed,
            ),
        )


def _by_position(run: RunFolder, method: str) -> dict[str, dict[str, float]]:
    """Component -> position -> score, where positions were scored."""
    found: dict[str, dict[str, float]] = {}
    for row in rows(run.nodes, method):
        if row.get("position", "all") != "all" and row["score"] is not None:
            found.setdefault(row["component"], {})[str(row["position"])] = row["score"]
    return found


def found_on(run: RunFolder) -> str:
    n = len(run.run.get("prompts", {}).get("discovery", ()))
    return f", found on {n} prompts" if n else ""


def judged_on(run: RunFolder) -> str:
    n = len(run.run.get("prompts", {}).get("judged", ()))
    return f", judged on {n} prompts" if n else ""


def about(run: RunFolder) -> str:
    """ioi in plain-4l."""
    return f"{run.run.get('config', {}).get('task') or 'unknown task'} in {run.circuit['model']['name']}"


def verdict(run: RunFolder) -> Iterator[str]:
    """What was found, how faithful it is, and against what chance: three sentences on the run's own circuit."""
    entry = run.circuit["circuits"][0]
    size, of, what = size_of(run, entry)
    yield f"{entry['method']} keeps {size:,} of {of:,} {what} as the circuit for {about(run)}."
    if not entry["evaluation"]:
        yield "How faithful it is was not measured."
        return
    yield from _worth(entry["evaluation"][0])


def _worth(judged: Entry) -> Iterator[str]:
    faith, band = judged["faithfulness"], judged.get("random")
    value = " ".join(
        [number(faith["value"]), *(["[{}, {}]".format(*_ends(faith))] if "low" in faith else [])]
    )
    prompts = f"{judged['n_prompts']} prompts" if "n_prompts" in judged else "prompts"
    yield (
        f"On {prompts} that it was not found on, its faithfulness is {value} under {judged['ablation']} ablation: "
        "1 is the whole model, 0 everything replaced."
    )
    if band:
        clear = "All" if band["p_value"] <= 1 / (band["n"] + 1) else "Not all"
        below = "do worse" if clear == "All" else "do worse, so it may be chance"
        low, high = _ends(band)
        yield (
            f"{clear} of {band['n']} random circuits of its size {below}: 95% of them reach {low} to {high} "
            f"(p {p_value(band['p_value'])})."
        )


def _ends(found: Entry) -> tuple[str, str]:
    return number(found["low"]), number(found["high"])
