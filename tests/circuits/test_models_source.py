"""--model: what cannot be loaded is refused with the reason and the way out, and soon."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import read_model

from circuits.errors import ModelError
from circuits.models.bridge import load_model
from circuits.models.builtin_models import builtin_names
from circuits.models.source import find_model, n_parameters, weights_hash


@pytest.fixture
def copy(tmp_path: Path, directory: Callable[[str], Path]) -> Path:
    """A model directory to damage."""
    return Path(shutil.copytree(directory("tiny-gpt2"), tmp_path / "mine"))


def refusal(model: object) -> str:
    with pytest.raises(ModelError) as refused:
        load_model(str(model))
    return str(refused.value)


def test_a_whole_directory_is_named_by_its_last_part(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model(str(copy)).name == "mine"
    assert find_model(f"{copy}/").name == "mine"
    monkeypatch.chdir(copy)
    assert find_model(".").name == "mine"
    assert not find_model(".").builtin


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_names_come_first(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_model(name).builtin
    assert (find_model(name).directory / "config.json").is_file()


def test_a_relative_directory_named_like_a_hub_alias_is_the_directory(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TransformerLens knows "opt" and "neox" as names of models on the hub."""
    copy.rename(copy.parent / "opt")
    monkeypatch.chdir(copy.parent)
    assert load_model("./opt").graph.n_layers == 3
    assert load_model("opt").name == "opt"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", "lacks config.json"),
        ("model.safetensors", "lacks weights"),
        ("tokenizer.json", "lacks a tokenizer"),
    ],
)
def test_a_missing_file_is_named(copy: Path, file: str, said: str) -> None:
    (copy / file).unlink()
    message = refusal(copy)
    assert said in message
    assert "save_pretrained" in message


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert all(part in message for part in ("config.json", "weights", "a tokenizer"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_weights_are_named(copy: Path, share: float) -> None:
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    message = refusal(copy)
    assert "model.safetensors cannot be read" in message
    assert "truncated or no safetensors file" in message


def test_weights_that_the_files_lack_are_no_random_numbers(copy: Path) -> None:
    """transformers only warns, and fills them at random."""
    weights = load_file(copy / "model.safetensors")
    lost = [name for name in weights if name.endswith("h.1.mlp.c_fc.weight")]
    save_file(
        {k: v for k, v in weights.items() if k not in lost}, copy / "model.safetensors", {"format": "pt"}
    )
    assert lost[0] in refusal(copy)
    assert "lack 1 of the model's tensors" in refusal(copy)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"n_embd": 64}))
    assert "cannot load" in refusal(copy)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "config.json is not valid JSON"),
        ("", "config.json is not valid JSON"),
        ("[]", "cannot load"),
        ("{}", "cannot load"),
        ('{"model_type": "no-such-model"}', "cannot load"),
    ],
)
def test_a_bad_config_is_named(copy: Path, text: str, said: str) -> None:
    (copy / "config.json").write_text(text)
    assert said in refusal(copy)


def test_a_tokenizer_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{")
    assert "cannot load" in refusal(copy)


def test_a_file_is_no_directory(copy: Path) -> None:
    assert "is a file; --model takes the Hugging Face directory that holds it" in refusal(
        copy / "config.json"
    )


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "../nowhere", "a/b/c"])
def test_a_missing_path_is_no_hub_name(path: str) -> None:
    message = refusal(path)
    assert message.startswith(f"There is no directory {path}.")
    assert "planted-ioi" in message


@pytest.mark.parametrize("name", ["no-such-model", "no-one/no-such-model", "no such model!", "plantd-ioi"])
def test_an_unknown_hub_name_without_network_fails_soon_and_says_what_there_is(name: str) -> None:
    find_model("planted-ioi")
    start = time.perf_counter()
    message = refusal(name)
    assert time.perf_counter() - start < 3
    assert name in message
    assert "planted-ioi" in message
    assert ("Did you mean 'planted-ioi'?" in message) == (name == "plantd-ioi")


def test_the_numbers_in_the_weight_files_are_counted_without_loading_them(
    copy: Path, directory: Callable[[str], Path]
) -> None:
    model = read_model(copy)
    n = sum(p.numel() for p in model.parameters())
    assert n_parameters(copy) == n
    (copy / "consolidated.safetensors").write_bytes((copy / "model.safetensors").read_bytes())
    assert n_parameters(copy) == n
    model.save_pretrained(copy / "shards", max_shard_size="20KB")
    assert len(list((copy / "shards").glob("*.safetensors"))) > 1
    assert n_parameters(copy / "shards") == n
    (copy / "pickled").mkdir()
    torch.save(model.state_dict(), copy / "pickled" / "pytorch_model.bin")
    assert n_parameters(copy / "pickled") == pytest.approx(n, rel=0.2)


def test_the_hash_is_of_weights_and_config(copy: Path, directory: Callable[[str], Path]) -> None:
    original = weights_hash(directory("tiny-gpt2"))
    assert weights_hash(copy) == original
    (copy / "notes.txt").write_text("x")
    assert weights_hash(copy) == original
    (copy / "config.json").write_text("{}")
    assert weights_hash(copy) != original


def test_a_local_directory_is_never_looked_up_on_the_network(
    directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trap(*where: object) -> None:
        raise AssertionError(f"a network call to {where}")

    monkeypatch.setattr("socket.getaddrinfo", trap)
    monkeypatch.setattr("socket.socket.connect", trap)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert load_model(str(directory("tiny-gpt2"))).graph.n_layers == 3
