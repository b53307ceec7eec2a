"""The page of a run: its report, with plots of what its folder holds.

The one idea: everything is read back from the folder, so a run that was imported, or made before there were pages,
has one as well; what a folder lacks is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from circuits.runs import RunFolder, read_run
from cli.page.attention_plot import attention_plot
from cli.page.circuit_plot import circuit_plot
from cli.page.codes_plot import codes_plot
from cli.page.heatmap_plot import heatmap_plot, position_plot
from cli.page.page import Page
from cli.page.plot import Plot
from cli.page.prompt_tables import prompts_part
from cli.page.run_picture import by_position, code_rows, picture, shown_methods, size_of
from cli.page.verdicts_plot import Judged, verdicts_plot
from cli.page.waterfall_plot import waterfall_plot
from cli.shown import Shown, as_value
from cli.wording import number, p_value

JUDGED = "Judged on prompts that nothing was found on"
"""The heading of the report that the verdicts stand under."""
MANY = 60
"""Components above which a picture by position shows those of the circuit alone."""


def folder_page(folder: Path) -> Page:
    """Raises RunFolderError where the run is damaged."""
    return run_page(read_run(folder), (folder / "report.md").read_text(encoding="utf-8"))


def run_page(run: RunFolder, words: str) -> Page:
    """words: the report as Markdown."""
    methods = shown_methods(run)
    plots: dict[str, list[Plot]] = {"circuit.svg": []}  # the circuit stands at the top
    for place, plot in _plots(run, methods):
        plots.setdefault(place if place in words else "", []).append(plot)
    ends = [("Prompts", prompts_part(run))] if run.prompts else []
    return Page(words, run.path, verdict=list(verdict(methods[0])), plots=plots, ends=ends)


def _plots(run: RunFolder, methods: list[Shown]) -> Iterator[tuple[str, Plot]]:
    """Every plot, and where it stands: instead of a picture, or below a heading."""
    for i, shown in enumerate(methods):
        yield from _of_method(shown, shown.method if i else "")
    if run.attention is not None and run.attention["heads"]:
        yield "", attention_plot("attention", f"{methods[0].task} in {methods[0].model}", run.attention)
    if judged := verdicts(methods):
        yield JUDGED, verdicts_plot("verdicts", f"{about(methods[0])}: what circuits do alone", judged)


def _of_method(shown: Shown, place: str) -> Iterator[tuple[str, Plot]]:
    method, drawn = shown.method, picture(shown)
    title = about(shown, method)
    yield place, circuit_plot(f"circuit-{method}", f"{title}: the circuit", drawn)
    if any(node.score is not None for node in drawn.nodes):
        heat = heatmap_plot(f"heatmap-{method}", f"{title}: scores", drawn)
        yield f"heatmap-{method}.png", heat
    if places := by_position(shown):
        kept = set(shown.circuit.nodes)
        rows = {c: places[c] for c in places if len(places) <= MANY or c in kept}
        where = position_plot(f"positions-{method}", f"{title}: scores by position", rows, drawn)
        yield f"positions-{method}.png", where
    if shown.scores is not None and "parts" in shown.details:
        scores = dict(zip(shown.scores.components, shown.scores.values.tolist(), strict=True))
        yield (
            method,
            waterfall_plot(
                f"waterfall-{method}", f"{title}: logit difference", scores, shown.details["parts"]
            ),
        )
    if method == "sae" and (rows_ := code_rows(shown.run)):
        heads = shown.scores.ranking() if shown.scores else ()
        yield method, codes_plot("codes", f"{title}: codes of a head, first trial", rows_, heads)


def about(shown: Shown, method: str = "") -> str:
    """ioi in plain-4l, activation-patching (found on 250 prompts, judged on 250 others)."""
    halves = shown.run.run.get("prompts") or {}
    found, judged = (len(halves.get(half) or ()) for half in ("discovery", "judged"))
    counted = f" (found on {found} prompts, judged on {judged} others)" if found and judged else ""
    return f"{shown.task} in {shown.model}{', ' if method else ''}{method}{counted}"


def verdicts(methods: list[Shown]) -> list[Judged]:
    """Every circuit under every ablation that it was judged under."""
    return [
        Judged(f"{shown.method}, {one.ablation}", one.faithfulness, one.random)
        for shown in methods
        for one in map(as_value, shown.found.get("verdicts") or ())
    ]


def verdict(shown: Shown) -> Iterator[str]:
    """What was found, how faithful it is, and against what chance: three sentences on the run's own circuit."""
    size, of, what = size_of(shown)
    yield f"{shown.method} keeps {size:,} of {of:,} {what} as the circuit for {shown.task} in {shown.model}."
    if shown.verdict is None:
        yield "How faithful it is was not measured."
        return
    faith, band = shown.verdict.faithfulness, shown.verdict.random
    yield (
        f"On {shown.verdict.n_prompts} prompts that it was not found on, its faithfulness is {number(faith.value)} "
        f"[{number(faith.low)}, {number(faith.high)}] under {shown.verdict.ablation} ablation: 1 is the whole model, "
        "0 everything replaced."
    )
    clear = band.p_value <= 1 / (band.n + 1)
    yield (
        f"{'All' if clear else 'Not all'} of {band.n} random circuits of its size do worse"
        f"{'' if clear else ', so it may be chance'}: 95% of them reach {number(band.low)} to {number(band.high)} "
        f"(p {p_value(band.p_value)})."
    )
