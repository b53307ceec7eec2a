"""Copies of GPT-2 models that compute the same: heads permuted within their layers, a layer put between."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def permuted(source: Path, target: Path, seed: int = 0) -> dict[str, str]:
    """Saves a copy with the heads of each layer in another order. Returns head of the source -> its place there."""
    model = _model(source)
    generator = torch.Generator().manual_seed(seed)
    image = {}
    for layer, block in enumerate(model.transformer.h):
        order = torch.randperm(model.config.n_head, generator=generator)
        with torch.no_grad():
            _reorder(block.attn, order, model.config.n_head)
        image |= {f"a{layer}.h{old}": f"a{layer}.h{new}" for new, old in enumerate(order.tolist())}
    _save(model, source, target)
    return image


def deeper(source: Path, target: Path, behind: int) -> dict[str, str]:
    """Saves a copy with a layer more behind layer `behind`, whose heads and MLP look around and write nothing."""
    from transformers import AutoModelForCausalLM

    model = _model(source)
    model.config.n_layer += 1
    copy = AutoModelForCausalLM.from_config(model.config).eval()
    copy.transformer.wte, copy.transformer.wpe = model.transformer.wte, model.transformer.wpe
    copy.transformer.ln_f, copy.lm_head = model.transformer.ln_f, model.lm_head
    blocks = [*model.transformer.h]
    added = copy.transformer.h[-1]
    with torch.no_grad():
        for module in (added.attn.c_proj, added.mlp.c_proj):
            module.weight.zero_(), module.bias.zero_()
    copy.transformer.h = torch.nn.ModuleList([*blocks[: behind + 1], added, *blocks[behind + 1 :]])
    _save(copy, source, target)
    heads = range(model.config.n_head)
    return {f"a{x}.h{h}": f"a{x + (x > behind)}.h{h}" for x in range(len(blocks)) for h in heads}


def _reorder(attention: Any, order: Tensor, n_heads: int) -> None:
    def columns(values: Tensor) -> Tensor:
        return values.unflatten(-1, (3, n_heads, -1))[..., order, :].flatten(-3)

    for name in ("weight", "bias"):
        values = getattr(attention.c_attn, name)
        values.copy_(columns(values))
    out = attention.c_proj.weight
    out.copy_(out.unflatten(0, (n_heads, -1))[order].flatten(0, 1))


def _model(source: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source).eval()


def _save(model: Any, source: Path, target: Path) -> None:
    model.save_pretrained(target)
    for file in (*source.glob("tokenizer*"), *source.glob("special_tokens*")):
        shutil.copy(file, target)
