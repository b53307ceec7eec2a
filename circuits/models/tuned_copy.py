"""A copy of a Hugging Face directory in which the matrices of a few heads differ, and no other byte of a tensor.

The one idea: heads lie in files as architectures lay them out (GPT-2 side by side and [in, out], NeoX head by head,
Llama and its kin [out, in], one file entry a matrix), so a change by head is added to a view of the right entry.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import ModelError
from circuits.graph import Node

LLAMA_KIN = ("llama", "mistral", "qwen2", "qwen3", "gemma")
COPIED = ("*.json", "*.txt", "*.model", "*.jinja")
NOT_COPIED = ("card.json", "pytorch_model.bin.index.json")


def write_tuned(
    directory: Path,
    folder: Path,
    heads: Sequence[Node],
    changes: Mapping[tuple[int, str], Float[Tensor, "_ _"]],
    d_head: int,
) -> None:
    """Writes the model of `directory` to `folder` with `changes` (circuits.tuning.head_weights) added.

    Raises ModelError where the weights lie in no safetensors file, or are laid out in a way that is not known.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    kind = str(json.loads((directory / "config.json").read_text(encoding="utf-8")).get("model_type"))
    files = sorted(directory.glob("model*.safetensors")) or sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelError(
            f"{directory} holds no safetensors file. Save the model with safe_serialization=True."
        )
    wanted: dict[str, list[tuple[int, str]]] = {}
    for layer, part in changes:
        wanted.setdefault(entry(kind, layer, part), []).append((layer, part))
    missing = set(wanted)
    for file in files:
        with safe_open(file, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            metadata = stored.metadata()
        for name, tensor in tensors.items():
            for ending in [e for e in wanted if name == e or name.endswith(f".{e}")]:
                missing.discard(ending)
                for layer, part in wanted[ending]:
                    here = [head for head in heads if head.layer == layer]
                    _add(kind, tensor, part, here, changes[layer, part], d_head)
        save_file(tensors, folder / file.name, metadata=metadata)
        (folder / file.name).chmod(file.stat().st_mode & 0o777 | 0o600)
    if missing:
        raise ModelError(f"{directory} holds no {', '.join(sorted(missing))}, which the tuned heads lie in.")
    for pattern in COPIED:
        for path in sorted(directory.glob(pattern)):
            if path.name not in NOT_COPIED:
                shutil.copyfile(path, folder / path.name)


def entry(kind: str, layer: int, part: str) -> str:
    """How the name of the entry ends that a matrix lies in. Raises ModelError for a layout that is not known."""
    if kind == "gpt2":
        return f"h.{layer}.attn.{'c_proj' if part == 'out' else 'c_attn'}.weight"
    if kind == "gpt_neox":
        return f"layers.{layer}.attention.{'dense' if part == 'out' else 'query_key_value'}.weight"
    if kind in LLAMA_KIN:
        return f"layers.{layer}.self_attn.{part[0]}_proj.weight"
    raise ModelError(
        f"How models of type {kind} lay out their heads is not known; tuning knows gpt2, gpt_neox, "
        f"{', '.join(LLAMA_KIN)}."
    )


def _add(
    kind: str, tensor: Tensor, part: str, heads: Sequence[Node], change: Float[Tensor, "_ _"], d_head: int
) -> None:
    """Adds in place, head by head."""
    matrix = tensor if kind == "gpt2" else tensor.T  # [in, out]
    for place, head in enumerate(sorted(heads, key=lambda head: head.index)):
        start = place * d_head
        if part == "out":
            matrix[head.index * d_head :][:d_head] += change[start : start + d_head].to(tensor)
        else:
            column = _column(kind, part, head.index, matrix.shape, d_head)
            matrix[:, column : column + d_head] += change[:, start : start + d_head].to(tensor)


def _column(kind: str, part: str, head: int, shape: torch.Size, d_head: int) -> int:
    """Where the head's columns begin in its entry."""
    number = ("query", "key", "value").index(part)
    if kind == "gpt2":
        return number * (shape[1] // 3) + head * d_head
    if kind == "gpt_neox":
        return (3 * head + number) * d_head
    return head * d_head
