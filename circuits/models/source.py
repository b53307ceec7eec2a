"""From a --model value to a directory that can be loaded, without a network call where none is needed.

The one idea: a built-in name, a local directory and a hub name all become a local directory, which is checked
before the slow libraries are imported. What is missing is named.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from circuits.errors import ModelError
from circuits.models.builtin_models import FOLDER, builtin_names

TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",), ("spiece.model",))
HUB_FILES = ["*.json", "*.safetensors", "*.model", "merges.txt", "vocab.txt"]


@dataclass(frozen=True)
class ModelSource:
    """A directory to load, and what to call the model in reports ("plain-4l", "gpt2")."""

    name: str
    directory: Path
    builtin: bool = False


def find_model(model: str) -> ModelSource:
    """The directory behind `model`. Raises ModelError that says which of the three kinds failed and how."""
    if model in builtin_names():
        return ModelSource(model, FOLDER / model, builtin=True)
    path = Path(model).expanduser()
    if path.is_dir():
        check_directory(path)
        return ModelSource(path.resolve().name, path)
    if path.exists():
        raise ModelError(f"{model} is a file; --model takes the Hugging Face directory that holds it.")
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelError(f"There is no directory {model}. Built-in models: {', '.join(builtin_names())}.")
    return ModelSource(model, _from_hub(model))


def check_directory(path: Path) -> None:
    """Raises ModelError that lists every file that `path` lacks to be a loadable model directory."""
    missing = []
    if not (path / "config.json").is_file():
        missing.append("config.json")
    if not any(path.glob("*.safetensors")) and not any(path.glob("pytorch_model*.bin")):
        missing.append("weights (model.safetensors)")
    if not any(all((path / f).is_file() for f in files) for files in TOKENIZER_FILES):
        missing.append("a tokenizer (tokenizer.json, or vocab.json with merges.txt, or tokenizer.model)")
    if missing:
        raise ModelError(
            f"{path} is not a complete Hugging Face model directory: it lacks {'; '.join(missing)}. "
            "Save both with model.save_pretrained(dir) and tokenizer.save_pretrained(dir)."
        )
    try:
        json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path / 'config.json'} is not valid JSON: {error}.") from None
    _check_weights(path)


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as weights:
                weights.keys()
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{file} cannot be read ({error}): it is truncated or no safetensors file. Copy or download it again."
            ) from None


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    close = difflib.get_close_matches(name, builtin_names(), n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    built_in = f"Built-in models, which need no network: {', '.join(builtin_names())}."
    try:
        directory = Path(snapshot_download(name, allow_patterns=HUB_FILES, etag_timeout=10))
    except GatedRepoError:
        raise ModelError(
            f"{name} is gated on the Hugging Face hub: accept its licence there, then log in."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(f"There is no model {name!r} on the Hugging Face hub.{hint} {built_in}") from None
    except Exception as error:
        reason = str(error).splitlines()[0].strip().rstrip(".:")
        raise ModelError(
            f"{name!r} is neither built in nor a directory, and the Hugging Face hub cannot give it: {reason}.{hint} "
            f"{built_in} Or give a local directory: --model ./my-model."
        ) from None
    check_directory(directory)
    return directory


def n_parameters(directory: Path) -> int:
    """How many numbers the weight files hold, by their headers; pickled files are taken to hold 32-bit numbers."""
    from safetensors import safe_open

    # A repository may hold its weights a second time, under another name and in another layout.
    files = sorted(directory.glob("model*.safetensors")) or sorted(directory.glob("*.safetensors"))
    if not files:
        return sum(file.stat().st_size for file in directory.glob("pytorch_model*.bin")) // 4
    total = 0
    for file in files:
        with safe_open(file, framework="numpy") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total


def weights_hash(directory: Path) -> str:
    """SHA-256 over the weight files and the config, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(
        [*directory.glob("*.safetensors"), *directory.glob("*.bin"), directory / "config.json"]
    ):
        known = file.stat()
        digest.update(_file_hash(file, known.st_size, known.st_mtime_ns))
    return digest.hexdigest()


@cache
def _file_hash(file: Path, size: int, changed: int) -> bytes:
    """Of a file as it was then: a study asks for each of its cells, and large weights take minutes to read."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
