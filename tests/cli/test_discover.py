"""`circuit discover` as a user runs it, on the planted model: what it writes, that it repeats, how it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from circuits.models.builtin_models import FOLDER
from circuits.runs import read_run

SHARED = Path(__file__).parents[2].parent / "shared"
QUICK = ("--model", "planted-ioi", "--pairs", "24", "--method", "activation-patching")
FILES = {
    "run.json",
    "prompts.jsonl",
    "nodes.csv",
    "edges.csv",
    "circuit.json",
    "circuit.graphml",
    "circuit.svg",
    "circuit.png",
    "evaluation.json",
    "report.md",
    "report.html",
    "heatmap-activation-patching.png",
    "sizes.csv",
    "attention.json",
}
Invoke = Callable[..., Result]


def test_discover_finds_the_planted_circuit_and_writes_a_whole_run(circuit: Invoke, tmp_path: Path) -> None:
    result = circuit("discover", "ioi", *QUICK)
    assert result.exit_code == 0, result.output
    run = read_run(tmp_path / "runs" / "ioi-planted-ioi")
    assert {f.name for f in run.path.iterdir()} == FILES
    known = json.loads((FOLDER / "planted-ioi" / "card.json").read_text())["circuits"]["ioi"]["heads"]
    (found,) = run.circuit["circuits"]
    assert sorted(node["name"] for node in found["nodes"]) == sorted(known)
    assert found["evaluation"][0]["faithfulness"]["value"] == pytest.approx(1.0, abs=0.01)
    assert run.sizes is not None
    assert run.attention is not None
    assert run.sizes.set_index("n")["faithfulness"][len(known)] == pytest.approx(1.0, abs=0.01)
    assert sorted(list(run.attention["heads"])[: len(known)]) == sorted(known)
    (card, *_) = run.evaluation["methods"]["activation-patching"]["references"]
    assert card["auroc"] == 1.0
    assert not set(run.run["prompts"]["discovery"]) & set(run.run["prompts"]["judged"])


def test_inputs_of_heads_are_a_table_of_their_own(circuit: Invoke, tmp_path: Path) -> None:
    methods = ("activation-patching", "attribution-patching", "relevance-patching")
    chosen = [word for name in methods for word in ("--method", name)]
    inputs = [word for name in methods[:2] for word in ("--set", f"{name}.inputs=true")]
    named = ("--set", "attribution-patching.positions=named", "--set", "attribution-patching.grad-drop=yes")
    options = ("--model", "planted-ioi", "--pairs", "16", *chosen, *inputs, *named)
    result = circuit("discover", "ioi", *options, "--output", "out")
    assert result.exit_code == 0, result.output
    run = read_run(tmp_path / "out")
    assert run.parts is not None
    everywhere = run.parts[run.parts["position"] == "all"].set_index(["method", "part"])["score"]
    assert set(everywhere.index.get_level_values("method")) == set(methods[:2])
    # Both name movers attend by their queries, which S-inhibition changes.
    for method in methods[:2]:
        assert everywhere[method, "a2.h1<q>"] > 5 > 1 > abs(everywhere[method, "a2.h1<k>"])
    assert "S2" in set(run.parts["position"])
    assert "sign of the mean" in run.evaluation["methods"]["attribution-patching"]["details"]["notes"][0]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(circuit: Invoke, tmp_path: Path) -> None:
    quick = ("--set", "sae.trials=2", "--method", "sae", "--method", "logit-attribution")
    for name in "ab":
        assert circuit("discover", "ioi", *QUICK, *quick, "--output", name).exit_code == 0
    names = sorted(f.name for f in (tmp_path / "a").iterdir())
    assert names == sorted(f.name for f in (tmp_path / "b").iterdir())
    for name in names:
        one, two = ((tmp_path / side / name).read_bytes() for side in "ab")
        if name == "run.json":
            one, two = ({k: v for k, v in json.loads(x).items() if k != "cost"} for x in (one, two))
        assert one == two, name


def test_the_batch_size_changes_no_score(circuit: Invoke, tmp_path: Path) -> None:
    tables = []
    for size in (64, 5):
        methods = ("--method", "logit-attribution", "--batch-size", size, "--output", f"out-{size}")
        assert circuit("discover", "ioi", *QUICK, *methods).exit_code == 0
        tables.append(pd.read_csv(tmp_path / f"out-{size}" / "nodes.csv").set_index(["method", "component"]))
    assert (tables[0]["score"] - tables[1].loc[tables[0].index, "score"]).abs().max() < 1e-5


def test_json_is_all_that_stdout_holds(circuit: Invoke) -> None:
    result = circuit("discover", "ioi", *QUICK, "--json", "--output", "out")
    summary = json.loads(result.stdout)
    assert summary["solves"] is True
    assert summary["output"] == "out"
    assert len(summary["circuits"][0]["nodes"]) == 4


def test_without_output_each_run_gets_a_folder_of_its_own(circuit: Invoke, tmp_path: Path) -> None:
    for _ in range(2):
        assert circuit("discover", "ioi", *QUICK).exit_code == 0
    assert {f.name for f in (tmp_path / "runs").iterdir()} == {"ioi-planted-ioi", "ioi-planted-ioi-2"}


def test_a_config_file_stands_in_for_options_and_the_command_line_wins(
    circuit: Invoke, tmp_path: Path
) -> None:
    Path("c.yaml").write_text("task: ioi\nmodel: planted-ioi\nmethod: logit-attribution\npairs: 24\ntop: 3\n")
    assert circuit("discover", "--config", "c.yaml", "--output", "a").exit_code == 0
    assert circuit("discover", "--config", "c.yaml", "--output", "b", "--top", "2").exit_code == 0
    sizes = [len(read_run(tmp_path / name).circuit["circuits"][0]["nodes"]) for name in "ab"]
    assert sizes == [3, 2]


PAIR = {"clean": "Mary and John", "corrupt": "Mary and Mary", "answers": [" Mary"], "distractors": [" John"]}


def _prompts(*lines: object) -> None:
    Path("p.jsonl").write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))


MISTAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "unknown task": (("discover", "oi"), ("'oi'", "Did you mean 'ioi'")),
    "unknown method": (("discover", "ioi", "--method", "saee"), ("'saee'", "Did you mean 'sae'")),
    "unknown model": (
        ("discover", "ioi", "--model", "planted-io"),
        ("planted-io", "Did you mean 'planted-ioi'"),
    ),
    "no such folder": (("discover", "ioi", "--model", "./nowhere"), ("./nowhere", "planted-ioi")),
    "neither task nor prompts": (("discover",), ("--prompts", "ioi")),
    "unknown form": (("discover", "ioi", *QUICK, "--form", "plane"), ("'plane'", "Did you mean 'plain'")),
    "unknown corruption": (("discover", "ioi", *QUICK, "--corruption", "swp"), ("Did you mean 'swap'",)),
    "unknown metric": (("discover", "ioi", *QUICK, "--metric", "kl"), ("'kl'", "logit-difference")),
    "unknown option": (
        ("discover", "ioi", *QUICK, "--set", "activation-patching.directon=x"),
        ("direction",),
    ),
    "bad option value": (("discover", "ioi", *QUICK, "--set", "activation-patching.direction=up"), ("'up'",)),
    "option of no method": (
        ("discover", "ioi", *QUICK, "--set", "sae.trials=3"),
        ("sae", "activation-patching"),
    ),
    "setting without value": (("discover", "ioi", *QUICK, "--set", "trials"), ("METHOD.OPTION=VALUE",)),
    "two selections": (
        ("discover", "ioi", *QUICK, "--top", "3", "--threshold", "0.1"),
        ("--top", "--threshold"),
    ),
    "more than there are": (("discover", "ioi", *QUICK, "--top", "99"), ("99", "21")),
    "unknown dtype": (("discover", "ioi", *QUICK, "--dtype", "float8"), ("float8", "bfloat16")),
    "unknown device": (("discover", "ioi", *QUICK, "--device", "gpu"), ("gpu", "cpu")),
    "device that no machine has": (("discover", "ioi", *QUICK, "--device", "cpu:7"), ("'cpu:7'", "has cpu")),
    "no amount of memory": (("discover", "ioi", *QUICK, "--memory", "4"), ("'4'", "4GB or 512MiB")),
    "negative memory": (("discover", "ioi", *QUICK, "--memory", "-1GB"), ("'-1GB'", "4GB")),
    "task the model has no words for": (("discover", "arithmetic", *QUICK), ("planted-ioi",)),
    "missing prompt file": (("discover", "--prompts", "none.jsonl"), ("none.jsonl",)),
    "unknown config": (("discover", "--config", "none.yaml"), ("none.yaml",)),
    "unknown task to show": (("tasks", "oi"), ("Did you mean 'ioi'",)),
    "unknown method to show": (("methods", "sea"), ("Did you mean 'sae'",)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(name: str, circuit: Invoke, tmp_path: Path) -> None:
    arguments, said = MISTAKES[name]
    result = circuit(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    message = " ".join(result.stderr.split())
    assert message.count("Error:") == 1
    for words in said:
        assert words in message
    assert list(tmp_path.iterdir()) == []


BAD_FILES: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "empty": ((), ("0 prompt pairs",)),
    "not JSON": ((PAIR, "{clean"), ("line 2", "no JSON")),
    "missing key": ((PAIR, {"clean": "x"}), ("line 2", "answers: Field required")),
    "one pair": ((PAIR,), ("1 prompt pairs",)),
    "lengths differ": ((PAIR, PAIR | {"corrupt": "Mary"}), ("prompt 2", "'Mary'", "align")),
    "answer of two tokens": (
        (PAIR, PAIR | {"answers": [" Mary John"]}),
        ("prompt 2", "Mary John", "2 tokens"),
    ),
    "answer unknown": ((PAIR, PAIR | {"answers": [" Zaphod"]}), ("prompt 2", "Zaphod", "vocabulary")),
    "answer is distractor": ((PAIR, PAIR | {"distractors": [" Mary"]}), ("prompt 2", "both")),
    "same text": ((PAIR, PAIR | {"corrupt": "Mary and John"}), ("prompt 2", "same text")),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_prompt_file_is_refused_by_line_or_pair(name: str, circuit: Invoke, tmp_path: Path) -> None:
    lines, said = BAD_FILES[name]
    _prompts(*lines)
    result = circuit("discover", "--prompts", "p.jsonl", *QUICK)
    assert result.exit_code == 2, result.output
    message = " ".join(result.stderr.split())
    for words in said:
        assert words in message, message
    assert [f.name for f in tmp_path.iterdir()] == ["p.jsonl"]


def test_an_output_that_exists_is_refused_before_any_work_and_replaced_with_force(
    circuit: Invoke, tmp_path: Path
) -> None:
    Path("out").mkdir()
    Path("out/diary.txt").write_text("mine")
    for extra in ((), ("--force",)):
        result = circuit("discover", "ioi", *QUICK, "--output", "out", *extra)
        assert result.exit_code == 2
        assert "out" in result.stderr
    assert Path("out/diary.txt").read_text() == "mine"
    assert circuit("discover", "ioi", *QUICK, "--output", "run", "--top", "2").exit_code == 0
    assert circuit("discover", "ioi", *QUICK, "--output", "run", "--top", "3", "--force").exit_code == 0
    assert len(read_run(tmp_path / "run").circuit["circuits"][0]["nodes"]) == 3


def test_a_disk_that_fills_is_one_message_and_leaves_nothing(
    circuit: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("circuits.runs.write_table", full)
    result = circuit("discover", "ioi", *QUICK, "--output", "deep/out")
    assert result.exit_code == 2
    assert "No space left" in result.stderr
    assert list(tmp_path.iterdir()) == []


# A polite kill goes the way of Ctrl-C from where it is caught.
@pytest.mark.parametrize("stop", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_ctrl_c_and_a_polite_kill_leave_nothing(tmp_path: Path, stop: signal.Signals) -> None:
    command = [
        sys.executable,
        "-c",
        "from cli.main import run; run()",
        "discover",
        "ioi",
        "--model",
        "planted-ioi",
    ]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a script, SIGINT is ignored, and children would inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("planted-ioi on ioi"):
            break
    time.sleep(0.2)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing was written" in said
    assert list(tmp_path.iterdir()) == []


def test_a_bad_amount_of_memory_is_refused_before_a_model_is_looked_for(circuit: Invoke) -> None:
    result = circuit("discover", "ioi", "--model", "./nowhere", "--memory", "much")
    assert result.exit_code == 2
    assert "'much'" in result.stderr
    assert "nowhere" not in result.stderr


def test_the_memory_asked_for_is_recorded_in_bytes(circuit: Invoke, tmp_path: Path) -> None:
    Path("c.yaml").write_text(
        "task: ioi\nmodel: planted-ioi\nmethod: logit-attribution\npairs: 24\nmemory: 1.5 GiB\n"
    )
    assert circuit("discover", "--config", "c.yaml", "--output", "a").exit_code == 0
    assert circuit("discover", "--config", "c.yaml", "--memory", "2GB", "--output", "b").exit_code == 0
    assert circuit("discover", "ioi", *QUICK, "--output", "c").exit_code == 0
    runs = [read_run(tmp_path / name).run for name in "abc"]
    assert [run["config"]["memory"] for run in runs] == [3 * 2**29, 2 * 10**9, None]
    assert {run["config"]["device"] for run in runs} == {"cpu"}
    assert all(run["cost"]["peak_memory_bytes"] > 50_000_000 for run in runs)


def test_a_dtype_that_the_device_lacks_is_refused_with_those_that_work(
    circuit: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8-bit floats stand in for a device's gap: no CPU multiplies them."""
    import torch

    monkeypatch.setattr("circuits.devices.DTYPES", {"float32": torch.float32, "float8": torch.float8_e4m3fn})
    result = circuit("discover", "ioi", *QUICK, "--dtype", "float8")
    assert result.exit_code == 2
    assert "Device cpu cannot compute in float8" in " ".join(result.stderr.split())
    assert "--dtype float32" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 9 bytes"
        ),
    ],
)
def test_memory_that_runs_out_is_one_message_and_leaves_nothing(
    error: Exception, circuit: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("cli.prompt_source.sample_task", full)
    result = circuit("discover", "ioi", *QUICK)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert "not enough memory" in result.stderr
    assert "--memory" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_is_exit_code_3(circuit: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise fault

    for fault in (ZeroDivisionError("inside"), RuntimeError("shapes differ")):
        monkeypatch.setattr("cli.prompt_source.sample_task", broken)
        result = circuit("discover", "ioi", *QUICK)
        assert result.exit_code == 3
        assert f"{type(fault).__name__}: {fault}" in result.stderr
        assert "Please report it" in result.stderr


def test_help_is_quick_because_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = "import sys; from cli.main import app; app(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = done.stdout.splitlines()[-1]
    for heavy in ("torch", "pandas", "numpy", "matplotlib", "transformers", "pydantic"):
        assert f"'{heavy}'" not in modules


OWN = ("discover", "--prompts", "p.jsonl")
NAMES = ("Lily", "Tim", "Timmy")


@pytest.mark.skipif(not (SHARED / "models" / "stories260K").is_dir(), reason="needs the shared models")
def test_a_real_llama_that_no_one_here_trained_copies_names(circuit: Invoke, tmp_path: Path) -> None:
    lines = []
    for kind in ("friend", "bird", "dog", "bear", "girl", "cat"):
        for i, name in enumerate(NAMES):
            other = NAMES[(i + 1) % 3]
            text = f"Once upon a time, there was a happy {kind} named {{}}. One day,"
            lines.append(
                {"clean": text.format(name), "corrupt": text.format(other), "answers": f" {name}",
                 "distractors": f" {other}", "positions": {"NAME": name}}
            )  # fmt: skip
    _prompts(*lines)
    model = SHARED / "models" / "stories260K"
    result = circuit(*OWN, "--model", model, "--method", "activation-patching", "-o", "out")
    assert result.exit_code == 0, result.output
    assert "prefers the answer on" in result.stderr
    run = read_run(tmp_path / "out")
    nodes = run.nodes.set_index("component")
    assert nodes.loc[nodes["kind"] == "head", "score"].idxmax() == "a2.h6"
    assert run.evaluation["baseline"]["preferred"]["value"] > 0.8


@pytest.mark.skipif(not (SHARED / "models" / "stories260K").is_dir(), reason="needs the shared models")
def test_a_model_that_does_not_solve_the_task_is_warned_of(circuit: Invoke) -> None:
    text = "{} saw {}. {} said to"
    lines = [
        {
            "clean": text.format(a, b, b),
            "corrupt": text.format(a, b, a),
            "answers": f" {a}",
            "distractors": f" {b}",
        }
        for a in NAMES
        for b in NAMES
        if a != b
    ]
    _prompts(*lines)
    model = SHARED / "models" / "stories260K"
    result = circuit(*OWN, "--model", model, "--method", "logit-attribution", "-o", "out")
    assert result.exit_code == 0, result.output
    assert "does not solve this task" in result.stderr
    assert "does not solve this task" in Path("out/report.md").read_text()


def test_the_autoencoder_of_a_run_can_be_reloaded(circuit: Invoke, tmp_path: Path) -> None:
    from circuits.sae import load

    options = ("--model", "planted-ioi", "--pairs", "24", "--method", "sae", "--set", "sae.trials=1")
    assert circuit("discover", "ioi", *options, "--output", "out").exit_code == 0
    trained, _ = load(tmp_path / "out" / "sae.safetensors")
    assert {tuple(t.shape) for t in trained.tensors().values()} >= {(200, 288), (288, 200)}
    codes = read_run(tmp_path / "out").codes
    assert codes is not None
    assert (codes.groupby("head")["positives"].sum() == 12).all()


def test_a_metric_that_is_no_number_names_the_prompt(circuit: Invoke, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(FOLDER / "planted-ioi", broken)
    weights = load_file(broken / "model.safetensors")
    weights["lm_head.weight"][:] = float("inf")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    result = circuit("discover", "ioi", *QUICK[2:], "--model", broken, "--output", "out")
    assert result.exit_code == 2, result.output
    words = " ".join(result.stderr.split())
    assert re.search(r"prompt \d+: the metric is nan on the clean prompt", words), words
    assert not (tmp_path / "out").exists()


def test_what_the_circuit_leaves_out_is_bounded_and_recorded(circuit: Invoke, tmp_path: Path) -> None:
    """Of the planted heads the gradient ranks those that matter first; two are kept, so the others are suspects."""
    asked = ("discover", "ioi", "--model", "planted-ioi", "--pairs", "16", "--method", "attribution-patching")
    result = circuit(*asked, "--top", "1", "--missed", "40", "--output", "out")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert "by 40 random subsets of them patched jointly on 8 prompts" in words
    found = read_run(tmp_path / "out").evaluation["methods"]["attribution-patching"]["missed"]
    assert len(found["bounds"]) == 20
    assert found["suspects"]
    assert found["suspects"][0]["bound"] == max(found["bounds"].values())
    assert "40 random subsets" in (tmp_path / "out" / "report.md").read_text()


def test_nothing_of_components_is_bounded_for_methods_of_edges(circuit: Invoke) -> None:
    result = circuit("discover", "ioi", "--method", "eap", "--missed", "40")
    assert result.exit_code == 2
    assert "--missed 40 is for methods that score components" in " ".join(result.stderr.split())
