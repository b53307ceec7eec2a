"""Figures for papers: exact widths, legible and apart, the same bytes each time, fonts embedded."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import Result
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from shown_runs import ODD, attributed_run, heads_folder, whole_run

from circuits.graph import Graph
from cli.figures import Request, draw
from cli.report.attention import token_text
from cli.report.figure import legible, paper_style
from cli.waterfall import steps

GPT2 = Graph(12, 12, 12)
INCHES = {"column": 3.3, "page": 6.9}
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    here = tmp_path_factory.mktemp("figures")
    attributed, _ = attributed_run(here / "attributed", GPT2)
    return {
        "run": whole_run(here / "run", GPT2, n_edges=500),
        "small": whole_run(here / "small", Graph(2, 3, 3)),
        "attributed": attributed,
        "heads": heads_folder(here / "heads", GPT2),
    }


CASES = [
    ("run", "circuit", None, "column"),
    ("small", "circuit", None, "page"),
    ("run", "heatmap", None, "column"),
    ("run", "curve", None, "column"),
    ("small", "curve", None, "page"),
    ("run", "attention", 13, "page"),
    ("run", "attention", 41, "column"),
    ("run", "attention", 42, "column"),
    ("attributed", "waterfall", None, "column"),
    ("heads", "roles", None, "column"),
]


class Words(NamedTuple):
    """What is written, at what size, and where."""

    text: str
    size: float
    box: Bbox


def written(figure: Figure) -> list[Words]:
    """All that is drawn of text; an axis also has labels beyond its ends, which are not."""
    found: list[Words] = []
    really = Text.draw

    def noting(text: Text, renderer: RendererBase, *more: Any) -> None:
        really(text, renderer, *more)
        if text.get_visible() and text.get_text().strip():
            found.append(Words(text.get_text(), float(text.get_fontsize()), text.get_window_extent(renderer)))

    with paper_style(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", noting)
        figure.canvas.draw()
    return found


@pytest.mark.parametrize(("folder", "name", "prompt", "width"), CASES)
def test_figures_have_their_width_and_their_words_stand_apart(
    folder: str, name: str, prompt: int | None, width: str, folders: dict[str, Path]
) -> None:
    drawn = draw(Request(folders[folder], name, prompt=prompt, width=width))
    figure = drawn.figure
    assert figure.get_figwidth() == INCHES[width]
    found = written(figure)
    assert min(words.size for words in found) >= 5
    everything = " ".join(words.text for words in found).replace("\xa0", " ")
    assert all(part in everything for part in drawn.title.split())
    page = figure.bbox.padded(1)
    assert [w.text for w in found if not (page.contains(*w.box.min) and page.contains(*w.box.max))] == []
    assert [(a.text, b.text) for a, b in combinations(found, 2) if _overlap(a.box, b.box)] == []


def _overlap(a: Bbox, b: Bbox) -> bool:
    """By more than the room that a font leaves around its letters: a fifth of the lower one's height."""
    across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    room = 0.2 * min(a.height, b.height, a.width, b.width)
    return bool(across > room and up > room)


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_files_are_as_wide_as_they_say_and_the_same_twice(
    kind: str, folders: dict[str, Path], circuit: Run
) -> None:
    for i in (1, 2):
        done = circuit("show", folders["small"], "--figure", "curve", "--output", f"{i}.{kind}")
        assert done.exit_code == 0, done.output
    content = Path(f"1.{kind}").read_bytes()
    assert content == Path(f"2.{kind}").read_bytes()
    if kind == "svg":
        assert re.search(rb'width="([\d.]+)pt"', content)[1] == b"237.6"  # type: ignore[index]
        assert b"<text" not in content
        assert b"<title>eap, ioi in one (n = 50 prompts)</title>" in content
    elif kind == "pdf":
        assert float(re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", content)[1]) == pytest.approx(237.6)  # type: ignore[index]
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        assert b"CreationDate" not in content
    else:
        assert struct.unpack(">I", content[16:20])[0] == 990  # 3.3 inches of 300 dots


def test_files_are_named_by_figure_and_method_and_not_overwritten(
    folders: dict[str, Path], circuit: Run
) -> None:
    words = ("show", folders["small"], "--figure", "heatmap")
    assert circuit(*words, "--format", "png").exit_code == 0
    assert Path("heatmap-eap.png").is_file()
    refused = circuit(*words, "--format", "png")
    assert refused.exit_code == 2
    assert "--force" in refused.output
    assert circuit(*words, "--format", "png", "--force").exit_code == 0
    assert "does not end in .svg" in circuit(*words, "--format", "svg", "--output", "x.png").output
    assert "Known: pdf, png, svg" in " ".join(circuit(*words, "--output", "x.gif").output.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("attention", "--head", "a0.h2"), "no head with attention in this run 'a0.h2'"),
        (("attention", "--prompt", "3"), "Choose --prompt from 13, 41, 42"),
        (("waterfall",), "circuit discover ioi --method logit-attribution"),
        (("curve", "--width", "poster"), "Known: column, page"),
    ],
)
def test_what_the_run_lacks_is_said(
    words: tuple[str, ...], said: str, folders: dict[str, Path], circuit: Run
) -> None:
    refused = circuit("show", folders["small"], "--figure", *words)
    assert refused.exit_code == 2
    assert said in " ".join(refused.output.split())


def test_the_bars_of_a_waterfall_end_at_the_logit_difference(tmp_path: Path) -> None:
    path, total = attributed_run(tmp_path / "run", Graph(2, 3, 3))
    figure = draw(Request(path, "waterfall")).figure
    axes = figure.axes[0]
    *bars, whole = axes.patches
    assert whole.get_width() == pytest.approx(total)  # type: ignore[attr-defined]
    ends = [bar.get_x() + bar.get_width() for bar in bars]  # type: ignore[attr-defined]
    assert ends[-1] == pytest.approx(total)
    assert [bar.get_x() for bar in bars[1:]] == pytest.approx(ends[:-1])  # type: ignore[attr-defined]


def test_what_is_small_is_pooled_and_nothing_is_lost() -> None:
    components = {"a0.h0": 0.1, "m0": -3.0, "a1.h0": 2.0, "m1": 0.2}
    found = steps(components, {"input": 1.0}, most=2)
    assert [step.name for step in found] == ["input", "m0", "a1.h0", "2 others"]
    assert sum(step.value for step in found) == pytest.approx(0.3)


def test_odd_tokens_are_text() -> None:
    assert legible("$a_b$ שלום") == "$a_b$ שלום"
    assert (legible("\n"), legible("\u202e"), legible("中")) == ("\\n", "\\u202e", "<4E2D>")
    assert token_text(" Mary") == "·Mary"
    assert token_text(ODD[9]).endswith("…")
