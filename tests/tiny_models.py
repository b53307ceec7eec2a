"""Tiny random Hugging Face models of several families, with a tokenizer of whole words, and prompts for them.

Every parameter is random, biases and norm gains too: what would be forgotten in folding or summing shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits.prompts import PromptPair

NAMES = ("Mary", "John", "Tom", "Ann", "Sue", "Bob")
WORDS = (
    "<bos>", "<unk>", *NAMES, "When", "and", "went", "to", "the", "store", "gave", "a", "drink", "bag", "later",
    "Tommy", ",", ".",
)  # fmt: skip
CONTEXT = 24


@dataclass(frozen=True)
class Family:
    """architecture, config: names in transformers. attention_output, mlp: modules of layer {}.

    What goes into attention_output is z with its heads side by side; what comes out of mlp is what the MLP writes
    to the residual stream (a norm behind it included).
    """

    architecture: str
    config: str
    settings: dict[str, Any]
    attention_output: str = "model.layers.{}.self_attn.o_proj"
    mlp: str = "model.layers.{}.mlp"

    def build(self) -> Any:
        import transformers

        special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
        config = getattr(transformers, self.config)(vocab_size=len(WORDS), **special, **self.settings)
        torch.manual_seed(0)
        model = getattr(transformers, self.architecture)(config).eval()
        randomise(model)
        return model


def randomise(model: Any, seed: int = 1) -> None:
    """Gives every parameter random values; gains stay near one, everything else near zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(0.25 * noise)


_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
_NEOX = ("gpt_neox.layers.{}.attention.dense", "gpt_neox.layers.{}.mlp")
FAMILIES = {
    "tiny-gpt2": Family(
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_positions": CONTEXT, "n_embd": 32, "n_layer": 3, "n_head": 4},
        "transformer.h.{}.attn.c_proj",
        "transformer.h.{}.mlp",
    ),
    "tiny-llama": Family("LlamaForCausalLM", "LlamaConfig", _SHAPE | {"num_key_value_heads": 2}),
    "tiny-neox": Family("GPTNeoXForCausalLM", "GPTNeoXConfig", _SHAPE | {"rotary_pct": 0.25}, *_NEOX),
    "tiny-neox-serial": Family(
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        _SHAPE | {"rotary_pct": 0.5, "use_parallel_residual": False},
        *_NEOX,
    ),
    # A norm gain that is stored as an offset from one, and head outputs wider than the model.
    "tiny-gemma": Family(
        "GemmaForCausalLM", "GemmaConfig", _SHAPE | {"num_key_value_heads": 1, "head_dim": 12}
    ),
    "tiny-mistral": Family(
        "MistralForCausalLM", "MistralConfig", _SHAPE | {"num_key_value_heads": 2, "sliding_window": None}
    ),
    # Sees few tokens back, so the engine covers short prompts alone.
    "tiny-mistral-window": Family(
        "MistralForCausalLM", "MistralConfig", _SHAPE | {"num_key_value_heads": 2, "sliding_window": 6}
    ),
    "tiny-qwen2": Family("Qwen2ForCausalLM", "Qwen2Config", _SHAPE | {"num_key_value_heads": 2}),
    # Normalises queries and keys.
    "tiny-qwen3": Family(
        "Qwen3ForCausalLM", "Qwen3Config", _SHAPE | {"num_key_value_heads": 2, "head_dim": 12}
    ),
    # A mixture of experts.
    "tiny-mixtral": Family(
        "MixtralForCausalLM", "MixtralConfig", _SHAPE | {"num_key_value_heads": 2, "num_local_experts": 4}
    ),
    "tiny-phi": Family(
        "PhiForCausalLM",
        "PhiConfig",
        _SHAPE | {"partial_rotary_factor": 0.5},
        "model.layers.{}.self_attn.dense",
    ),
    # Rotates otherwise once a prompt is longer than 12 tokens, so keys of a shorter prefix are no longer its own.
    "tiny-phi3-long": Family(
        "Phi3ForCausalLM",
        "Phi3Config",
        _SHAPE
        | {
            "num_key_value_heads": 2,
            "original_max_position_embeddings": 12,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "factor": 2.0,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 12,
            },
        },
    ),
    # Its blocks put out tuples.
    "tiny-gptj": Family(
        "GPTJForCausalLM",
        "GPTJConfig",
        {"n_positions": CONTEXT, "n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4},
        "transformer.h.{}.attn.out_proj",
        "transformer.h.{}.mlp",
    ),
    # Not additive: these normalise what components write; the first caps its logits as well, and every other
    # layer of it sees few tokens back.
    "tiny-gemma2": Family(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        _SHAPE | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6},
        mlp="model.layers.{}.post_feedforward_layernorm",
    ),
    "tiny-olmo2": Family(
        "Olmo2ForCausalLM",
        "Olmo2Config",
        _SHAPE | {"num_key_value_heads": 4},
        mlp="model.layers.{}.post_feedforward_layernorm",
    ),
    # Additive, but the logits are scaled behind the unembedding.
    "tiny-cohere": Family(
        "CohereForCausalLM", "CohereConfig", _SHAPE | {"num_key_value_heads": 2, "logit_scale": 0.3}
    ),
}
COVERED = (
    "tiny-gpt2", "tiny-llama", "tiny-neox", "tiny-neox-serial", "tiny-gemma", "tiny-mistral", "tiny-qwen2",
    "tiny-qwen3",
)  # fmt: skip
"""What the exact engine runs."""
ADDITIVE = (*COVERED, "tiny-mixtral", "tiny-phi", "tiny-gptj")


def edges_by_name(scores: Mapping[tuple[Any, Any], float]) -> dict[str, float]:
    """TransformerLens's scores of edges between nodes at one position each, summed by our names."""
    sums: dict[str, float] = {}
    for (source, reader), value in scores.items():
        name = f"{_name(source)}->{_name(reader)}"
        sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def _name(node: Any) -> str:
    if node.kind in ("embed", "logits"):
        return {"embed": "input"}.get(node.kind, node.kind)
    if node.head is None:
        return f"m{node.layer}"
    part = {"attn_head_out": ""}.get(node.kind, f"<{node.kind[0]}>")
    return f"a{node.layer}.h{node.head}{part}"


def write_tokenizer(directory: Path, *, as_added: bool = False) -> None:
    """as_added: for a model whose own class of tokenizer reads the vocabulary as byte pairs, and knows no words."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<bos>", unk_token="<unk>"
    )
    if as_added:
        fast.add_tokens([AddedToken(word, single_word=True, lstrip=True) for word in WORDS[2:]])
    fast.save_pretrained(directory)


def write_model(name: str, directory: Path) -> None:
    """Saves the family called `name` with the tokenizer, as a user would."""
    FAMILIES[name].build().save_pretrained(directory)
    write_tokenizer(directory, as_added=FAMILIES[name].config == "Qwen2Config")


def write_gpt2_shape(directory: Path, tokenizer: Path, n_layers: int = 24, n_heads: int = 16) -> Path:
    """A random GPT-2 of that shape and little width (GPT-2 medium's, if not given), with GPT-2's own tokenizer."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_layer": n_layers, "n_head": n_heads, "n_embd": 2 * n_heads, "n_inner": 32, "n_positions": 128}
    GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.5)).save_pretrained(directory)
    AutoTokenizer.from_pretrained(tokenizer, local_files_only=True).save_pretrained(directory)
    return directory


def read_model(directory: Path) -> Any:
    """The same files through transformers alone."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory).eval()


_TEMPLATES = (
    "When {A} and {B} went to the store, {S} gave a drink to",
    "{B} and {A} went to the store. {S} gave a bag to",
)


def prompt_pairs(n: int, seed: int = 0, *, templates: int = 2) -> tuple[PromptPair, ...]:
    """n distinct pairs of the kind of IOI (at most 30), of 15 and 14 tokens in turn; the longer name END too."""
    drawn = random.Random(seed).sample(list(permutations(NAMES, 2)), n)
    return tuple(_pair(right, wrong, i % templates) for i, (right, wrong) in enumerate(drawn))


def _pair(right: str, wrong: str, template: int) -> PromptPair:
    frame = _TEMPLATES[template]
    clean, corrupt = (frame.format(A=right, B=wrong, S=s) for s in (wrong, right))
    start = clean.rindex(wrong)
    positions = {"S2": (start, start + len(wrong))}
    if template == 0:
        positions["END"] = (len(clean) - 1, len(clean))
    return PromptPair(clean, corrupt, (f" {right}",), (f" {wrong}",), positions, template=str(template))


Change = Callable[[Tensor], Tensor]


@dataclass
class Hooked:
    """A plain transformers model with its z and MLP outputs in reach, to patch it without any of our code."""

    model: Any
    family: Family

    def logits(self, tokens: Tensor, changes: dict[tuple[str, int], Change] | None = None) -> Tensor:
        """Last logits; changes: ("z", layer) or ("mlp", layer) -> what to make of the value there.

        z is passed as [batch, pos, head, d_head].
        """
        handles = [self._hook(kind, layer, change) for (kind, layer), change in (changes or {}).items()]
        try:
            with torch.no_grad():
                return self.model(tokens).logits[:, -1]
        finally:
            for handle in handles:
                handle.remove()

    def values(self, tokens: Tensor) -> dict[tuple[str, int], Tensor]:
        """z and MLP outputs of every layer."""
        seen: dict[tuple[str, int], Tensor] = {}

        def keep(place: tuple[str, int]) -> Change:
            def change(value: Tensor) -> Tensor:
                seen[place] = value.clone()
                return value

            return change

        places = [(kind, layer) for layer in range(self.n_layers) for kind in ("z", "mlp")]
        self.logits(tokens, {place: keep(place) for place in places})
        return seen

    def gradients(
        self, tokens: Tensor, metric: Callable[[Tensor], Tensor], dropped: int | None = None
    ) -> tuple[dict[tuple[str, int], Tensor], dict[tuple[str, int], Tensor]]:
        """z and MLP outputs of every layer, and the gradient there of a metric of the last logits.

        dropped: a layer through whose writes no gradient passes.
        """
        seen: dict[tuple[str, int], Tensor] = {}

        def keep(place: tuple[str, int]) -> Change:
            def change(value: Tensor) -> Tensor:
                seen[place] = value
                return value

            return change

        places = [(kind, layer) for layer in range(self.n_layers) for kind in ("z", "mlp")]
        handles = [self._hook(*place, keep(place)) for place in places]
        if dropped is not None:
            for module in (self.family.attention_output, self.family.mlp):
                layer = self.model.get_submodule(module.format(dropped))
                handles.append(layer.register_forward_hook(lambda module, args, output: output.detach()))
        total = metric(self.model(tokens).logits[:, -1]).sum()
        for handle in handles:
            handle.remove()
        inputs = [seen[place] for place in places]
        found = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
        return {place: seen[place].detach() for place in places}, dict(zip(places, found, strict=True))

    @property
    def n_layers(self) -> int:
        return int(self.model.config.num_hidden_layers)

    @property
    def n_heads(self) -> int:
        return int(self.model.config.num_attention_heads)

    def _hook(self, kind: str, layer: int, change: Change) -> Any:
        if kind == "mlp":
            module = self.model.get_submodule(self.family.mlp.format(layer))
            return module.register_forward_hook(lambda module, args, output: change(output))

        def before(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            merged, *rest = args
            split = merged.view(*merged.shape[:2], self.n_heads, -1)
            return (change(split).reshape(merged.shape), *rest)

        module = self.model.get_submodule(self.family.attention_output.format(layer))
        return module.register_forward_pre_hook(before)
