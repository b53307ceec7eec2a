"""`circuit intervene` as a user runs it: on a model whose circuit is known, so what must happen is known too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from made_runs import made_run
from typer.testing import CliRunner

from circuits.graph import Graph
from circuits.prompts import PromptPair
from circuits.records import read_prompts, write_json, write_prompts
from cli.main import app

Invoke = Callable[..., Result]
FILES = {
    "intervention.json",
    "intervention.csv",
    "heads.csv",
    "report.md",
    "report.html",
    "effect.png",
    "downstream.png",
}
MOVERS = ("--head", "a2.h1", "--head", "a2.h3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the planted model whose circuit is the planted one. Read-only."""
    path = tmp_path_factory.mktemp("runs") / "run"
    options = ("--model", "planted-ioi", "--pairs", "48", "--top", "4", "--method", "activation-patching")
    result = CliRunner().invoke(app, ["discover", "ioi", *options, "--output", str(path)])
    assert result.exit_code == 0, result.output
    return path


def _record(circuit: Invoke, *words: object) -> dict[str, Any]:
    result = circuit("intervene", *words, "--output", "out", "--force", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def _correct(record: dict[str, Any], side: str = "after") -> float:
    return float(record["results"][0]["effect"]["correct"][side]["value"])


def test_without_its_movers_the_model_is_lost_and_other_heads_do_nothing(circuit: Invoke, made: Path) -> None:
    record = _record(circuit, made, "--knock-out", *MOVERS)
    (result,) = record["results"]
    assert _correct(record, "before") == 1
    assert _correct(record) < 0.2
    assert result["effect"]["new_errors"] >= 0.8 * result["effect"]["n_prompts"]
    assert result["effect"]["fixed"] == 0
    (control,) = result["controls"]
    assert control["kind"] == "random heads"
    # Two of the four others of their layer make six sets; more are drawn in layers below.
    assert (len(control["drawn"]), control["matched"]) == (20, 6)
    assert max(map(abs, control["metric"]["changes"])) < 0.05
    assert control["metric"]["reached"] == 0
    assert control["metric"]["p_value"] == pytest.approx(1 / 21)
    assert result["downstream"] is None


def test_a_head_whose_channels_are_all_cut_is_knocked_out(circuit: Invoke, made: Path) -> None:
    """The planted head writes along 39 directions of equal size; what is left of it has no size at all."""
    every = [word for i in range(39) for word in ("--channel", f"a1.h4:{i}")]
    record = _record(circuit, made, *every)
    (cut,), (out,) = record["results"], _record(circuit, made, "--knock-out", "--head", "a1.h4")["results"]
    after = [result["effect"]["metric"]["after"]["value"] for result in (cut, out)]
    assert after[0] == pytest.approx(after[1], abs=1e-3)
    assert cut["controls"] == []  # nine other components are left, which is too few to draw from
    assert len(record["asked"]["channels"]) == 39
    assert record["asked"]["heads"] == ["a1.h4"]


def test_a_channel_is_held_against_other_components_of_its_head(circuit: Invoke, made: Path) -> None:
    result = circuit("intervene", made, "--channel", "a1.h4:0", "--scale", "2", "--output", "out")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "Scaling channels a1.h4:0 by 2" in words
    assert "draws of as many other components of the same heads" in words
    (control,) = json.loads(Path("out/intervention.json").read_text())["results"][0]["controls"]
    assert (control["kind"], len(control["drawn"])) == ("random components", 20)


def test_the_circuit_is_what_is_changed_if_no_head_is_named(circuit: Invoke, made: Path) -> None:
    record = _record(circuit, made, "--knock-out")
    assert record["asked"]["heads"] == ["a0.h2", "a1.h4", "a2.h1", "a2.h3"]
    assert _record(circuit, made, "--scale", "0")["results"] == record["results"]
    assert _record(circuit, made, "--mean", "--head", "a1.h4")["results"][0]["effect"]["new_errors"] > 5


def test_what_s_inhibition_is_told_to_look_at_is_what_is_not_said(circuit: Invoke, made: Path) -> None:
    """Told to look at IO it inhibits the answer; at S2, where it looks anyway, nothing happens."""
    told = _record(circuit, made, "--attend", "IO", "--head", "a1.h4")
    (result,) = told["results"]
    assert _correct(told) == 0
    assert result["effect"]["distracted"]["after"]["value"] == 1
    assert result["effect"]["metric"]["after"]["value"] < -9
    assert [control["kind"] for control in result["controls"]] == ["random heads", "random positions"]
    assert all(control["metric"]["reached"] == 0 for control in result["controls"])
    later = {head["name"]: head for head in result["downstream"]["heads"]}
    for mover in ("a2.h1", "a2.h3"):
        paid = later[mover]["attention"]
        assert paid["IO"]["before"]["value"] > 0.9
        assert paid["IO"]["after"]["value"] < 0.1
        assert later[mover]["attribution"]["change"]["value"] < -5
    assert abs(later["a2.h0"]["attribution"]["change"]["value"]) < 0.1
    as_ever = _record(circuit, made, "--attend", "S2", "--head", "a1.h4")
    assert _correct(as_ever) == 1
    assert abs(as_ever["results"][0]["effect"]["metric"]["change"]["value"]) < 0.1


def test_a_sweep_chooses_on_other_prompts_and_states_every_factor(circuit: Invoke, made: Path) -> None:
    words = (made, *MOVERS, "--scale", "2", "--scale", "0", "--scale", "-1")
    record = _record(circuit, *words)
    (result,) = record["results"]
    sweep = result["sweep"]
    assert sweep["factors"] == [-1, 0, 2]
    assert sweep["chosen"] == 2
    assert result["effect"] == sweep["judged"][2]
    assert [e["correct"]["after"]["value"] > 0.5 for e in sweep["judged"]] == [False, False, True]
    away = _record(circuit, *words, "--toward", "distractor")["results"][0]
    assert away["sweep"]["chosen"] != 2
    table = pd.read_csv("out/intervention.csv")
    assert {"factor -1, tuning", "factor 2, judged", "the intervention"} <= set(table["what"])


def test_movers_that_look_at_themselves_answer_no_more_and_interpolation_by_nothing_is_nothing(
    circuit: Invoke, made: Path
) -> None:
    assert _correct(_record(circuit, made, "--interpolate", "1", *MOVERS, "--pairs", "8")) < 0.2
    same = _record(circuit, made, "--interpolate", "0", *MOVERS, "--pairs", "8")
    assert same["asked"]["factors"] == [0]
    assert abs(same["results"][0]["effect"]["metric"]["change"]["value"]) < 1e-4


@pytest.mark.slow
def test_offsets_are_learned_on_other_prompts_and_written(circuit: Invoke, made: Path) -> None:
    from safetensors.torch import load_file

    record = _record(circuit, made, "--offsets", "--head", "a2.h1", "--head", "a1.h4", "--pairs", "6")
    assert _correct(record) == 1
    assert len(record["results"][0]["controls"][0]["drawn"]) == 20
    written = load_file("out/offsets.safetensors")
    assert {name: len(value) for name, value in written.items()} == {
        "a1.h4": 48, "a2.h1": 48, "a1.bias": 288, "a2.bias": 288
    }  # fmt: skip
    first = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    _record(circuit, made, "--offsets", "--head", "a2.h1", "--head", "a1.h4", "--pairs", "6")
    assert first == {path.name: path.read_bytes() for path in Path("out").iterdir()}


def test_on_another_task_and_on_own_prompts(circuit: Invoke, made: Path, tmp_path: Path) -> None:
    words = ("--knock-out", *MOVERS, "--pairs", "6")
    record = _record(circuit, made, *words, "--task", "ioi", "--form", "distractors")
    assert [result["effect"]["n_prompts"] for result in record["results"]] == [6, 6]
    assert "(distractors, swap)" in record["results"][1]["prompts"]
    lines = [_without_a_giver(pair) for pair in read_prompts(made / "prompts.jsonl")[:4]]
    lines = [replace(pair, clean=pair.clean.replace(" it ", " zebras ")) for pair in lines]
    kept = ("clean", "corrupt", "answers", "distractors", "positions")
    text = "".join(json.dumps({name: getattr(pair, name) for name in kept}) + "\n" for pair in lines)
    (tmp_path / "mine.jsonl").write_text(text)
    (mine,) = _record(circuit, made, *words, "--prompts", "mine.jsonl")["results"]
    assert (mine["task"], mine["effect"]["n_prompts"]) == ("mine", 4)
    said = circuit("intervene", made, *words, "--prompts", "mine.jsonl", "--output", "again").stderr
    assert "unknown to planted-ioi and become <unk>: zebras" in " ".join(said.split())


def test_the_folder_is_the_same_byte_for_byte_and_says_it_in_words(circuit: Invoke, made: Path) -> None:
    for name in ("one", "two"):
        result = circuit("intervene", made, "--attend", "IO", "--head", "a1.h4", "--output", name)
        assert result.exit_code == 0, result.output
    one, two = ({p.name: p.read_bytes() for p in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) == FILES
    said = " ".join(result.stdout.split())
    assert "Telling the last token's attention of a1.h4 to go to IO alone" in said
    assert "correct 100.0% to 0.0%" in said
    assert "24 are new errors" in said
    assert "The circuit's 2 later heads together write 9." in said
    assert "none as far" in said
    heads = pd.read_csv("one/heads.csv")
    assert len(heads) == 6
    assert set(heads[heads["in_circuit"]]["head"]) == {"a2.h1", "a2.h3"}
    again = circuit("intervene", made, "--attend", "IO", "--head", "a1.h4", "--output", "one")
    assert again.exit_code == 2
    assert "pass --force" in again.stderr


# Repair


def _without_a_giver(pair: PromptPair) -> PromptPair:
    """No name is said twice, so nothing in the prompt tells S from IO."""
    start, stop = pair.positions["S2"]
    clean = f"{pair.clean[:start]}it{pair.clean[stop:]}"
    positions = {name: pair.positions[name] for name in ("IO", "S1")}
    return replace(pair, clean=clean, corrupt=pair.clean, positions=positions)


@pytest.fixture
def bad(made: Path, tmp_path: Path) -> Path:
    """A run of prompts on which the planted model guesses, whose circuit is the movers alone."""
    path = Path(shutil.copytree(made, tmp_path / "bad"))
    write_prompts(path / "prompts.jsonl", map(_without_a_giver, read_prompts(path / "prompts.jsonl")))
    held = json.loads((path / "circuit.json").read_text())
    (entry,) = held["circuits"]
    entry["nodes"] = [node for node in entry["nodes"] if node["name"].startswith("a2")]
    write_json(path / "circuit.json", held)
    return path


def test_repair_finds_s_inhibition_and_gives_it_what_is_wrong(circuit: Invoke, made: Path, bad: Path) -> None:
    record = _record(circuit, bad, "--repair", made)
    (result,) = record["results"]
    found = {c["head"]: c for c in result["repair"]["candidates"]}
    looks = {head: c["looks_at"] for head, c in found.items()}
    assert looks == {"a0.h2": "", "a1.h4": "wrong", "a2.h1": "right", "a2.h3": "right"}
    assert found["a1.h4"]["good"]["value"] > 0.9 > 2 * found["a1.h4"]["bad"]["value"]
    assert not found["a1.h4"]["in_bad_circuit"]
    assert result["heads"] == result["repair"]["chosen"] == ["a1.h4"]
    assert result["repair"]["alone"]["a1.h4"] == result["effect"]
    assert 0.2 < _correct(record, "before") < 0.8
    assert _correct(record) > 0.95
    assert result["effect"]["new_errors"] == 0
    assert [control["metric"]["reached"] for control in result["controls"]] == [0, 0]
    report = Path("out/report.md").read_text()
    assert "What the override knows" in report
    assert "told: where to attend in every prompt" in report


def test_repair_onto_the_right_position_makes_it_worse(circuit: Invoke, made: Path, bad: Path) -> None:
    """The override is only as good as what it is told."""
    record = _record(circuit, bad, "--repair", made, "--onto", "IO")
    assert _correct(record) < 0.05
    assert record["results"][0]["effect"]["fixed"] == 0
    assert "nothing is repaired" in Path("out/report.md").read_text()


# Mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--channel", "a1.h4:0", "--knock-out"], "goes with --scale alone"),
        (["--channel", "a1.h4:0", "--scale", "0", "--scale", "2"], "takes one finite --scale"),
        (["--channel", "a1.h4:48"], "heads have 48 components here, 0 to 47"),
        (["--channel", "a1.h4"], "'a1.h4' names no channel"),
        (["--choose", "--knock-out"], "--choose belongs to --calibrate, and not to --knock-out"),
        ([], "Say one thing to do: --knock-out, --mean, --scale, --attend, --interpolate,"),
        (["--mean", "--scale", "2"], "--mean and --scale cannot go together"),
        (["--knock-out", "--head", "a9.h1", "--head", "m1"], "a9.h1 is not in this model: it has 3 layers"),
        (["--knock-out", "--head", "m1"], "m1 is no head"),
        (["--attend", "RIGHT"], "names RIGHT: they name IO, S1, S2, S1+1, END"),
        (["--scale", "nan"], "--scale nan is no factor"),
        (["--interpolate", "1.5"], "--interpolate 1.5 is no share. Give a number from 0 to 1."),
        (["--offsets", "--calibrate"], "--calibrate and --offsets cannot go together"),
        (["--scale", "1e300"], "no finite number: activations overflow"),
        (["--knock-out", "--onto", "S1"], "--onto belongs to --repair"),
        (["--knock-out", "--form", "plain"], "say which with --task"),
        (["--knock-out", "--method", "sae"], "There is no circuit of method 'sae'"),
        (["--knock-out", "--task", "iio"], "Did you mean 'ioi'?"),
        (["--repair", "nowhere"], "There is no run folder nowhere"),
        (["--repair", "nowhere", "--head", "a1.h4"], "--repair finds the heads itself"),
        (["--repair", "nowhere", "--task", "ioi"], "--repair works on the prompts of its two runs"),
    ],
)
def test_a_mistake_is_one_message(
    words: list[str], message: str, circuit: Invoke, made: Path, tmp_path: Path
) -> None:
    result = circuit("intervene", made, *words, "--output", "out")
    assert result.exit_code == 2, result.output
    assert result.stderr.count("Error:") == 1
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_runs_that_cannot_be_intervened_in_are_named(circuit: Invoke, made: Path, tmp_path: Path) -> None:
    graph = Graph(3, 6, 6)
    imported = made_run(tmp_path / "imported", graph, nodes=("a1.h4",), model="planted-ioi")
    none = circuit("intervene", tmp_path / "none", "--knock-out")
    assert (none.exit_code, "There is no run folder" in none.stderr) == (2, True)
    bare = circuit("intervene", imported, "--knock-out")
    assert (bare.exit_code, "holds no prompts to judge on" in " ".join(bare.stderr.split())) == (2, True)
    same = circuit("intervene", made, "--repair", made, "--output", "out")
    assert (same.exit_code, "there is nothing to give: none is idle" in " ".join(same.stderr.split())) == (
        2,
        True,
    )
    other = circuit("intervene", made, "--repair", imported, "--output", "out")
    assert (other.exit_code, "holds no prompts of both halves" in " ".join(other.stderr.split())) == (2, True)
