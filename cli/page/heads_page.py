"""The page of `circuit heads`: its report, with a heatmap of every role, read off the files of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circuits.graph import Graph
from circuits.records import read_json
from cli.heads_output import RECORD
from cli.page.heatmap_plot import heatmap_plot
from cli.page.page import Page
from cli.page.picture import Chosen, Node, Picture
from cli.page.plot import Plot, shortened
from cli.wording import number, p_value

Entry = Mapping[str, Any]
LEVEL = 0.05
_SHOWN = 3


def folder_page(folder: Path) -> Page:
    held = read_json(folder / RECORD)
    words = (folder / "report.md").read_text(encoding="utf-8")
    plots = {f"heatmap-{name}.png": [_heatmap(held, name, role)] for name, role in held["roles"].items()}
    return Page(words, folder, verdict=list(verdict(held)), plots=plots)


def _heatmap(held: Entry, name: str, role: Entry) -> Plot:
    best = sorted(role["heads"], key=lambda head: -role["heads"][head]["score"])
    nodes = [
        Node(head, of["score"], of["low"], of["high"], best.index(head) + 1, of["p_value"] <= LEVEL)
        for head, of in role["heads"].items()
    ]
    title = f"{name} heads of {held['model']['name']}, {role['samples']} {role['unit']}s"
    unit = f"score of the role, chance {number(role['chance'], 4)}"
    outlined = f"Outlined: above chance (p ≤ {LEVEL})."
    known = Chosen(sum(node.inside for node in nodes), len(nodes), "heads", None, None)
    picture = Picture(_graph(role["heads"]), nodes, (), False, (), known, unit, False, "")
    return heatmap_plot(f"role-{name}", title, picture, outlined)


def _graph(heads: Mapping[str, Any]) -> Graph:
    """The shape that the names of all heads tell."""
    places = [tuple(map(int, head[1:].split(".h"))) for head in heads]
    n_layers, n_heads = (max(place[i] for place in places) + 1 for i in (0, 1))
    return Graph(n_layers, n_heads, n_heads)


def verdict(held: Entry) -> Iterator[str]:
    """What was measured, who stands out, and against what chance."""
    roles, prompts = held["roles"], held["prompts"]
    on = f" on {prompts['n']} prompts of {shortened(prompts['task'])}" if prompts else ""
    yield f"Every head of {shortened(held['model']['name'])} is scored for {len(roles)} roles{on}."
    if not roles:
        return
    found = [(of["score"], name, head) for name, role in roles.items() for head, of in role["heads"].items()]
    sure = {name for _, name, head in found if roles[name]["heads"][head]["p_value"] <= LEVEL}
    best = {name: head for _, name, head in sorted(found)}  # the last, and so the largest, of each role
    first = sorted(best, key=lambda name: -roles[name]["heads"][best[name]]["score"])[:_SHOWN]
    yield f"The strongest are {'; '.join(_scored(name, roles[name], best[name]) for name in first)}."
    yield (
        f"{len(sure)} of {len(roles)} roles have a head that scores more than one without the role would "
        f"(Holm-corrected p ≤ {LEVEL}), which does not say that the head is for it."
    )


def _scored(name: str, role: Entry, head: str) -> str:
    """previous-token a0.h0 with 0.91 [0.90, 0.92] (chance 0.05)."""
    of = role["heads"][head]
    score = f"{number(of['score'])} [{number(of['low'])}, {number(of['high'])}]"
    return f"{name} {head} with {score} (chance {number(role['chance'])}, p {p_value(of['p_value'])})"
