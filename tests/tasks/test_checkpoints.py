"""Checkpoints of a training: the model on its way, and the same model at the end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from circuits.over_training.checkpoints import find_checkpoints
from tasks.training.checkpoints import Checkpoints, Steps, parse_steps
from tasks.training.export import load_network
from tasks.training.judged import Judged
from tasks.training.loop import Trainer
from tasks.training.network import Network, Shape
from tasks.training.recipe import RECIPES, Recipe


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _recipe(*steps: int) -> Recipe:
    plain = RECIPES["plain-4l"]
    stages = [
        dataclasses.replace(
            plain.stages[0], name=f"stage {n}", max_steps=most, rows={"pairs": 3, "repeats": 2}
        )
        for n, most in enumerate(steps)
    ]
    return dataclasses.replace(plain, shape=Shape(n_layers=1), stages=tuple(stages))


def _weights(network: Network) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def test_a_checkpoint_is_the_model_of_so_many_steps_and_changes_nothing(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, Steps(2))
    trainer = Trainer(_recipe(3, 2), 5)
    network = trainer.run(after_step=kept.after_step)
    kept.finish(network, trainer.progress.stages, {"model": "tiny"})
    alone = Trainer(_recipe(3, 2), 5).run()
    assert torch.equal(_weights(network), _weights(alone))
    found = find_checkpoints(tmp_path)
    assert found.steps == (0, 2, 4, 5)
    assert found.stages == {"stage 0": 3, "stage 1": 2}
    assert json.loads((tmp_path / "checkpoints.json").read_text())["steps"] == [0, 2, 4, 5]
    last, first = found.checkpoints[-1], found.checkpoints[0]
    assert torch.equal(_weights(load_network(last.directory)), _weights(alone))
    assert torch.equal(_weights(load_network(first.directory)), _weights(Trainer(_recipe(1), 5).network))
    # A training that ends there, which draws the same rows up to then.
    short = Trainer(_recipe(2), 5).run()
    assert torch.equal(_weights(load_network(found.checkpoints[1].directory)), _weights(short))


def test_the_command_writes_both_folders_and_the_same_model_without_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from cli.main import app
    from tasks.training import build

    tiny = dataclasses.replace(_recipe(2, 1), judged=Judged((), {}))
    monkeypatch.setattr(build, "RECIPES", {"plain-4l": tiny})
    monkeypatch.chdir(tmp_path)
    words = ["train", "plain-4l", "--seed", "5"]
    for more in (["--output", "kept", "--checkpoints", "steps", "--at", "0,1"], ["--output", "alone"]):
        result = CliRunner().invoke(app, [*words, *more])
        assert result.exit_code == 0, result.output
    kept, alone, last = (Path(name, "model.safetensors") for name in ("kept", "alone", "steps/step-000003"))
    assert kept.read_bytes() == alone.read_bytes() == last.read_bytes()
    assert find_checkpoints(Path("steps")).steps == (0, 1, 3)
    again = CliRunner().invoke(app, [*words, "--output", "other", "--checkpoints", "steps"])
    assert again.exit_code == 2
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("every", "at", "wanted"),
    [(None, None, {0, 100, 200}), (50, None, {0, 50, 100, 150, 200}), (None, "0, 7,120", {0, 7, 120})],
)
def test_steps_are_those_that_were_asked_for(every: int | None, at: str | None, wanted: set[int]) -> None:
    steps = parse_steps(every, at)
    assert {step for step in range(201) if step in steps} == wanted
