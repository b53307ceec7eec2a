"""Writes a network as a Hugging Face GPT-2 directory, and reads one back.

The one idea: the weights are HF's GPT2LMHeadModel's under other names; HF stores matrices as [in, out] and
query, key and value side by side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from circuits.errors import ModelError
from tasks.training.network import Network, Shape
from tasks.training.vocabulary import save_tokenizer

_LINEAR = {"attn.c_proj": "out", "mlp.c_fc": "up", "mlp.c_proj": "down"}
_QKV = ("query", "key", "value")


def to_hugging_face(network: Network) -> dict[str, Tensor]:
    """Name -> weight, as GPT2LMHeadModel names and lays them out; the tied lm_head is left out."""
    own = network.state_dict()
    named = {
        f"transformer.{name}": own[name] for name in ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")
    }
    for layer in range(network.shape.n_layers):
        mine, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            for kind in ("weight", "bias"):
                named[f"{theirs}.{norm}.{kind}"] = own[f"{mine}.{norm}.{kind}"]
        for target, source in _LINEAR.items():
            named[f"{theirs}.{target}.weight"] = own[f"{mine}.{source}.weight"].T
            named[f"{theirs}.{target}.bias"] = own[f"{mine}.{source}.bias"]
        named[f"{theirs}.attn.c_attn.weight"] = torch.cat([own[f"{mine}.{p}.weight"].T for p in _QKV], 1)
        named[f"{theirs}.attn.c_attn.bias"] = torch.cat([own[f"{mine}.{p}.bias"] for p in _QKV])
    return {name: weight.detach().float().contiguous().clone() for name, weight in named.items()}


def _from_hugging_face(named: dict[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    own = {
        name: named[f"transformer.{name}"]
        for name in ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")
    }
    for layer in range(shape.n_layers):
        mine, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            for kind in ("weight", "bias"):
                own[f"{mine}.{norm}.{kind}"] = named[f"{theirs}.{norm}.{kind}"]
        for source, target in _LINEAR.items():
            own[f"{mine}.{target}.weight"] = named[f"{theirs}.{source}.weight"].T
            own[f"{mine}.{target}.bias"] = named[f"{theirs}.{source}.bias"]
        weights = torch.chunk(named[f"{theirs}.attn.c_attn.weight"], 3, 1)
        biases = torch.chunk(named[f"{theirs}.attn.c_attn.bias"], 3)
        for part, weight, bias in zip(_QKV, weights, biases, strict=True):
            own[f"{mine}.{part}.weight"], own[f"{mine}.{part}.bias"] = weight.T, bias
    return own


def config(shape: Shape, n_vocab: int) -> dict[str, object]:
    """config.json of a GPT2LMHeadModel without dropout."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_layer": shape.n_layers,
        "n_head": shape.n_heads,
        "n_embd": shape.d_model,
        "n_inner": 4 * shape.d_model,
        "n_positions": shape.n_ctx,
        "n_ctx": shape.n_ctx,
        "vocab_size": n_vocab,
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }


def save_model(network: Network, folder: Path, known: Sequence[str] | None = None) -> None:
    """Writes config.json, model.safetensors and the tokenizer of the words `known` to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = config(network.shape, network.wte.num_embeddings)
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    save_file(to_hugging_face(network), folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors writes a file for its owner alone; a model is for whoever may read the folder.
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode & 0o777)
    save_tokenizer(folder, known)


def load_network(folder: Path) -> Network:
    """The network that `save_model` wrote to `folder`. Raises ModelError where there is none."""
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"{folder} holds no model (config.json, model.safetensors). Train one with circuit train."
        )
    settings = json.loads((folder / "config.json").read_text())
    shape = Shape(settings["n_layer"], settings["n_head"], settings["n_embd"], settings["n_positions"])
    network = Network(shape, settings["vocab_size"])
    network.load_state_dict(_from_hugging_face(load_file(folder / "model.safetensors"), shape))
    return network.eval()
