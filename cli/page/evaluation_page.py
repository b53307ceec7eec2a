"""The page of an evaluation: its report, with curves to look into, read off the files of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circuits.records import read_json
from cli.evaluation_output import FIGURES, RECORD
from cli.page.curves_plot import curves_plot
from cli.page.page import Page
from cli.page.plot import Plot, shortened
from cli.wording import number, p_value

Entry = Mapping[str, Any]


def folder_page(folder: Path) -> Page:
    held = read_json(folder / FIGURES)
    words = (folder / RECORD).read_text(encoding="utf-8")
    return Page(words, folder, verdict=list(verdict(held)), plots={"curve.png": list(_curves(held))})


def _curves(held: Entry) -> Iterator[Plot]:
    """One for each circuit and ablation."""
    for i, circuit in enumerate(held["circuits"]):
        what = "edges" if circuit["granularity"] == "edge" else "components"
        for found in circuit["evaluations"]:
            if found["curves"]:
                title = f"{_about(held)}: {circuit['method']} over sizes, {found['ablation']} ablation"
                yield curves_plot(f"curves-{i}-{found['ablation']}", title, found["curves"], what)


def _about(held: Entry) -> str:
    return f"{shortened(held['asked']['tasks'][0])} in {shortened(held['model']['name'])}"


def verdict(held: Entry) -> Iterator[str]:
    """What was judged, how faithful it is, and against what chance; of the first circuit and ablation."""
    circuit = held["circuits"][0]
    found = circuit["evaluations"][0]
    judged = found["verdict"]
    more = f" ({len(held['circuits'])} circuits in all)" if len(held["circuits"]) > 1 else ""
    yield (
        f"The circuit of {circuit['method']} for {_about(held)}, {len(circuit['kept']):,} of {circuit['of']:,} "
        f"{circuit['granularity']}s, is judged on {judged['n_prompts']} prompts{more}."
    )
    faithful = _estimate(judged["faithfulness"])
    yield f"Its faithfulness under {found['ablation']} ablation is {faithful}{_besides(found)}."
    band = judged["random"]
    clear = band["p_value"] <= 1 / (band["n"] + 1)
    yield (
        f"{'All' if clear else 'Not all'} of {band['n']} random circuits of its size do worse: 95% of them reach "
        f"{number(band['low'])} to {number(band['high'])} (p {p_value(band['p_value'])})."
    )


def _besides(found: Entry) -> str:
    """; over all sizes CPR 1.02 [..] and CMD 0.02 [..]; taking members away leaves a gap of 0.02 [..] on average."""
    words = ""
    if curves := found["curves"]:
        cpr, cmd = curves["signed"]["cpr"], curves["absolute"]["cmd"]
        words += f"; over all sizes CPR is {_estimate(cpr)} and CMD {_estimate(cmd)}"
    if gaps := found["completeness"]:
        words += f"; the mean gap of completeness is {_estimate(gaps['mean_gap'])}"
    return words


def _estimate(found: Entry) -> str:
    return "{} [{}, {}]".format(*(number(found[part]) for part in ("value", "low", "high")))
