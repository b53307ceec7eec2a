"""A reading, said once: terminal, report and page agree; and its pictures hold what the tables hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from circuits.errors import RunFolderError
from circuits.evaluation.faithfulness import Estimate
from circuits.weight_reading.composition import Chance, Composition
from circuits.weight_reading.low_rank import Ranks
from cli.reading_output import Drawing, Reading, Table, put_out
from cli.report.dots import CHANCE, CLAIM, Dot, Row, dots
from cli.report.figure import png
from cli.report.histogram import histogram
from cli.report.ranks import ranks_figure
from cli.report.readings import composition_picture, mlp_picture, tokens_picture

EVIL = "$x_1$ | \\frac{1} \x1b[31m 名前"


def _drawn() -> Figure:
    return dots([Row(EVIL, (Dot(0.5, CLAIM, 0.4, 0.6), Dot(0.1, CHANCE)))], {CLAIM: "it"}, EVIL, "share")


def _reading(**more: Any) -> Reading:
    rows = [("one", 0.12345, 3), ("two", None, 4), ("three", 1.0, 5)]
    table = Table("Figures", ("name", "share", "n"), rows, ("A note.",), lines=2, name="figures")
    drawings = (Drawing("figures.png", "Figures as dots", _drawn),)
    kept = {"what": "all"}
    return Reading(
        "made.json", "A title", kept, ("A sentence.",), (table,), {"rows": [{"a": 1}]}, drawings, **more
    )


def test_terminal_report_and_page_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_out(_reading(then="And then."), tmp_path / "out", force=False, json=False)
    said = capsys.readouterr().out
    report, page = ((tmp_path / "out" / name).read_text() for name in ("report.md", "report.html"))
    for text in (said, report, page):
        for words in ("A title", "Figures", "0.123", "A note.", "A sentence."):
            assert words in text
    assert ("three" in said, "three" in report) == (False, True)
    assert said.splitlines()[-1] == "And then."
    assert "data:image/png;base64," in page
    assert "![Figures as dots](figures.png)" in report
    assert (tmp_path / "out" / "figures.csv").read_text().splitlines()[2] == "two,,4"
    assert (tmp_path / "out" / "rows.csv").read_text() == "a\n1\n"
    assert '"format_version": 1' in (tmp_path / "out" / "made.json").read_text()


def test_json_alone_is_printed_and_what_fails_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_out(_reading(), None, force=False, json=True)
    assert capsys.readouterr().out.startswith("{")

    def broken(place: Path) -> None:
        raise OSError("no space")

    with pytest.raises((OSError, RunFolderError)):
        put_out(_reading(more=broken), tmp_path / "out", force=False, json=False)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_the_same_byte_for_byte_whatever_the_words_hold() -> None:
    assert png(_drawn()) == png(_drawn())


def _composition(best: np.ndarray) -> Composition:
    chance = Chance(10, 0.1, 0.1, 0.1, 0.2, 0.1)
    n = best.shape[0]
    heads = tuple(f"a{i}.h0" for i in range(n))
    return Composition(heads, ("q",), np.ones((n, 1)), best[:, None, :, None], tuple(range(n)), chance)


def test_pairs_at_chance_are_white_and_those_that_cannot_be_are_left_out() -> None:
    figure = composition_picture(
        _composition(np.array([[np.nan, 0.2, 0.5], [np.nan, np.nan, 0.1], [np.nan] * 3])), "t"
    )
    (mesh,) = figure.axes[0].collections[:1]
    values: Any = mesh.get_array()
    assert values.shape == (2, 2)  # a2.h0 writes for none, a0.h0 reads none
    assert values.mask.tolist() == [[False, False], [True, False]]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0.2, 0.5)
    none = _composition(np.array([[np.nan, 0.1], [np.nan, np.nan]]))
    assert png(composition_picture(none, "none above chance")) == png(
        composition_picture(none, "none above chance")
    )


def test_ranks_recover_from_nothing_to_all_and_empty_parts_are_left_out() -> None:
    some = Estimate(1.0, 0.9, 1.1)
    full = Ranks("a0.h1", "k", (3.0, 2.0, 1.0), (0.0, 0.0, 0.0), (3.0, 3.0, 1.0), some, some, 2, some, 2)
    empty = Ranks(
        "a0.h1", "q", (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), some, some, None, None, None
    )
    axes = ranks_figure([empty, full], "t").axes[0]
    drawn = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 3]  # type: ignore[arg-type]
    assert np.allclose(drawn, [[0.0, 0.0, 1.0], [0.0, 0.5, 1.0]])
    assert png(ranks_figure([full], "t")) == png(ranks_figure([full], "t"))
    png(ranks_figure([empty], "nothing to recover"))


def test_mlps_mark_what_is_sure_and_grey_what_comes_later() -> None:
    def read(mlp: str, b: list[float], low: list[float], high: list[float]) -> Any:
        fit = SimpleNamespace(heads=np.array(b))
        of = SimpleNamespace(fit=fit, low=np.array(low), high=np.array(high), r2=0.5)
        return SimpleNamespace(mlp=mlp, heads=("a0.h0", "a1.h0")[: len(b)], regression=of)

    found = [read("m0", [0.2], [-0.1], [0.5]), read("m1", [-0.2, 0.4], [-0.3, 0.3], [-0.1, 0.5])]
    axes = mlp_picture(found, "t").axes[0]
    mesh, marks = axes.collections[:2]
    assert np.ma.getmaskarray(mesh.get_array()).tolist() == [[False, True], [False, False]]  # type: ignore[arg-type]
    assert len(marks.get_offsets()) == 2


def test_of_a_long_prompt_the_tokens_that_matter_are_drawn_in_order() -> None:
    lines = [(f"t{i}", {"reagent": float(i % 7), "gradient": 0.0}, 0.01) for i in range(200)]
    labels = [label.get_text() for label in tokens_picture(lines, "t", "token").axes[0].get_yticklabels()]
    numbers = [int(label[1:]) for label in labels]
    assert len(numbers) == 60
    assert numbers == sorted(numbers)
    assert {n % 7 for n in numbers} == {4, 5, 6}


@pytest.mark.parametrize("n", [1, 3, 500])
def test_a_histogram_counts_every_text(n: int) -> None:
    scores = np.linspace(0, 1, n)
    figure = histogram(scores, scores - 0.5, "t", ())
    counted = [bar.get_height() for bar in figure.axes[0].patches if hasattr(bar, "get_height")]
    assert sum(counted) == n
    png(histogram(np.zeros(n), None, "no chance", ()))
