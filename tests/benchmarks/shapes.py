"""Random models at real shapes, and aligned random prompts: what the benchmarks run on.

Weights are random, so nothing here says how good a method is; time, memory and exactness do not hang on that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_models import write_tokenizer
from torch import Tensor

from circuits.batches import Batch, TokenPair

SHAPES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "gpt2-small": lambda t: (t.GPT2LMHeadModel, t.GPT2Config()),
    "gpt2-xl": lambda t: (t.GPT2LMHeadModel, t.GPT2Config(n_embd=1600, n_layer=48, n_head=25)),
    # In the proportions of small Llamas: four query heads to a key-value head.
    "llama-gqa": lambda t: (
        t.LlamaForCausalLM,
        t.LlamaConfig(
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=8,
            num_attention_heads=12,
            num_key_value_heads=3,
            vocab_size=32000,
        ),
    ),
    "llama-8b": lambda t: (
        t.LlamaForCausalLM,
        t.LlamaConfig(
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            vocab_size=128256,
            max_position_embeddings=2048,
        ),
    ),
}


def write_shape(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A Hugging Face directory of that shape with random weights; written once."""
    import transformers

    directory = folder / f"{name}-{str(dtype).removeprefix('torch.')}"
    if not (directory / "tokenizer.json").exists():
        kind, config = SHAPES[name](transformers)
        config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
        torch.manual_seed(0)
        kind(config).to(dtype).save_pretrained(directory)
        write_tokenizer(directory)
    return directory


@dataclass(frozen=True)
class Prompts:
    """n random prompts of `length` tokens, clean and corrupt alike before column `first`, and at the last."""

    n: int
    length: int
    first: int

    def batch(self, vocab_size: int, device: torch.device | None = None, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randint(1, vocab_size, shape, generator=generator)

        clean = draw(self.n, self.length)
        corrupt = clean.clone()
        changed = slice(self.first, self.length - 1)
        shift = torch.randint(vocab_size - 1, clean[:, changed].shape, generator=generator)
        corrupt[:, changed] = 1 + (clean[:, changed] + shift) % (vocab_size - 1)
        answers = draw(self.n)
        wrong = 1 + answers % (vocab_size - 1)
        pairs = tuple(
            TokenPair(tuple(a), tuple(b), (c,), (d,), {}, tuple(b))
            for a, b, c, d in zip(
                clean.tolist(), corrupt.tolist(), answers.tolist(), wrong.tolist(), strict=True
            )
        )
        return Batch(tuple(range(self.n)), clean.to(device), corrupt.to(device), pairs)
