"""`circuit subspace` as a user runs it: tables, the folder, JSON, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from safetensors.torch import load_file

Invoke = Callable[..., Result]
QUICK = ("subspace", "planted-ioi", "--task", "ioi", "--pairs", "16", "--epochs", "1")
KNOB = (
    "subspace", "plain-4l", "--task", "factual-recall", "--form", "counterfactual-context", "--pairs", "24",
    "--epochs", "1", "--knob",
)  # fmt: skip


def test_the_folder_is_the_same_byte_for_byte_and_says_what_the_terminal_says(circuit: Invoke) -> None:
    shown = [
        circuit(*QUICK, "--at", "resid_post.1/END", "--rank", "1", "--rank", "2", "--output", name)
        for name in ("one", "two")
    ]
    assert [result.exit_code for result in shown] == [0, 0], shown[0].output
    one, two = ({p.name: p.read_bytes() for p in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert set(one) == {
        "subspace.json",
        "prompts.jsonl",
        "effects.csv",
        "directions.safetensors",
        "report.md",
        "report.html",
        "subspace.png",
    }
    kept = json.loads(one["subspace.json"])
    assert [each["rank"] for each in kept["alignments"]] == [1, 2]
    assert kept["alignments"][0]["split"]["readers"][:2] == ["a2.h1<q>", "a2.h3<q>"]
    table = pd.read_csv("one/effects.csv")
    line = table[(table["rank"] == 2) & (table["patched"] == "learned")].iloc[0]
    assert line["fldd"] == pytest.approx(kept["alignments"][1]["effects"]["learned"]["fldd"]["value"])
    assert load_file("one/directions.safetensors")["rank-2"].shape == (kept["dimensions"], 2)
    report = one["report.md"].decode()
    words = " ".join(shown[0].stdout.split())
    for sentence in report.split("\n\n"):
        if sentence.startswith(("Learned on", "Read by", "Genuine")):
            assert sentence in words


def test_a_knob_finds_its_own_site_and_is_swept(circuit: Invoke) -> None:
    result = circuit(*KNOB, "--json")
    assert result.exit_code == 0, result.output
    kept = json.loads(result.stdout)
    layers = [layer for found in kept["layer_search"].values() for layer in found["layers"]]
    assert kept["site"] == f"resid_post.{max(layers)}"
    assert kept["pairs_left_out"] + kept["n_learned"] + kept["n_judged"] == 24
    sweep = kept["steering"]["sweep"]
    assert [each["c"] for each in sweep] == sorted(each["c"] for each in sweep)
    assert kept["steering"]["unsteered"]["memory"] == 1
    assert len(kept["steering"]["pair_accuracy_random"]) == 20


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--at", "resid_post.1/END", "--rank", "99999"],
            "99999 dimensions does not fit in resid_post.1/END, which has",
        ),
        (["--at", "resid_post.9/END"], "there is no layer 9; the model has layers 0 to 2"),
        (["--at", "resid_post.1/NOWHERE"], "names NOWHERE: they name"),
        (["--at", "neuron.1/END"], "no kind of site 'neuron'"),
        ([], "Say where with --at"),
        (["--at", "resid_post.1/END", "--reader", "a7.h0"], "it has 3 layers x 6 heads"),
        (
            ["--at", "resid_post.1/END", "--reader", "a7.h0<q>"],
            "Nothing reads as 'a7.h0<q>' in a model of 3 layers",
        ),
        (["--at", "resid_post.1/END", "--reader", "a1.h0"], "a1.h0 reads before resid_post.1/END is written"),
        (["--at", "mlp_post.1/END", "--reader", "a2.h0"], "Leave --reader out"),
        (["--at", "resid_post.0/S2", "--reader", "logits"], "reads the last token alone"),
        (["--at", "resid_post.1/END", "--corruption", "abc"], "Choose a corruption that flips the answer"),
        (["--at", "resid_post.1/END", "--knob", "--rank", "2"], "--knob turns one direction"),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(
    circuit: Invoke, tmp_path: Path, options: list[str], says: str
) -> None:
    result = circuit(*QUICK, *options, "--output", "made")
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []
