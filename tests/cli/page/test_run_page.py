"""The page of a run: what it holds, and what it does in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import made_run

from circuits.graph import Graph
from circuits.records import write_json, write_table
from circuits.runs import read_run
from cli.page.page import html
from cli.page.run_page import folder_page, run_page, verdict
from cli.page.run_picture import shown_methods

SMALL = Graph(2, 3, 3)
GPT2 = Graph(12, 12, 12)
EVIL = (
    "<b>Ann</b> & \"Bob\" 'x'",
    "</script><script>throw 1</script>",
    "$$x$$ \\(y\\)",
    "😀 שלום עליכם",
    "a|b`c`",
)


def write_page(folder: Path, target: Path) -> Path:
    target.write_text(html(folder_page(folder)), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def node_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of nodes with every part that a page can show."""
    folder = made_run(tmp_path_factory.mktemp("runs") / "nodes", SMALL, nodes=("a0.h1", "m0", "a1.h2"))
    rng = np.random.default_rng(0)
    band = {"n": 25, "low": 0.0, "median": 0.1, "high": 0.3, "p_value": 1 / 26}
    faith = {"value": 0.9, "low": 0.85, "high": 0.95}
    verdict = {"ablation": "resample", "n_prompts": 4, "faithfulness": faith, "random": band}
    held = json.loads((folder / "evaluation.json").read_text())
    write_json(folder / "evaluation.json", held | {"methods": {"made": {"verdicts": [verdict]}}})
    run = json.loads((folder / "run.json").read_text())
    run["prompts"] = {"discovery": [0, 2], "judged": [1, 3, 4]}
    write_json(folder / "run.json", run)
    (folder / "prompts.jsonl").write_text(
        "".join(
            json.dumps(
                {"clean": t, "corrupt": t[::-1], "answers": [t[:3]], "distractors": ["y"], "positions": {}}
            )
            + "\n"
            for t in EVIL
        )
    )
    sizes = [("made", n, n, n / 8, n / 8 - 0.05, n / 8 + 0.05, "resample", 3) for n in (1, 2, 3, 5, 8)]
    (folder / "report.md").write_text("# made in one\n\n| a | b |\n| --- | --- |\n| 1 | <i>2</i> |\n")
    names = ["method", "n", "kept", "faithfulness", "low", "high", "ablation", "n_prompts"]
    write_table(folder / "sizes.csv", pd.DataFrame(sizes, columns=names))
    tokens = ["<bos>", *EVIL]

    def pattern() -> dict[str, object]:
        rows = [
            (rng.dirichlet(np.ones(i + 1)) * 1000).round().astype(int).tolist() for i in range(len(tokens))
        ]
        return {"queries": list(range(len(tokens))), "rows": rows}

    write_json(
        folder / "attention.json",
        {
            "format_version": 1,
            "queries": "all",
            "prompts": [{"prompt": 1, "clean": tokens, "corrupt": tokens[::-1], "positions": {"END": 5}}],
            "heads": {head: [{"clean": pattern(), "corrupt": pattern()}] for head in ("a0.h1", "a1.h2")},
        },
    )
    return folder


def test_a_page_holds_its_words_and_its_plots(node_run: Path) -> None:
    page = html(folder_page(node_run))
    assert re.findall(r'data-plot="([^"]+)"', page) == [
        "circuit-made",
        "heatmap-made",
        "attention",
        "verdicts",
    ]
    assert "made keeps 3 of 8 components" in page
    assert "0.90 [0.85, 0.95]" in page
    assert len(page.encode()) < 1_000_000


def test_three_sentences_say_what_was_found_how_faithful_and_against_what(node_run: Path) -> None:
    found, worth, chance = verdict(shown_methods(read_run(node_run))[0])
    assert found == "made keeps 3 of 8 components as the circuit for made in one."
    assert "On 4 prompts that it was not found on, its faithfulness is 0.90 [0.85, 0.95]" in worth
    assert chance.startswith("All of 25 random circuits of its size do worse")


def test_the_same_folder_gives_the_same_bytes(node_run: Path) -> None:
    assert html(folder_page(node_run)) == html(folder_page(node_run))


def test_prompts_appear_as_text(node_run: Path) -> None:
    page = html(folder_page(node_run))
    assert "<b>Ann</b>" not in page
    assert "&lt;b&gt;Ann&lt;/b&gt; &amp; &#34;Bob&#34;" in page
    assert "<script>throw 1" not in page


def test_a_run_without_parts_gives_a_page_without_them(tmp_path: Path) -> None:
    bare = made_run(tmp_path / "bare", SMALL, nodes=("a0.h1",), scored=False)
    page = html(run_page(read_run(bare), "# bare\n\nwords"))
    assert re.findall(r'data-plot="([^"]+)"', page) == ["circuit-made"]
    assert "How faithful it is was not measured." in page


def test_a_circuit_of_gpt2_small_stays_small(gpt2_page: Path) -> None:
    assert gpt2_page.stat().st_size < 2_000_000


@pytest.fixture(scope="module")
def gpt2_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 edges of 32,491."""
    rng = np.random.default_rng(0)
    edges = list(GPT2.places)
    kept = tuple(edges[i] for i in sorted(rng.choice(len(edges), 500, replace=False)))
    base = tmp_path_factory.mktemp("gpt2")
    folder = made_run(base / "run", GPT2, edges=kept)
    (folder / "report.md").write_text("# made\n\nwords\n")
    return write_page(folder, base / "report.html")


def test_the_slider_moves_graph_and_curve_together(browser, node_run: Path, tmp_path: Path) -> None:
    browser.open(write_page(node_run, tmp_path / "page.html"))
    browser.show("circuit-made")
    plot = "circuit-made"
    shown = browser.column(plot, "nodes", "alpha")
    assert shown.count(1) == 5  # three members, input, logits
    browser.set(plot, "size", 1)
    assert browser.column(plot, "nodes", "alpha").count(1) == 4
    assert browser.state(plot).startswith(
        "The first 2 of 8 components by score, faithfulness 0.25 [0.20, 0.30]"
    )
    assert browser.column(plot, "marker", "n") == [2]
    assert browser.column(plot, "marker", "faithfulness") == [0.25]
    browser.run("document.querySelector('[data-control=chosen]').click()")
    assert browser.column(plot, "marker", "n") == [3]
    assert browser.complaints() == []


def test_a_click_lights_up_the_paths_through_a_node(browser, node_run: Path, tmp_path: Path) -> None:
    browser.open(write_page(node_run, tmp_path / "page.html"))
    plot = "circuit-made"
    browser.show(plot)
    names = browser.column(plot, "nodes", "name")
    at = names.index("a0.h1")
    place = [browser.column(plot, "nodes", axis)[at] for axis in "xy"]
    browser.mouse(*browser.point(plot, *place), click=True)
    browser.wait("return document.querySelector('[data-control=through]').value === 'a0.h1'")
    ends = list(zip(*(browser.column(plot, "edges", end) for end in ("source", "target")), strict=True))
    bright = {
        edge for edge, alpha in zip(ends, browser.column(plot, "edges", "alpha"), strict=True) if alpha > 0.5
    }
    assert ("input", "a0.h1") in bright
    assert ("a0.h1", "m0") in bright
    assert ("m0", "logits") in bright
    assert ("input", "m0") not in bright
    browser.set(plot, "through", "")
    assert "paths through" not in browser.state(plot)


def test_hovering_says_score_and_interval(browser, node_run: Path, tmp_path: Path) -> None:
    browser.open(write_page(node_run, tmp_path / "page.html"))
    plot = "circuit-made"
    browser.show(plot)
    names = browser.column(plot, "nodes", "name")
    at = names.index("a1.h2")
    browser.mouse(*browser.point(plot, *(browser.column(plot, "nodes", axis)[at] for axis in "xy")))
    words = browser.column(plot, "nodes", "words")[at]
    browser.wait("return true")
    assert "a1.h2" in browser.tooltip()
    assert words in browser.tooltip()


def test_attention_shows_the_head_that_is_chosen_and_tokens_as_text(
    browser, node_run: Path, tmp_path: Path
) -> None:
    browser.open(write_page(node_run, tmp_path / "page.html"))
    browser.show("attention")
    first = browser.column("attention", "pattern", "value")
    assert len(first) == 21
    browser.set("attention", "head", "a1.h2")
    assert browser.column("attention", "pattern", "value") != first
    assert "a1.h2, " in browser.state("attention")
    assert any("<b>Ann</b>" in token for token in browser.column("attention", "pattern", "source"))
    assert browser.complaints() == []


def test_dark_and_light_repaint_the_plots(browser, node_run: Path, tmp_path: Path) -> None:
    browser.open(write_page(node_run, tmp_path / "page.html"), width=390, height=800, dark=True)
    browser.show("circuit-made")
    look = "return [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]"
    assert browser.run(look) == ["dark", "rgb(21, 24, 28)"]
    browser.run("document.getElementById('theme').click()")
    assert browser.run(look) == ["light", "rgb(255, 255, 255)"]
    wide = browser.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wide  # nothing makes a phone's page scroll sideways
    assert browser.complaints() == []


def test_a_circuit_of_gpt2_small_opens_and_moves(browser, gpt2_page: Path) -> None:
    browser.open(gpt2_page)
    browser.show("circuit-made")
    assert sum(alpha > 0 for alpha in browser.column("circuit-made", "edges", "alpha")) == 500
    browser.set("circuit-made", "size", 8)
    assert 0 < sum(alpha > 0 for alpha in browser.column("circuit-made", "edges", "alpha")) < 500
    assert browser.complaints() == []
