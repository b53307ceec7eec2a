"""Which models the engine can run, and where their matrices lie.

The one idea: TransformerLens's bridge names the parts of every architecture alike (blocks, ln1, attn.q, mlp.in),
so one reader serves them all; a list says for which model types its assumptions hold, and a probe at load
(circuits.engine.check) has the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from circuits.engine.weights import Affine, Layer, Norm, Weights

MODEL_TYPES = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma")
"""Hugging Face model types whose forward pass is the one of circuits.engine.forward."""

CHANGING_ROTATIONS = ("dynamic", "longrope")
"""Rotary codes that depend on the length of the prompt, so that keys of a prefix cannot be kept."""


def read_weights(bridge: Any) -> Weights | None:
    """The weights of a bridged model, as views of its own; None where the engine does not know the architecture."""
    config = bridge.original_model.config
    rotary = _plain(getattr(bridge, "rotary_emb", None))
    if config.model_type not in MODEL_TYPES or getattr(rotary, "rope_type", "") in CHANGING_ROTATIONS:
        return None
    cfg = bridge.cfg
    d_head = int(bridge.blocks[0].attn.W_O.shape[1])
    window = getattr(config, "sliding_window", None)
    return Weights(
        layers=tuple(_layer(config, block, d_head, n) for n, block in enumerate(bridge.blocks)),
        n_heads=int(cfg.n_heads),
        n_kv_heads=int(cfg.n_key_value_heads or cfg.n_heads),
        d_model=int(cfg.d_model),
        d_head=d_head,
        parallel=bool(cfg.parallel_attn_mlp),
        longest=min(int(cfg.n_ctx), int(window or cfg.n_ctx)),
        embed=_embedding(bridge),
        rotation=None if rotary is None else _rotation(rotary, bridge.W_U.device),
        final_norm=_norm(bridge.ln_final, config),
        unembed=_affine(bridge.unembed),
        positions=_positions(bridge),
    )


def _layer(config: Any, block: Any, d_head: int, depth: int) -> Layer:
    attention, mlp = block.attn, block.mlp
    scale = getattr(_plain(attention), "scaling", d_head**-0.5)
    return Layer(
        attention_norm=_norm(block.ln1, config),
        query=_affine(attention.q),
        key=_affine(attention.k),
        value=_affine(attention.v),
        out=_affine(attention.o),
        mlp_norm=_norm(block.ln2, config),
        mlp_in=_affine(getattr(mlp, "in")),
        mlp_out=_affine(mlp.out),
        activation=_activation(_plain(mlp)),
        scale=float(scale),
        gate=_affine(mlp.gate) if hasattr(mlp, "gate") else None,
        joint=_affine(attention.qkv) if config.model_type == "gpt2" else None,
        query_norm=_norm(attention.q_norm, config) if hasattr(attention, "q_norm") else None,
        key_norm=_norm(attention.k_norm, config) if hasattr(attention, "k_norm") else None,
    )


def _plain(module: Any) -> Any:
    """The Hugging Face module behind a bridge's."""
    while module is not None and getattr(module, "original_component", None) is not None:
        module = module.original_component
    return module


def _affine(module: Any) -> Affine:
    """A Linear keeps [out, in], GPT-2's Conv1D [in, out]."""
    plain = _plain(module)
    weight = plain.weight.detach()
    if isinstance(plain, torch.nn.Linear):
        weight = weight.T
    bias = getattr(plain, "bias", None)
    return Affine(weight, None if bias is None else bias.detach())


def _norm(module: Any, config: Any) -> Norm:
    plain = _plain(module)
    gain, bias = plain.weight.detach().float(), getattr(plain, "bias", None)
    gain = gain + 1.0 if config.model_type == "gemma" else gain
    eps = getattr(plain, "eps", None) or plain.variance_epsilon
    return Norm(
        gain,
        None if bias is None else bias.detach().float(),
        float(eps),
        isinstance(plain, torch.nn.LayerNorm),
    )


def _activation(mlp: Any) -> Callable[[Tensor], Tensor]:
    activation = getattr(mlp, "act", None) or mlp.act_fn
    return _plain(activation)  # type: ignore[no-any-return]


def _embedding(bridge: Any) -> Callable[[Tensor], Tensor]:
    """Tokens, and positions where they are embedded."""
    tokens, positions = _plain(bridge.embed), _positions(bridge)

    def embed(ids: Tensor) -> Tensor:
        embedded: Tensor = tokens(ids).float()
        return embedded if positions is None else embedded + positions[: ids.shape[1]].float()

    return embed


def _positions(bridge: Any) -> Tensor | None:
    module = _plain(getattr(bridge, "pos_embed", None))
    return None if module is None else module.weight.detach()


def _rotation(rotary: Any, device: torch.device) -> Callable[[int], tuple[Tensor, Tensor]]:
    """cos and sin of every position, taken from the model's own rotary module."""

    @cache
    def rotation(length: int) -> tuple[Tensor, Tensor]:
        # Kept for all later runs, those with gradients too, so no inference tensors whoever asks first.
        with torch.inference_mode(False), torch.no_grad():
            cos, sin = rotary(torch.zeros(1, device=device), torch.arange(length, device=device)[None])
        return cos[0], sin[0]

    return rotation
