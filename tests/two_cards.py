"""Runs a tiny model on two cards that do not exist; `python two_cards.py DIRECTORY ...` says "ok" for each or fails.

torch's fake tensors have a device and no values: an operation between two devices fails as on real cards. The
cards are of a made-up kind, registered for the whole process, so the tests start this file as a program. Values
on several devices are compared in test_bridge.py, with weights on the CPU and on disk.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import accelerate
import torch
import transformers
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from transformer_lens.model_bridge import TransformerBridge

from circuits.model import Edit, Site
from circuits.models.bridge import BridgeModel
from circuits.models.source import ModelSource

SITES = (Site("input"), *(Site(kind, layer) for layer in range(3) for kind in ("z", "mlp")), Site("final"))


def _put(module: Any, name: str, device: str, *_: Any, **__: Any) -> None:
    """What accelerate does to place a tensor, which it cannot do with a fake one."""
    owner, _, leaf = name.rpartition(".")
    owner = module.get_submodule(owner)
    table = owner._parameters if leaf in owner._parameters else owner._buffers
    moved = table[leaf].detach().to(device)
    table[leaf] = moved if table is owner._buffers else torch.nn.Parameter(moved, requires_grad=False)


def _on_two_cards(model: Any) -> None:
    """Layer 0 and the embeddings on the first card, the rest on the second; tied weights stay together."""
    body = next(iter(dict(model.named_children())))
    blocks = "h" if hasattr(model.get_submodule(body), "h") else "layers"
    places = {
        f"{body}.{name}": f"card:{int(name in ('ln_f', 'norm'))}"
        for name, _ in model.get_submodule(body).named_children()
        if name != blocks
    }
    places |= {f"{body}.{blocks}.{layer}": f"card:{min(layer, 1)}" for layer in range(3)}
    places["lm_head"] = "card:0" if model.config.tie_word_embeddings else "card:1"
    accelerate.hooks.set_module_tensor_to_device = _put
    accelerate.dispatch_model(model, device_map=places, force_hooks=True)


def _patched(model: BridgeModel) -> Edit:
    """An edit as patching makes them: mask and donor lie on the model's device."""

    def edit(value: Tensor) -> Tensor:
        mask = torch.ones(value.shape, device=model.device) > 0
        return torch.where(mask, value, torch.zeros(value.shape, device=model.device))

    return edit


def check(model: BridgeModel) -> None:
    """Everything that goes in or comes out lies on the first card."""
    assert model.spread, model.devices
    assert [str(d) for d in model.devices] == ["card:0", "card:1"]
    tokens = torch.tensor([[2, 3, 4], [5, 6, 7]])
    run = model.run(tokens, capture=SITES, edit=dict.fromkeys(SITES, _patched(model)))
    out = [run.logits, *run.captured.values(), *model.head_writer(0), *model.head_writer(2)]
    unembedding = model.unembedding()
    out += [unembedding.weight, unembedding.bias]
    assert {str(value.device) for value in out} == {"card:0"}, [value.device for value in out]
    assert len(run.captured) == len(SITES)


def _stay(
    site: Site, home: object, change: Edit, kept: dict[Site, Tensor], value: Tensor, hook: object
) -> Tensor:
    kept[site] = value = change(value)
    return value


def load(directory: Path) -> BridgeModel:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    config = transformers.AutoConfig.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    _on_two_cards(model)
    bridge = TransformerBridge.boot_transformers(str(directory), hf_model=model, tokenizer=tokenizer)
    bridge.eval().requires_grad_(False)
    return BridgeModel(ModelSource("two-cards", directory), bridge, tokenizer, memory=2**30)


def main(directory: Path) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = load(directory)
        check(model)
        with patch("circuits.models.bridge._pass", _stay):  # the check must be able to fail
            try:
                check(model)
            except FakeTensorDeviceMismatchError:
                print("ok")


if __name__ == "__main__":
    _setup_privateuseone_for_python_backend("card")
    for argument in sys.argv[1:]:
        main(Path(argument))
