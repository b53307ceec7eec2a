"""The page of a run: its report, with plots of what its folder holds.

The one idea: everything is read back from the folder, so a run that was imported, or made before there were pages,
has one as well; what a folder lacks is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circuits.runs import RunFolder, read_run
from cli.page.circuit_plot import circuit_plot
from cli.page.page import Page
from cli.page.plot import Plot
from cli.page.run_picture import picture, size_of
from cli.wording import number, p_value

Entry = Mapping[str, Any]


def folder_page(folder: Path) -> Page:
    return run_page(read_run(folder), (folder / "report.md").read_text(encoding="utf-8"))


def run_page(run: RunFolder, words: str) -> Page:
    """words: the report as Markdown."""
    plots: dict[str, list[Plot]] = {}
    for i, entry in enumerate(run.circuit["circuits"]):
        plots.setdefault(entry["method"] if i else "circuit.svg", []).append(_circuit(run, entry))
    return Page(words, run.path, verdict=list(verdict(run)), plots=plots)


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


def _circuit(run: RunFolder, entry: Entry) -> Plot:
    method = entry["method"]
    n = len(run.run.get("prompts", {}).get("judged", ()))
    judged = f", judged on {n} prompts" if n else ""
    return circuit_plot(
        f"circuit-{method}", f"{about(run)}: circuit of {method}{judged}", picture(run, entry)
    )
