"""The doctor on the command line: what is checked, refused, left out, and recorded, on the planted model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from circuits.errors import CircuitError
from circuits.evaluation.run_evaluation import own_prompts
from circuits.halves import sentence
from circuits.models.bridge import BridgeModel, load_model
from circuits.prompts import PromptPair
from circuits.runs import read_run
from cli.prompt_source import Prompts, draw_prompts
from cli.screening import check_line, checked, screened
from cli.study.spec import Options

Invoke = Callable[..., Result]
QUICK = ("--model", "planted-ioi", "--method", "logit-attribution", "--top", "4")


@pytest.fixture(scope="module")
def planted() -> BridgeModel:
    return load_model("planted-ioi")


def _turned(pair: PromptPair) -> PromptPair:
    """The same pair with the wrong answer taken for the right one."""
    return PromptPair(pair.clean, pair.corrupt, pair.distractors, pair.answers, pair.positions)


@pytest.fixture(scope="module")
def half_right(planted: BridgeModel) -> Prompts:
    """Twelve pairs that the model solves, and four that it does not."""
    drawn = draw_prompts(planted, "ioi", None, form=None, corruption=None, n=16, seed=0)
    return Prompts("half-right", (*drawn.pairs[:12], *map(_turned, drawn.pairs[12:])))


def test_prompts_that_the_model_fails_are_refused_or_left_out(
    planted: BridgeModel, half_right: Prompts
) -> None:
    assert screened(planted, half_right, None, keep_solved=False) is half_right
    assert screened(planted, half_right, 0.75, keep_solved=False).pairs == half_right.pairs
    kept = screened(planted, half_right, None, keep_solved=True)
    assert kept.pairs == half_right.pairs[:12]
    assert kept.screening is not None
    assert (kept.screening.drawn, kept.screening.left_out) == (16, 4)
    with pytest.raises(CircuitError, match=r"on 75\.0% \[50\.5%, 89\.8%\] of 16 prompts.*--keep-solved"):
        screened(planted, half_right, 0.8, keep_solved=True)
    with pytest.raises(CircuitError, match="leaves too few"):
        screened(planted, Prompts("wrong", half_right.pairs[12:]), None, keep_solved=True)
    line = check_line(checked(planted, kept, 0, "prompts"), kept)
    assert line.startswith("12 aligned pairs of 16 (4 that the model fails are left out)")


def test_judged_templates_are_new_and_the_run_says_so(circuit: Invoke, tmp_path: Path) -> None:
    options = ("--pairs", "40", "--judge-on", "templates", "--keep-solved", "--min-accuracy", "0.9")
    result = circuit("discover", "ioi", *QUICK, *options, "--output", "out")
    assert result.exit_code == 0, result.output
    assert "planted-ioi on ioi: 40 aligned pairs of 40" in result.stderr
    run = read_run(tmp_path / "out")
    found, judged = (
        {sentence(run.prompts[i].template) for i in run.run["prompts"][half]}
        for half in ("discovery", "judged")
    )
    assert len(found | judged) == 15
    assert not found & judged
    assert run.run["config"]["judge_on"] == "templates"
    assert run.run["prompts"]["screening"]["left_out"] == 0
    (verdict, _) = run.evaluation["methods"]["logit-attribution"]["verdicts"]
    prompts = own_prompts(run, None)
    assert prompts is not None
    said = "none of them nor of their templates discovered on, the model's failures left out"
    assert verdict["stated"]["prompt set"].endswith(said)
    assert prompts.about.endswith(said)


def test_a_check_tells_all_as_json_and_fails_where_a_pair_cannot_be_used(
    circuit: Invoke, half_right: Prompts
) -> None:
    lines = [
        {"clean": p.clean, "corrupt": p.corrupt, "answers": p.answers, "distractors": p.distractors}
        for p in half_right.pairs
    ]
    lines[1] |= {"corrupt": "Mary"}
    lines[2] |= {"answers": [" Zaphod"]}
    Path("p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = circuit("tasks", "--check", "--prompts", "p.jsonl", "--model", "planted-ioi", "--json")
    assert result.exit_code == 1, result.output
    record = json.loads(result.stdout)
    assert set(record["check"]["unusable"]) == {"1", "2"}
    assert record["behaviour"]["whole"]["n"] == 14
    assert record["behaviour"]["whole"]["preferred"]["value"] == pytest.approx(10 / 14)
    assert {failure["index"] for failure in record["behaviour"]["failures"]} == {12, 13, 14, 15}


def test_a_check_in_words(circuit: Invoke) -> None:
    result = circuit("tasks", "ioi", "--check", "--pairs", "30", "--model", "planted-ioi")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "ioi (plain, swap) in planted-ioi: 30 pairs" in words
    assert "copies: none" in words
    assert "templates: 30, each 1 times" in words
    assert "prefers the answer on 100.0% [88.6%, 100.0%]" in words
    assert "CANNOT" not in words


def test_a_study_takes_them_too() -> None:
    asked = {"min-accuracy": 0.9, "keep-solved": True, "judge-on": "templates"}
    assert Options.model_validate(asked).given() == {
        name.replace("-", "_"): value for name, value in asked.items()
    }


def test_cells_that_judge_on_other_prompts_share_no_ground(planted: BridgeModel) -> None:
    from circuits.discovery import Plan
    from cli.study.runner import LastModel

    pairs = draw_prompts(planted, "ioi", None, form=None, corruption=None, n=30, seed=0).pairs
    held = LastModel()
    first = held.stand(planted, pairs, Plan(()))
    assert held.stand(planted, pairs, Plan(())) is first
    assert held.stand(planted, pairs, Plan((), judge_on="templates")).halves != first.halves
