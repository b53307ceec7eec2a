"""The terminal: results on stdout, the rest on stderr, legible without colour and in a narrow window."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest

from circuits.circuit import Circuit
from circuits.graph import Graph
from circuits.scores import Scores
from cli import render


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def scored(n_layers: int, n_heads: int, size: float = 1.0) -> tuple[Graph, Scores]:
    graph = Graph(n_layers, n_heads, n_heads)
    samples = np.random.default_rng(0).normal(scale=size, size=(9, len(graph.components)))
    return graph, Scores("activation-patching", graph.components, samples)


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize(("n_layers", "n_heads"), [(3, 6), (12, 12), (48, 64)])
def test_heatmaps_fit_the_window(
    n_layers: int,
    n_heads: int,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    graph, scores = scored(n_layers, n_heads)
    render.heatmap(graph, scores, Circuit(("a0.h0",), "x", "y"))
    lines = capsys.readouterr().out.splitlines()
    body = [line for line in lines if re.match(r" *\d", line)]
    assert all(len(line) <= columns for line in body)
    assert "".join(body).count("*") == 1
    assert {f"{head}" for head in range(n_heads)} <= set(" ".join(body).split())


def test_a_gpt2_sized_heatmap_shows_numbers_in_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    graph, scores = scored(12, 12)
    render.heatmap(graph, scores)
    out = capsys.readouterr().out
    assert render._bare(render._two_decimals(scores.of("a3.h4"))) in out
    assert "ninths" not in out


def test_the_heatmap_without_colour_says_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph, scores = scored(2, 3)
    circuit = Circuit(("a1.h2",), "x", "y")
    render.heatmap(graph, scores, circuit)
    plain = capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    render.heatmap(graph, scores, circuit)
    coloured = capsys.readouterr().out
    assert "\x1b[" not in plain
    assert "\x1b[" in coloured
    assert plain.splitlines()[:-1] == without_colour(coloured).splitlines()[:-1]


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    graph, scores = scored(2, 3)
    render.heatmap(graph, scores)
    assert ";2;" not in (out := capsys.readouterr().out)
    assert ";5;" not in out


def test_a_method_without_mlps_has_no_column_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    graph, scores = scored(2, 3)
    render.heatmap(graph, Scores("sae", graph.heads, scores.samples[:, :6]))
    assert "MLP" not in capsys.readouterr().out


def test_top_components_have_intervals_and_membership(capsys: pytest.CaptureFixture[str]) -> None:
    _, scores = scored(2, 3)
    first, second = scores.ranking()[:2]
    render.top_components(scores, Circuit((second,), "x", "y"), n=2, intervals={first: (-1.0, 2.0)})
    out = capsys.readouterr().out
    assert re.search(rf"1\s+{re.escape(first)}\s+[+-][\d.]+\s+-1.00 to \+2.00\s+no", out)
    assert re.search(rf"2\s+{re.escape(second)}\s.*yes", out)
    assert len(out.strip().splitlines()) == 5


def test_nothing_is_cut_off_in_a_narrow_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = "Indirect object identification: which [b]name[/b] comes next :smile:"
    render.table(("name", "what", "n"), [("ioi", text, 3), ("none", None, 0)], numeric=["n"])
    out = capsys.readouterr().out
    assert all(len(line) <= 40 for line in out.splitlines())
    assert set(text.split()) <= set(out.split())


def test_messages_go_to_stderr_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    long = "There is no [task] 'x'. " + "Known: ioi, arithmetic. " * 10
    render.error(long)
    render.warning("few prompts")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"Error: {long}\nWarning: few prompts\n"


def test_progress_is_a_line_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 0.5, 3.0, 4.0, 4.1])
    monkeypatch.setattr("cli.render.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with render.progress() as report:
        for done in (0, 1, 2):
            report("patching", done, 2)
        report("quick", 0, 1)
        report("quick", 1, 1)
    assert capsys.readouterr() == ("", "patching: 2/2 (3 s)\n")


def test_progress_is_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(render, "PATIENCE", 0.0)
    with render.progress() as report:
        for done in (0, 1, 2, 0, 1):
            report("patching", done, 2)
    assert "patching" in terminal.getvalue()
    assert "1/2" in terminal.getvalue()


def test_quick_tasks_draw_no_bar() -> None:
    bars = render._SlowTasks()
    bars.report("quick", 1, 2)
    assert list(bars.get_renderables()) == []


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with render.progress(quiet=True) as report:
        report("patching", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_pieces_are_told_line_by_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with render.board(["a", "b", "c"]) as pieces:
        pieces.ended("b", "kept", 0.0, "")
        pieces.report("a", "patching", 3, 10)
        pieces.ended("a", "failed", 2.0, "Traceback\n  x\nValueError: [red]pity[/red]\n")
        pieces.ended("c", "done", 3.0, "")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "[1/3] b: stands",
        "[2/3] a: failed, 2 s; about 0 s left: ValueError: [red]pity[/red]",
        "[3/3] c: done, 3 s",
    ]
    with render.board(["a"], quiet=True) as pieces:
        pieces.ended("a", "done", 3.0, "")
    assert capsys.readouterr().err == ""


def test_the_live_table_fits_the_window_and_shows_first_what_matters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES", "12")
    monkeypatch.setenv("COLUMNS", "60")
    console = render._console(stderr=True)
    pieces = render.Board([f"cell-{n}" for n in range(72)], console)
    pieces.live = True
    for n in range(60):
        pieces.ended(f"cell-{n}", "failed" if n == 5 else "done", 1.0, "no memory" if n == 5 else "")
    pieces.report("cell-70", "patching", 3, 10)
    pieces("transfer", 1, 4)
    console.print(pieces.table())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 12
    assert "60/72" in lines[0]
    assert "transfer: 1/4" in lines[0]
    assert re.match(r"cell-70 +running +patching 3/10", lines[3])
    assert re.match(r"cell-5 +failed +no memory +1 s", lines[4])
    assert "and 65 more" in lines[-1]
