"""The pages of comparisons, studies, evaluations and interventions: what they hold, and what they do in a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import made_run

from circuits.graph import Graph
from circuits.progress import silent
from circuits.records import read_json, write_json
from cli.comparing import Request, compared
from cli.page import comparison_page, evaluation_page, heads_page, intervention_page, study_page
from cli.page.alignment_plot import Column, alignment_plot
from cli.page.matrix_plot import Cell, Matrix, matrix_plot
from cli.page.page import Page, html
from cli.page.plot import Plot, shortened

GRAPH = Graph(3, 4, 4)
FIRST = ("input->a0.h1<v>", "a0.h1->m1", "a0.h1->a2.h0<q>", "m1->logits", "a2.h0->logits")
SECOND = ("input->a0.h1<v>", "a0.h1->m1", "m1->logits", "input->a1.h3<k>", "a1.h3->logits")
EVIL = ("a<b>x&\"y\"'z'", "$$x$$ \\(y\\) 😀 שלום", "n" * 120)


def comparison(folder: Path, runs: Sequence[Path], **asked: Any) -> Path:
    """The folder of a comparison, as the command writes it."""
    compared(Request(tuple(map(str, runs)), **asked), silent).write(folder, force=False)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs of edges with names that bite."""
    base = tmp_path_factory.mktemp("runs")
    chosen = (FIRST, SECOND, (*FIRST[1:], "input->m0", "m0->logits"))
    return [
        made_run(base / name, GRAPH, edges=edges, seed=i)
        for i, (name, edges) in enumerate(zip(EVIL, chosen, strict=True))
    ]


@pytest.fixture(scope="module")
def two(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return comparison(tmp_path_factory.mktemp("two") / "out", runs[:2])


@pytest.fixture(scope="module")
def many(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return comparison(tmp_path_factory.mktemp("many") / "out", runs)


class Reader(HTMLParser):
    """Elements, text outside of scripts, and where links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.text = ""
        self.links: list[str] = []
        self.ids: list[str] = []
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.inside = tag
        self.links += [value for name, value in attrs if name == "href" and value]
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text += data


def plots(page: Page) -> list[Plot]:
    return [plot for some in page.plots.values() for plot in some]


def source(plot: Plot, name: str) -> dict[str, list[Any]]:
    """The columns of a source of the plot."""
    (found,) = (model for model in plot.figures[0].references() if model.name == name)
    return {column: list(values) for column, values in found.data.items()}


def test_an_overlay_shows_every_member_by_whom_it_is_kept(two: Path) -> None:
    (plot,) = plots(comparison_page.folder_page(two))
    edges = source(plot, "edges")
    by_side: list[set[str]] = [set(), set(), set()]
    for edge, side in zip(edges["edge"], edges["side"], strict=True):
        by_side[side].add(edge)
    assert by_side == [set(FIRST) & set(SECOND), set(FIRST) - set(SECOND), set(SECOND) - set(FIRST)]
    nodes = source(plot, "nodes")
    sides = dict(zip(nodes["name"], nodes["side"], strict=True))
    assert [sides[name] for name in ("a0.h1", "a2.h0", "a1.h3", "a0.h0")] == [0, 1, 2, 3]
    held = read_json(two / "overlap.json")["comparisons"][1]
    assert f"{held['overlap']['shared']} by both" in plot.text
    scores = {row[0]: row for row in zip(edges["edge"], edges["first"], edges["second"], strict=True)}
    assert all(words.startswith("score ") for words in scores["a0.h1->m1"][1:])


def test_a_verdict_says_what_was_compared_what_came_out_and_what_chance_gives(two: Path, many: Path) -> None:
    asked, found, chance = comparison_page.verdict(read_json(two / "overlap.json"))
    assert "is compared with" in asked
    assert found.startswith("They share 3 of the 7 edges that either keeps: Jaccard 0.43")
    assert re.match(r"Random circuits with as many in each layer would give 0\.\d\d \(p ", chance)
    asked, found, chance = comparison_page.verdict(read_json(many / "overlap.json"))
    assert asked.startswith("3 circuits are compared two at a time")
    assert "of 3 pairs share more than random circuits" in chance


def test_names_appear_as_text_and_too_long_ones_are_cut(many: Path) -> None:
    page = (many / "report.html").read_text(encoding="utf-8")
    read = Reader(page)
    assert "b" not in read.elements - {"body"}
    assert EVIL[0] in read.text
    assert EVIL[1].replace("\\", "") in read.text, "Markdown takes backslashes for its own"
    assert EVIL[2] in read.text, "the table has it in full"
    assert shortened(EVIL[2], 26) in page
    assert len(shortened(EVIL[2], 26)) == 26
    assert "https://" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_the_folder_alone_makes_the_page_and_the_same_bytes(
    runs: list[Path], many: Path, two: Path, tmp_path: Path
) -> None:
    for folder in (two, many):
        moved = shutil.copytree(folder, tmp_path / folder.parent.name)
        (moved / "report.html").unlink()
        assert html(comparison_page.folder_page(moved)) == (folder / "report.html").read_text(
            encoding="utf-8"
        )
    again = comparison(tmp_path / "again", runs[:2])
    assert (again / "report.html").read_bytes() == (two / "report.html").read_bytes()


def test_a_comparison_of_before_keeps_its_picture(two: Path, tmp_path: Path) -> None:
    old = shutil.copytree(two, tmp_path / "old")
    record = read_json(old / "overlap.json")
    for run in record["runs"]:
        del run["shape"]
    write_json(old / "overlap.json", record)
    page = html(comparison_page.folder_page(old))
    assert "data-plot" not in page
    assert 'src="data:image/png;base64,' in page


def test_a_run_is_laid_over_what_others_report(runs: list[Path], tmp_path: Path) -> None:
    write_json(tmp_path / "paper.json", {"movers": [[0, 1], [2, 3]], "edges": [FIRST[1], SECOND[4]]})
    page = comparison_page.folder_page(
        comparison(tmp_path / "out", runs[:1], references=(str(tmp_path / "paper.json"),))
    )
    heads, edges = plots(page)
    sides = dict(zip(*(source(heads, "nodes")[part] for part in ("name", "side")), strict=True))
    assert [sides[name] for name in ("a0.h1", "a2.h0", "a2.h3")] == [0, 1, 2]
    assert set(source(edges, "edges")["side"]) == {0, 1, 2}
    made = html(page)
    assert len(re.findall("data-plot=", made)) == 2, "each has its place on the page"
    ids = Reader(made).ids
    assert sorted(set(ids)) == sorted(ids)
    assert "which others report" in next(iter(page.verdict))


def test_a_matrix_of_the_record(many: Path) -> None:
    page = comparison_page.folder_page(many)
    nodes, edges = page.plots["matrix.png"][0], page.plots["matrix-edges.png"][0]
    for plot, kind in ((nodes, "node"), (edges, "edge")):
        (cells,) = (m.data for m in plot.figures[0].references() if "beyond" in getattr(m, "data", ()))
        pairs = {
            (c["first"], c["second"]): c
            for c in read_json(many / "overlap.json")["comparisons"]
            if c["granularity"] == kind
        }
        for row, column, value, chance in zip(
            *(cells[c] for c in ("row", "column", "value", "chance")), strict=True
        ):
            if row == column:
                assert value == ""
                continue
            pair = pairs.get((row, column)) or pairs[(column, row)]
            assert value.rstrip("*") == f"{pair['overlap']['jaccard']:.2f}"
            assert chance == f"{pair['within']['jaccard']:.2f}"


def matrix(n: int) -> Matrix:
    rng = np.random.default_rng(0)
    names = [f"run-{i}" for i in range(n)]
    cells = [Cell(i, j, *rng.random(2).tolist(), told=EVIL[0]) for i in range(n) for j in range(n) if i != j]
    return Matrix("Jaccard", [EVIL[0], *names[1:]], names, cells)


@pytest.mark.parametrize("n", [2, 40])
def test_a_matrix_of_any_size_has_room_for_its_numbers(n: int, tmp_path: Path) -> None:
    plot = matrix_plot("m", "t", matrix(n))
    assert plot.least / n > 40
    assert len(html(Page("# m", tmp_path, plots={"": [plot]}))) < 1_500_000


def alignment(graphs: tuple[Graph, Graph]) -> Plot:
    pairs = [
        {
            "first": f"a{layer}.h0",
            "second": f"a{layer}.h1",
            "similarity": 0.5 + layer / 9,
            "stability": layer / 3,
        }
        for layer in range(3)
    ]
    kept = (frozenset(("a0.h0", "a1.h0")), frozenset(("a0.h1", "a2.h1")))
    columns = tuple(Column(EVIL[i], graphs[i], kept[i]) for i in range(2))
    return alignment_plot("alignment", "t", (columns[0], columns[1]), pairs)


def test_matched_heads_are_coloured_by_whose_circuit_they_are_in() -> None:
    plot = alignment((GRAPH, Graph(4, 4, 4)))
    assert source(plot, "pairs")["side"] == [0, 1, 2]
    ids = Reader(html(Page("# m\n\n## Alignment", Path(), plots={"": [plot]}))).ids
    assert sorted(set(ids)) == sorted(ids), "a heading and a plot of one name"
    heads = source(plot, "heads")
    assert sum(heads["fill"]) == 4
    assert len(heads["x"]) == 12 + 16
    assert [heads["pair"][heads["head"].index(head)] for head in ("a0.h0", "a2.h0", "a0.h3")] == [0, 2, -1]
    assert "3 pairs of heads, 1 of them in both circuits" in plot.text


def study(folder: Path, comparison: Path, n: int = 72) -> Path:
    """The records of a study of n cells, the first of which has a page, with one comparison."""
    shutil.copytree(comparison, folder / "comparisons" / "c")
    cells = [
        {
            "name": f"cell-{i}", "task": f"task-{i % 9}", "model": "m/plain-4l", "method": "eap", "seed": i // 9,
            "folder": f"cells/cell {i}", "whole": i > 0, "problem": "" if i else "<b>fell</b>", "granularity": "node",
            "kept": 3, "faithfulness": {"value": 0.9, "low": 0.8, "high": 1.0}, "random_median": 0.1, "p_value": 0.04,
        }
        for i in range(n)
    ]  # fmt: skip
    step = {"kind": "comparison", "whole": True, "folder": "comparisons/c", "cells": ["x"] * 3, "about": {}}
    write_json(folder / "study.json", {"cells": cells, "steps": [step]})
    (folder / "cells" / "cell 1").mkdir(parents=True)
    (folder / "cells" / "cell 1" / "report.html").write_text("a page")
    links = "\n\n".join(f"[{c['name']}](<{c['folder']}/report.md>)" for c in cells)
    (folder / "report.md").write_text(f"# {EVIL[0]}\n\n![all](overview.png)\n\n{links}\n", encoding="utf-8")
    return folder


def test_a_study_has_its_matrices_and_leads_to_the_pages_that_there_are(many: Path, tmp_path: Path) -> None:
    page = study_page.folder_page(study(tmp_path / "study", many))
    made = html(page)
    assert re.findall(r'data-plot="([^"]+)"', made) == [
        "comparison-0-overlap-edge",
        "comparison-0-overlap-node",
    ]
    links = Reader(made).links
    assert "cells/cell%201/report.html" in links
    assert "cells/cell%202/report.md" in links
    asked, found, chance = page.verdict
    assert asked.startswith("Circuits were sought 72 times: 9 tasks")
    assert "(1 failed); for 71 of 71 the 95% interval lies above" in found
    assert "of 3 compared pairs" in chance
    assert len(made) < 1_000_000


def estimate(value: float | None) -> dict[str, float | None]:
    return {"value": value, "low": value, "high": None}


def evaluation(folder: Path) -> Path:
    """One circuit, a curve with a point that is not known, and no stability."""
    shares = (0.001, 0.01, 0.1, 1.0)
    curve = {
        "points": [
            {"share": s, "n": i + 1, "actual": s, "faithfulness": estimate(i / 3 if i else None)}
            for i, s in enumerate(shares)
        ],
        "cpr": {"value": 0.9, "low": 0.8, "high": 1.0},
        "cmd": {"value": 0.1, "low": 0.0, "high": 0.2},
    }
    random = {
        "n": 8, "n_prompts": 6, "points": [{"mean": s, "low": 0.0, "high": 1.0} for s in shares],
        "cpr": {"mean": 0.3}, "cmd": {"mean": 0.7},
    }  # fmt: skip
    verdict = {
        "n_prompts": 12,
        "faithfulness": {"value": 0.9, "low": 0.8, "high": 1.0},
        "random": {"n": 25, "low": 0.0, "high": 0.1, "p_value": 1 / 26},
    }
    curves = {"signed": curve, "absolute": curve, "random": random, "n_prompts": 12}
    found = {"ablation": "mean", "verdict": verdict, "curves": curves, "completeness": None}
    circuit = {"method": "eap", "granularity": "edge", "kept": ["x"], "of": 9, "evaluations": [found]}
    write_json(
        folder / "evaluation.json",
        {"asked": {"tasks": [EVIL[0]]}, "model": {"name": "m"}, "circuits": [circuit]},
    )
    (folder / "evaluation.md").write_text("# Evaluation\n\n![c](curve.png)\n\n![s](stability.png)\n")
    return folder


def test_an_evaluation_has_its_curves_and_what_random_ones_do(tmp_path: Path) -> None:
    page = evaluation_page.folder_page(evaluation(tmp_path))
    (plot,) = plots(page)
    lines = [m.data for m in plot.figures[0].references() if "share" in getattr(m, "data", ())]
    assert sorted(len(line["share"]) for line in lines) == [3, 3, 4]
    asked, found, chance = page.verdict
    assert "1 of 9 edges, is judged on 12 prompts" in asked
    assert "0.90 [0.80, 1.00]; over all sizes CPR is 0.90" in found
    assert (
        chance == "All of 25 random circuits of its size do worse: 95% of them reach 0.00 to 0.10 (p 0.038)."
    )
    assert "stability" not in html(page), "what is absent is left out"


def intervention(folder: Path) -> Path:
    shift = {
        "before": {"value": 0.5, "low": 0.4, "high": 0.6},
        "after": {"value": 0.7, "low": 0.6, "high": 0.8},
        "change": {"value": 0.2, "low": 0.1, "high": 0.3},
    }
    effect = {"n_prompts": 20, "correct": shift, "fixed": 5, "new_errors": 1}
    control = {
        "kind": "random heads",
        "drawn": ["x", "y"],
        "correct": {"changes": [0.0, 0.1], "reached": 0, "p_value": 1 / 3},
    }
    head = {"name": "a1.h1", "score": 0.3, "member": True, "attribution": shift}
    result = {
        "task": EVIL[0], "heads": ["a0.h1"], "effect": effect, "controls": [control], "sweep": None, "repair": None,
        "downstream": {"heads": [head]},
    }  # fmt: skip
    held = {"model": {"name": "m"}, "asked": {"do": "knock-out"}, "results": [result]}
    write_json(folder / "intervention.json", held)
    (folder / "report.md").write_text("# I\n\n![e](effect.png)\n\n![d](downstream.png)\n")
    return folder


def test_an_intervention_stands_beside_its_controls(tmp_path: Path) -> None:
    page = intervention_page.folder_page(intervention(tmp_path))
    effect, later = plots(page)
    (dots,) = (m.data for m in effect.figures[0].references() if "interval" in getattr(m, "data", ()))
    assert dots["x"] == [0.5, 0.7, 0.5, 0.6]
    assert later.text.startswith("1 later heads; a1.h1 changes most, by 0.2")
    asked, found, chance = page.verdict
    assert asked.startswith("Knocking out the output of a0.h1 in m is tried on 20 prompts of ")
    assert "from 50.0% to 70.0%: a change of +20.0 points [10.0, 30.0]" in found
    assert chance == "0 of 2 draws of random heads move them as far (p 0.333)."


def test_roles_have_heatmaps(tmp_path: Path) -> None:
    def scored(best: str) -> dict[str, Any]:
        line = {"stderr": 0.1, "low": 0.0, "high": 1.0}
        heads = {
            h: line | {"score": 0.9 if h == best else 0.1, "p_value": 0.01 if h == best else 1.0}
            for h in GRAPH.heads
        }
        return {"samples": 9, "unit": "token", "chance": 0.1, "heads": heads}

    roles = {"induction": scored("a1.h2"), "copying": scored("a0.h0")}
    write_json(tmp_path / "heads.json", {"model": {"name": "m"}, "prompts": None, "roles": roles})
    (tmp_path / "report.md").write_text(
        "# Heads\n\n![i](heatmap-induction.png)\n\n![c](heatmap-copying.png)\n"
    )
    page = heads_page.folder_page(tmp_path)
    assert re.findall(r'data-plot="([^"]+)"', html(page)) == ["role-induction", "role-copying"]
    asked, found, chance = page.verdict
    assert asked == "Every head of m is scored for 2 roles."
    assert "induction a1.h2 with 0.90 [0.00, 1.00] (chance 0.10" in found
    assert chance.startswith("2 of 2 roles have a head")


# In a browser


def test_an_overlay_shows_whose_part_is_asked_for(browser, two: Path) -> None:
    browser.open(two / "report.html")
    browser.show("overlay")
    edges = browser.column("overlay", "edges", "side")

    def bright() -> list[int]:
        return [
            side
            for side, alpha in zip(edges, browser.column("overlay", "edges", "alpha"), strict=True)
            if alpha > 0.1
        ]

    assert len(bright()) == 7
    browser.set("overlay", "show", "1")
    assert bright() == [1, 1]
    browser.set("overlay", "show", "")
    names = browser.column("overlay", "nodes", "name")
    at = [browser.column("overlay", "nodes", axis)[names.index("a1.h3")] for axis in "xy"]
    browser.mouse(*browser.point("overlay", *at))
    assert EVIL[1].partition(" ")[0].strip("$") in browser.tooltip().replace("\u2060", "")
    browser.mouse(*browser.point("overlay", *at), click=True)
    browser.wait("return document.querySelector('[data-control=through]').value === 'a1.h3'")
    assert bright() == [2, 2]
    assert browser.complaints() == []


def test_matrices_open_on_a_phone_and_hold_names_as_text(browser, many: Path, tmp_path: Path) -> None:
    browser.open(many / "report.html", width=390, height=800, dark=True)
    browser.show("overlap-edge")
    browser.mouse(*browser.point("overlap-edge", 1, 0))
    assert EVIL[0] in browser.tooltip()
    assert browser.complaints() == []
    big = tmp_path / "big.html"
    big.write_text(
        html(Page("# m", tmp_path, plots={"": [matrix_plot("m", "t", matrix(16))]})), encoding="utf-8"
    )
    browser.open(big, width=390, height=800)
    browser.show("m")
    wide = "return [document.documentElement.scrollWidth, document.querySelector('.canvas').scrollWidth]"
    page, canvas = browser.run(wide)
    assert page <= 390 < canvas, "the matrix scrolls sideways, the page does not"
    assert browser.complaints() == []


def test_a_pair_of_heads_lights_up(browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        html(Page("# a", tmp_path, plots={"": [alignment((GRAPH, Graph(4, 4, 4)))]})), encoding="utf-8"
    )
    browser.open(page)
    browser.show("alignment")
    browser.set("alignment", "show", "0")
    assert [alpha > 0 for alpha in browser.column("alignment", "pairs", "alpha")] == [True, False, False]
    heads = {part: browser.column("alignment", "heads", part) for part in ("head", "x", "y")}
    at = heads["head"].index("a2.h0")
    browser.mouse(*browser.point("alignment", heads["x"][at], heads["y"][at]), click=True)
    browser.wait("return document.querySelector('[data-control=pair]').value === '2'")
    assert browser.state("alignment") == "a2.h0 and a2.h1: similarity 0.72, stability 0.67."
    assert browser.column("alignment", "pairs", "alpha")[2] == 1
    assert browser.complaints() == []


def test_the_other_pages_open_without_complaint(browser, many: Path, tmp_path: Path) -> None:
    made = {
        "study": study_page.folder_page(study(tmp_path / "study", many)),
        "evaluation": evaluation_page.folder_page(_made(tmp_path / "evaluation", evaluation)),
        "intervention": intervention_page.folder_page(_made(tmp_path / "intervention", intervention)),
    }
    for name, page in made.items():
        file = tmp_path / f"{name}.html"
        file.write_text(html(page), encoding="utf-8")
        browser.open(file)
        for plot in plots(page):
            browser.show(plot.name)
        assert browser.complaints() == [], name


def _made(folder: Path, make: Any) -> Path:
    folder.mkdir()
    return make(folder)


@pytest.mark.slow
def test_two_circuits_of_gpt2_small_stay_small_and_open(browser, tmp_path: Path) -> None:
    graph, rng = Graph(12, 12, 12), np.random.default_rng(0)
    some = [sorted(rng.choice(len(graph.places), 700, replace=False)) for _ in range(2)]
    edges = list(graph.places)
    sides = [
        made_run(tmp_path / name, graph, edges=tuple(edges[i] for i in places), seed=i)
        for i, (name, places) in enumerate(zip("ab", some, strict=True))
    ]
    folder = comparison(tmp_path / "out", sides)
    assert (folder / "report.html").stat().st_size < 2_000_000
    browser.open(folder / "report.html")
    browser.show("overlay")
    assert sum(alpha > 0 for alpha in browser.column("overlay", "edges", "alpha")) == 800
    record = json.loads((folder / "overlap.json").read_text())
    assert f"{record['comparisons'][1]['overlap']['shared']} by both" in browser.state("overlay")
    assert browser.complaints() == []
