"""`circuit tune` as a user runs it: a model that can be loaded, whose other heads are what they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file
from typer.testing import CliRunner

from circuits.models.bridge import load_model
from circuits.models.builtin_models import FOLDER
from cli.main import app

Invoke = Callable[..., Result]
HEADS = ("--head", "a2.h1", "--head", "a1.h4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the planted model, on few prompts. Read-only."""
    path = tmp_path_factory.mktemp("runs") / "run"
    options = ("--model", "planted-ioi", "--pairs", "16", "--top", "4", "--method", "logit-attribution")
    result = CliRunner().invoke(app, ["discover", "ioi", *options, "--output", str(path)])
    assert result.exit_code == 0, result.output
    return path


def test_a_tuned_model_is_a_model_and_its_folder_is_the_same_byte_for_byte(
    circuit: Invoke, made: Path
) -> None:
    words = ("tune", made, *HEADS, "--epochs", "1", "--task", "ioi", "--pairs", "4")
    for name in ("one", "two"):
        result = circuit(*words, "--output", name, "--json")
        assert result.exit_code == 0, result.output
    one, two = ({p.name: p.read_bytes() for p in Path(name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tune.json",
        "tune.csv",
        "report.md",
        "report.html",
        "tune.png",
    } <= set(one)
    assert "card.json" not in one
    record = json.loads(result.stdout)
    assert [found["task"] for found in record["results"]] == ["ioi", "ioi"]
    assert [len(found["control"]["drawn"]) for found in record["results"]] == [5, 5]
    assert record["heads"] == ["a2.h1", "a1.h4"]
    before, after = (
        load_file(place / "model.safetensors") for place in (FOLDER / "planted-ioi", Path("one"))
    )
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    assert differing <= {
        f"transformer.h.{n}.attn.{part}.weight" for n in (1, 2) for part in ("c_attn", "c_proj")
    }
    assert differing
    tokens = torch.zeros(1, 4, dtype=torch.long)
    load_model("one").run(tokens)
    again = circuit(*words, "--output", "one")
    assert (again.exit_code, "pass --force" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning-rate", "0"], "--learning-rate 0.0 is no step size"),
        (["--head", "a9.h1"], "a9.h1 is not in this model"),
        (["--head", "m1"], "m1 is no head"),
        (["--task", "iio"], "Did you mean 'ioi'?"),
    ],
)
def test_a_mistake_is_one_message(
    words: list[str], message: str, circuit: Invoke, made: Path, tmp_path: Path
) -> None:
    result = circuit("tune", made, *words, "--output", "out")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []
